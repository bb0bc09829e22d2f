// Package epoll is what one goroutine needs that looks after many descriptors: a
// [Poller], which tells what has happened to any of them, and [Timers].
//
// The goroutine waits for its epoll descriptor with the runtime's poller, as if that
// were a socket. So while it waits it takes up neither a thread nor one of the
// runtime's processors, which the election in the same process is in need of. A
// descriptor may be known to the runtime's poller as well: both notice what happens,
// and where nobody waits it is remembered.
package epoll
