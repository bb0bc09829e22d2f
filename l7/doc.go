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
//
// exchange.go is the seam: the types that door, pipeline and upstream share.
// In door_std.go and upstream_std.go the standard library carries the wire, as
// http.Server and http.Transport; the pipeline does not notice if a faster core
// takes their place. What the standard library costs at the seam: the order of
// fields of different names is lost, and a request that its parser refuses (400,
// 431) is answered below the pipeline and not counted.
//
// Every door has one http.Server for HTTP/1.1 and one for HTTP/2. They can be
// told separately to let their clients go, which each protocol does in its own
// way: see httpServer.retire.
//
// # What is promised
//
//   - A request is sent to a second server only if connecting to the first one
//     failed, so no server ever sees a request twice because of this package;
//     kept connections that the server has just closed are retried as
//     http.Transport does, for requests that may be repeated.
//   - An answer that breaks off is never made to look complete.
//   - What a client says about its own address is never passed on, see
//     forwarded.go.
//
// Goroutines: each connection has that of the listener, which waits for its end
// in ServeConn, and those of net/http. Shutdown waits for all of them.
package l7
