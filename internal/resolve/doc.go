// Package resolve knows the addresses of hosts by their names and keeps them up
// to date.
//
// One goroutine, Resolver.Run, owns what is known. It looks each name up when its
// TTL has run out, publishes a snapshot whenever anything changed, and tells so.
// How a name is looked up is a function (Lookup), by default what this machine
// says of itself: /etc/hosts, and the servers of /etc/resolv.conf (system.go).
package resolve
