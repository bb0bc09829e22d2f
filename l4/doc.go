// Package l4 forwards TCP connections: it accepts a connection for a service,
// picks a server from the service's pool, connects to it, and carries bytes
// between the two without looking at them.
//
// An Engine holds all services. A configuration becomes effective in two steps:
// Stage prepares doors, one for each service, which internal/listen hands
// connections to, and Commit makes them the ones that Stats talks of. A
// connection keeps the door it came through, and with it the pool and the
// timeouts, to its end; the service behind the doors, with its counters, goes
// on over reloads.
//
// A connection takes one goroutine for each direction (flow.go), which reads and
// writes small amounts and splices large ones, and one that watches over both
// (relay.go): it ends the connection when nothing moves any more (quiet.go), when
// one direction fails, or when the engine shuts down. A connection ends cleanly
// only if both sides have ended it cleanly; everything else ends in a reset, so
// that neither side takes a broken transfer for a whole one. What the server said
// before is not lost to the reset: a client that is still there gets it first.
package l4
