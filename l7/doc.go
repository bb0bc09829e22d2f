// Package l7 forwards HTTP: it terminates HTTPS, picks a route by host and
// path, picks a server of the route's pool and carries the exchange there and
// back without storing bodies.
//
// A request on its way through the package:
//
//		listener -> entrance.ServeConn -> door -> pipeline -> upstream -> server
//
//	  - An [Engine] holds the services, by name. [Engine.Stage] builds everything
//	    a new configuration needs and [Change.Commit] swaps it in: a service
//	    stays the same object for all reloads and its state (routes,
//	    certificates, upstream) is one atomic snapshot, read once per request.
//	  - An entrance is what a listener calls: one service at one listening
//	    address. It admits the connection, which counts it at its local address
//	    (place), and gives it to the door there.
//	  - A door knows the wire to the client. It turns bytes into an exchange
//	    (request head, body, and a place to write the answer to) and an aborted
//	    exchange into what the wire has for that. It knows no routes.
//	  - The pipeline is the same for all doors: route, header rules, pool.Pick,
//	    upstream, header rules, answer, account. It knows neither TLS nor frames;
//	    of net/http it uses the names of methods and statuses alone.
//	  - An upstream knows the wire to the servers and keeps idle connections.
//	  - Rules, those of a route and its service, are compiled when a configuration
//	    is built and hang on the target that a request finds. An exchange without
//	    them meets nothing but a comparison with nil.
//
// exchange.go is the seam: the types that door, pipeline and upstream share.
//
// HTTP/1 is our own on both sides; docs/l7.md tells why it is built as it is. A
// goroutine for each client (http1Conn) reads a request, carries it through the
// pipeline to a server and back (serverConn), and writes the answer; only a body
// that has not come yet takes a second one (upload). What a request needs comes
// from pools and is given back when the connection is idle. All strings of an
// exchange are views of the buffers that the heads were read into: who keeps one
// longer than the exchange copies it (strings.Clone).
//
// HTTP/2 from clients is our own, too, over the frames and the header compression
// of golang.org/x/net/http2. A goroutine for each connection (http2Conn) reads
// frames; each stream (http2Stream) has one for its exchange, and the window that
// it opens to its client is all of a body that waits here. What is to be sent is
// collected, and written by one of those who had something to send.
//
// To servers it is HTTP/1.1 or 2 as their pool's [Transport] says, with or without
// TLS; an upstream is for one transport. By HTTP/2 many exchanges share a
// connection (muxConn), each with a stream of its own (muxStream): a goroutine for
// each connection takes apart what comes and wakes the goroutine of the exchange,
// which writes to the connection itself.
//
// A door has a server for its connections, which is replaced, not changed: those
// who are connected to the old one are let go, each version in its own way.
//
// # What is promised
//
//   - A kept connection that has been closed, or on which the server has said
//     something that nobody asked for, is noticed before it is used. If it breaks
//     later, before it has brought any of an answer, the server may have seen the
//     request; then a new connection to it is tried for requests of a safe method
//     without a body.
//   - A request is sent to a second server if connecting to the first one failed,
//     or if the connection broke before there was an answer, the method is
//     idempotent and the body, if any, came together with the head: see
//     [Retry]. All others are answered 502 and never sent twice.
//   - By HTTP/2 a request that the server has not looked at (REFUSED_STREAM, or
//     above the last stream of its GOAWAY) is sent again, whatever it is, if no
//     more than 64 KiB of its body have been read: see replay.
//   - An answer that breaks off is never made to look complete.
//   - What a client says about its own address, or about what it asked for, in
//     one of the fields that servers commonly believe is not passed on: see
//     statements in forwarded.go. The fields of one provider, such as
//     CF-Connecting-IP, are passed on; a server may believe them only if no
//     others than that provider reach the service.
//   - A server gets no target and no Host that is none; that is answered 400. A
//     request of HTTP/1.0 without Host is allowed and gets the server's address
//     as Host, as with nginx, but no X-Forwarded-Host.
//   - Paths are compared as the usual servers understand them, and where there are
//     routes a server gets no path with dot segments, which some would take for
//     another one than the route is for: see plainTarget, and normalPath for what
//     servers that understand more must guard themselves.
//
// Goroutines: each connection has that of the listener, which by HTTP/1 does all
// the work, and is given back while the connection is idle, and by HTTP/2 begins one
// for each request; uploads and the tunnels of upgraded connections have one each,
// which the exchange waits for. A connection has ended when all of them have. Shutdown
// waits for all connections, and for those to servers by HTTP/2, whose goroutines an
// upstream owns.
package l7
