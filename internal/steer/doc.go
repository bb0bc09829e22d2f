// Package steer hands packets over to the node whose sockets they belong to,
// after a virtual address has moved away from that node in peace.
//
// The new owner of an address gets all its packets, also those of connections
// that the old one has not finished. A Program at the ingress of the new owner's
// interface (bpf/steer.c) sends these on to the old owner, frame by frame, which
// answers the clients directly. One on the old owner's does the reverse, for the
// moment in which neighbours and switches do not agree where the address is. What
// it decides about a packet to one of the
// addresses:
//
//	a request for a connection (SYN)                              this node's, until Gone
//	a frame from the other node                                   this node's: no loop
//	a connection of this node                                     this node's
//	what repeats the end of one in TIME_WAIT                      this node's
//	what answers a request that is under way here                 this node's
//	the answer to a SYN cookie of this node                       this node's
//	a fragment, or not TCP                                        left alone
//	any other segment, and ICMP errors about one                  the other node's
//
// One connection may have a socket on either node. A client uses a port once more
// while the node without its new connection has the former one in TIME_WAIT; or it
// repeats a request whose answer was lost, and reaches the other node with it. The
// number that a segment acknowledges tells which of the two it is for.
//
// What this node carries without sockets is none of the program's business: the
// program of the kernel path comes before it. What that leaves may be a flow that
// the other node has and this one does not know.
//
// The nodes must be on one LAN, as they are for VRRP.
//
// The compiled program is committed; `make bpf` compiles it anew. It is written
// for Linux 5.10. Only this package, the kernel path of layer 4 and package ingress
// import cilium/ebpf.
package steer
