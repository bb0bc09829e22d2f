// Package pool is what the engines forward to: named sets of servers, the rule
// that picks one for each connection, and what is known about each server.
//
// Three parties meet at a Pool. The engines call Pick for every connection and
// Server.Done when it has ended; health checks report through SetHealth; an
// administrator drains servers with SetAdmin. A reload passes the new
// configuration to Update. What the engines tell of connections that fail, with
// ConnectFailed, Failed and Succeeded, ejects a server for a while (outlier.go).
//
// Picking is on the path of every connection and takes no lock: the servers
// that may be picked, and the order in which their weights take turns, are
// computed anew whenever something changes and published as one snapshot.
// Changes are rare and made one after the other.
//
// A Pool has no goroutines, but for moments at the end of an ejection, and nothing to
// close.
package pool
