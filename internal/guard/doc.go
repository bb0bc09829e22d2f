// Package guard removes what an appliance cannot remove any more because it was
// killed: the virtual addresses it held, and the other nodes' belief that it is
// active.
//
// A guard is a child process at the other end of a socket. The appliance tells it
// what it holds; when the socket breaks without a good-bye, the appliance is dead,
// and the guard takes the addresses off and sends the adverts of priority 0 that
// the appliance could not send. It hears of the death as the first thing that the
// kernel releases (socketPair), so the addresses go within a few milliseconds, long
// before the last socket of the dead process is closed. Should the guard
// die as well, the addresses still go when their lease ends.
//
// It also keeps descriptors that the appliance gives it: the attachments of the
// kernel path. While the addresses of a dead appliance are there still, packets
// of connections come to them; without the program they would find a kernel that
// knows no such connection, and resets it. They go with the guard, which ends when
// it has swept. Filters, by which programs are attached on older kernels, do nothing
// any more then; it removes them last.
//
// parent.go is the appliance's side, child.go the guard's, files.go what is
// between them.
package guard
