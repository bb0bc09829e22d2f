// Package l4 forwards TCP connections and UDP datagrams: it accepts a connection
// for a service, picks a server from the service's pool, connects to it, and
// carries bytes between the two without looking at them.
//
// An Engine holds all services. A configuration becomes effective in two steps:
// Stage prepares doors, one for each service, which internal/listen hands
// connections to, and Commit makes them the ones that Stats talks of. A
// connection keeps the door it came through, and with it the pool and the
// timeouts, to its end; the service behind the doors, with its counters, goes
// on over reloads.
//
// A connection and the one to its server are a session (session.go). Sessions
// are carried by loops (loop.go), one goroutine for each processor, which ask
// the kernel by epoll(7) what has happened and do what can be done without
// waiting. So a session costs no goroutine, no stack and no lock: only what it
// is in itself, and a buffer or a pipe while its peer takes no more. Each of its
// directions (flow.go) reads and writes small amounts and splices large ones;
// which of both is better it sees from what the latest read or splice brought.
//
// A session ends when nothing moves any more (patience.go), when one direction
// fails, or when the engine shuts down. It ends cleanly only if both sides have
// ended it cleanly; everything else ends in a reset, so that neither side takes
// a broken transfer for a whole one. What the server said before is not lost to
// the reset: a client that is still there gets it first.
//
// Datagrams (udp.go) have sessions too: what one client sends from one port goes
// to one server, on a socket of the session's own, by which answers and refusals
// find it. Their sockets belong to the engine, and a loop each.
package l4
