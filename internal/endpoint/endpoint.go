// Package endpoint says where a server is: at an address and port, or at a socket
// in the file system.
package endpoint

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
)

// MaxPath is how long the path of a unix socket may be, in bytes: sun_path of
// unix(7) without the NUL at its end.
const MaxPath = 107

// scheme begins the text of an endpoint in the file system.
const scheme = "unix:"

// Endpoint is where a server is. It is comparable; the zero value is nowhere.
// One of an address has no path, one of a path no address.
type Endpoint struct {
	ip   netip.AddrPort
	path string
}

// IP returns the endpoint at an address and port.
func IP(a netip.AddrPort) Endpoint { return Endpoint{ip: a} }

// Parse reads "IP:port", "[IPv6]:port" or "unix:/path". Endpoints that are the
// same are equal, however they were spelt. The error says what is wrong and what
// would be right.
func Parse(text string) (Endpoint, error) {
	path, unix := strings.CutPrefix(text, scheme)
	if !unix {
		a, err := netip.ParseAddrPort(text)
		if err != nil || a.Port() == 0 {
			return Endpoint{}, fmt.Errorf("%q is not an address with a port, such as 172.16.1.51:3306", text)
		}
		return IP(a), nil
	}
	switch {
	case !filepath.IsAbs(path):
		return Endpoint{}, fmt.Errorf("%q has no absolute path; write it as in unix:/run/app.sock", text)
	case strings.ContainsRune(path, 0):
		return Endpoint{}, fmt.Errorf("%q is no path: it contains a NUL", text)
	case len(filepath.Clean(path)) > MaxPath:
		return Endpoint{}, fmt.Errorf("%q is too long: the path of a unix socket has at most %d bytes", text, MaxPath)
	}
	return Endpoint{path: filepath.Clean(path)}, nil
}

// IP returns the address and port; the zero value for a socket in the file
// system.
func (e Endpoint) IP() netip.AddrPort { return e.ip }

// Path returns the path of a socket in the file system, empty for an address.
func (e Endpoint) Path() string { return e.path }

// Host returns how a request names the host there that names none itself:
// "IP:port", or "localhost".
func (e Endpoint) Host() string {
	if e.path != "" {
		return "localhost"
	}
	return e.ip.String()
}

// Network returns the network by which package net reaches the endpoint, "tcp"
// or "unix".
func (e Endpoint) Network() string {
	if e.path != "" {
		return "unix"
	}
	return "tcp"
}

// Dial returns the address that package net wants together with Network.
func (e Endpoint) Dial() string {
	if e.path != "" {
		return e.path
	}
	return e.ip.String()
}

// String returns the text that Parse reads.
func (e Endpoint) String() string {
	if e.path != "" {
		return scheme + e.path
	}
	return e.ip.String()
}
