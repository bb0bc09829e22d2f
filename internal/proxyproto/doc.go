// Package proxyproto reads and writes the header of the PROXY protocol,
// versions 1 and 2 (haproxy.org, doc/proxy-protocol.txt), by which a proxy tells
// the next one who the client is.
//
// It works on bytes that a caller has looked at without taking them: Parse says
// how many of them are the header, and nothing of what follows is lost.
package proxyproto
