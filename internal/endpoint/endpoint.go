// Package endpoint says where a server is: at an address and port, at a socket in
// the file system, or at a port of a host that has a name.
package endpoint

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// MaxPath is how long the path of a unix socket may be, in bytes: sun_path of
// unix(7) without the NUL at its end.
const MaxPath = 107

// scheme begins the text of an endpoint in the file system.
const scheme = "unix:"

// Endpoint is where a server is. It is comparable; the zero value is nowhere.
// One of an address has no path and no name, one of a path neither address nor
// name, one of a name no path, and a port without an address.
type Endpoint struct {
	ip   netip.AddrPort
	path string
	name string
}

// IP returns the endpoint at an address and port.
func IP(a netip.AddrPort) Endpoint { return Endpoint{ip: a} }

// Parse reads "IP:port", "[IPv6]:port", "name:port" or "unix:/path". Endpoints that are the
// same are equal, however they were spelt. The error says what is wrong and what
// would be right.
func Parse(text string) (Endpoint, error) {
	path, unix := strings.CutPrefix(text, scheme)
	if !unix {
		a, err := netip.ParseAddrPort(text)
		if e, ok := parseName(text); ok {
			return e, nil
		}
		if err != nil || a.Port() == 0 {
			if strings.Contains(text, "://") {
				return Endpoint{}, fmt.Errorf("%q is a URL; a server is an address with a port, and how it is spoken to (tls, http) its pool says", text)
			}
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

// parseName reads "name:port".
func parseName(text string) (e Endpoint, ok bool) {
	name, port, ok := strings.Cut(text, ":")
	n, err := strconv.ParseUint(port, 10, 16)
	if !ok || err != nil || n == 0 || !isName(name) {
		return Endpoint{}, false
	}
	return Endpoint{name: strings.ToLower(name), ip: netip.AddrPortFrom(netip.Addr{}, uint16(n))}, true
}

// isName reports whether name can be that of a host (RFC 1123, section 2.1; the
// underscore is in use). One that ends in a number would be a malformed address.
func isName(name string) bool {
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > 253 {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(name, ".") {
		if last = label; label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			letter := c|0x20 >= 'a' && c|0x20 <= 'z'
			if !letter && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return strings.Trim(last, "0123456789") != ""
}

// Name returns the name of the host if the endpoint has one instead of an
// address.
func (e Endpoint) Name() string { return e.name }

// At returns the endpoint of a name at the address of its host.
func (e Endpoint) At(a netip.Addr) Endpoint { return IP(netip.AddrPortFrom(a, e.ip.Port())) }

// IP returns the address and port; without a valid address for a socket in the
// file system or a name.
func (e Endpoint) IP() netip.AddrPort { return e.ip }

// Path returns the path of a socket in the file system, empty for an address.
func (e Endpoint) Path() string { return e.path }

// Host returns how a request names the host there that names none itself:
// "IP:port", "name:port" or "localhost".
func (e Endpoint) Host() string {
	if e.path != "" {
		return "localhost"
	}
	return e.String()
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
	return e.String()
}

// String returns the text that Parse reads.
func (e Endpoint) String() string {
	switch {
	case e.path != "":
		return scheme + e.path
	case e.name != "":
		return e.name + ":" + strconv.Itoa(int(e.ip.Port()))
	}
	return e.ip.String()
}
