// Package ingress has BPF programs look at the frames that come in by an interface.
//
// There are two ways. By tcx, which Linux has since 6.6, an attachment is a
// descriptor: it lasts until the last process that has it is gone. Before there are
// only filters, at the queueing discipline clsact (package link), which nobody takes
// away when a process dies. So what is made a filter is a program that does nothing but
// go on to another one, by an array in which that is the only entry. The kernel empties
// such an array with its last descriptor: then the filter is still there, but
// does nothing, and packets take their usual way. A Hook is either, and behaves alike.
//
// Programs that are attached by tcx see a packet before all filters do. Among filters
// the preference counts: see Role.
package ingress
