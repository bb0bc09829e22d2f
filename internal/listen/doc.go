// Package listen is the one place that opens TCP listeners. It keeps a set of
// them over reloads, hands accepted connections to their handlers, can make the
// listeners of an address keep silent while that address moves to the other
// node, and cuts the connections to an address that goes.
//
// A reload goes in two steps. Stage opens what is missing and may fail, in
// which case nothing has changed. Commit cannot fail: it swaps handlers, starts
// and stops listeners. An address that is wanted before and after keeps its
// socket, so no client notices, even if another service takes it over.
//
// Listeners may be bound to addresses that the machine does not have now
// (IP_FREEBIND): a virtual address that arrives finds its listeners ready.
//
// Connections are accepted below package net, see Conn: it would ask for the local
// address of each, set its options anew and make the poller know it before anything is
// to be waited for.
//
// Every listener has one goroutine that accepts, which Close waits for, and
// every connection one that runs Handler.ServeConn. A handler may park its connection
// while there is nothing to do, see Conn.Park: then it has no goroutine, only a place
// among those that one goroutine waits for, and another call of ServeConn goes on with
// it. Wait waits for all of them.
package listen
