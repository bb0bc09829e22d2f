// Package kernel carries the packets of L4 services in the kernel: an eBPF
// program at the ingress of the interfaces rewrites each packet and sends it on,
// so that a connection costs no socket, no system call and no copy. docs/kernel.md
// tells how it works and what it does not do.
//
// A Path is one loaded program with its maps. Set gives it the services, Attach
// the interfaces. What is no packet of a service, or one that the program does
// not understand, goes to the stack as if the program were not there. That is
// also what happens to a new connection which the program cannot take (no server,
// no room, no route): the proxy (package l4), which listens at the same address,
// serves it. So a caller keeps a listener of the proxy behind every service.
//
// A flow is what a connection, or what one client sends from one port by UDP, is
// here: two entries of the map of flows, one for each direction. Flows outlive
// Set, servers and services; they end by TCP's own rules, or by a timeout
// (sweep.go), for which a goroutine of the Path looks at all flows every few
// seconds.
//
// Flows, Changes and Install carry flows to the other node. A Flow names
// addresses alone, never interfaces or positions in a list, so it means the same
// on both nodes.
package kernel
