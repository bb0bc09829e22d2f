package l7

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"appliance/internal/pool"
)

// Config describes one [[l7]] service. The zero value of each field means its
// default.
type Config struct {
	// Name is unique among all services, l4 and l7.
	Name string `toml:"name"`
	// Listen are the addresses to accept connections on, at least one.
	Listen []netip.AddrPort `toml:"listen"`
	// TLS terminates HTTPS; without it the service speaks plain HTTP.
	TLS *TLS `toml:"tls"`
	// Routes are tried by host and path; see Route.
	Routes []Route `toml:"route"`
	// Pool takes what no route matches. Without it that is answered 404.
	Pool string `toml:"pool"`
	// Servers, instead of Pool, make a pool of the service's own and name.
	Servers []pool.ServerConfig `toml:"servers"`
	// Redirect answers what no route matches with a redirect, instead of Pool.
	Redirect *Redirect `toml:"redirect"`
	// MaxConnections is how many connections of clients the service has at a time,
	// those that wait for a request included; more are reset. Default 0, any number.
	MaxConnections int `toml:"max_connections"`
	// MaxHeaderSize bounds a request's head in bytes; default 64 KiB. A larger
	// one is answered 431, or by HTTP/2 ends the connection if it is much larger
	// or a single field is; up to 4 KiB more may pass. By HTTP/2 a field counts 32
	// bytes more than it has (RFC 9113, section 10.5.1).
	MaxHeaderSize int64 `toml:"max_header_size"`
	// Timeouts bound the phases of a request.
	Timeouts Timeouts `toml:"timeouts"`
	// HTTP2 says how clients are spoken to by HTTP/2.
	HTTP2 HTTP2Config `toml:"http2"`
	// AcceptProxy has connections of some networks begin with a PROXY header.
	AcceptProxy *AcceptProxy `toml:"accept_proxy"`
	// TrustedProxies are networks of proxies before this one, whose word about
	// the client counts: X-Forwarded-For, X-Forwarded-Proto and the request id.
	TrustedProxies []netip.Prefix `toml:"trusted_proxies"`
	// RequestID is the name of the field with which servers get a name for each
	// request; default: they get none.
	RequestID string `toml:"request_id"`
	// Via is the name under which the service is told to servers, in the field Via
	// (RFC 9110, section 7.6.3), and by which it knows a request that has come by
	// already, which is answered 508. All nodes have the same. Default: servers are
	// not told.
	Via string `toml:"via"`
	// Underscores is what becomes of fields with one in their names; default
	// drop.
	Underscores Underscores `toml:"underscores"`
	// AccessLog says where requests are logged; default: nowhere.
	AccessLog *AccessLog `toml:"access_log"`
	Rules
}

// TLS says with which certificates a service terminates HTTPS.
type TLS struct {
	// Certificates are chosen by SNI; a client that names no known host gets
	// the first.
	Certificates []Certificate `toml:"certificates"`
	// ClientCA is a PEM file of the authorities that may sign the certificates of
	// clients. With it they are asked for one.
	ClientCA string `toml:"client_ca"`
	// ClientAuth says whether clients must show one; default require, with ClientCA.
	ClientAuth ClientAuth `toml:"client_auth"`
	// ClientCRL is a file with the authorities' lists of revoked certificates.
	ClientCRL string `toml:"client_crl"`
}

// Certificate is a pair of PEM files: the chain, leaf first, and its key.
type Certificate struct {
	Cert string `toml:"cert"`
	Key  string `toml:"key"`
}

// Route sends the requests it matches to a pool or elsewhere. A request is
// matched against the exact hosts first, then the wildcards, the longest first,
// then the routes without a host; among those of one host an exact path comes
// first, then regular expressions, then the longest prefix, then the earlier
// route. Hosts are compared without port, case and dot at the end; paths decoded
// and without dot segments, doubled slashes and slash at the end.
type Route struct {
	// Hosts are names ("blog.example.com") or wildcards for any name below one
	// ("*.example.com"), without a port; none means any.
	Hosts []string `toml:"hosts"`
	// Paths are prefixes that end at a slash: "/forum" matches /forum and
	// /forum/x, not /forums; "= /x" is that path alone, "~ ^/x" a regular
	// expression; none means any.
	Paths []string `toml:"paths"`
	// Methods are those that match, GET for HEAD too; none means any.
	Methods []string `toml:"methods"`
	// Headers and Query are fields and parameters that must be there, with their
	// value; "*" is any value, "~x" a regular expression.
	Headers map[string]string `toml:"headers"`
	Query   map[string]string `toml:"query"`
	// StripPrefix is taken off the path before a server is asked for it.
	StripPrefix string `toml:"strip_prefix"`
	// Rewrite changes the path, after StripPrefix.
	Rewrite *Rewrite `toml:"rewrite"`
	// Pool names the pool that matching requests go to.
	Pool string `toml:"pool"`
	// Redirect answers with a redirect, instead of Pool.
	Redirect *Redirect `toml:"redirect"`
	// Respond is a fixed answer, instead of Pool.
	Respond *Respond `toml:"respond"`
	// Files answers with the files of a folder, instead of Pool; with both, what is
	// no file goes to the pool.
	Files *Files `toml:"files"`
	Rules
}

// Redirect is an answer that sends the client to the same host and target by
// another scheme, or to wherever To says.
type Redirect struct {
	// Scheme is "https" or "http".
	Scheme string `toml:"scheme"`
	// Status is 301, 302, 307 or 308; default 308, which keeps the method.
	Status int `toml:"status"`
	// To, instead of Scheme and Port, is where the client goes; it may have
	// variables, such as "https://www.example.com{path}{query}".
	To string `toml:"to"`
	// Port is the port to send the client to; default the scheme's own.
	Port int `toml:"port"`
}

// EffectiveStatus returns Status with its default applied.
func (r Redirect) EffectiveStatus() int { return cmp.Or(r.Status, 308) }

// Timeouts bound the phases of a request.
type Timeouts struct {
	// Header bounds the TLS handshake and reading a request's head: by HTTP/1 of
	// the first one on a connection from when that is ready, of others from their
	// first byte. Default 10 s.
	Header time.Duration `toml:"header"`
	// Idle bounds the wait for a kept connection's next request, for a client to
	// send or take more of a body (for taking at most 256 s), and for one direction of an upgraded
	// connection after the other has ended; default 75 s.
	Idle time.Duration `toml:"idle"`
	// Connect bounds connecting to one server; default 3 s.
	Connect time.Duration `toml:"connect"`
	// Response bounds the wait for the head of a server's answer, from the end
	// of the request, then for each further part of the answer, and for the
	// server to take more of a request. A stream of events that is quiet for
	// longer is cut; upgraded connections (WebSocket) may be. Default 60 s.
	Response time.Duration `toml:"response"`
}

// EffectiveHeader returns Header with its default applied.
func (t Timeouts) EffectiveHeader() time.Duration { return cmp.Or(t.Header, 10*time.Second) }

// EffectiveIdle returns Idle with its default applied.
func (t Timeouts) EffectiveIdle() time.Duration { return cmp.Or(t.Idle, 75*time.Second) }

// EffectiveConnect returns Connect with its default applied.
func (t Timeouts) EffectiveConnect() time.Duration { return cmp.Or(t.Connect, 3*time.Second) }

// EffectiveResponse returns Response with its default applied.
func (t Timeouts) EffectiveResponse() time.Duration { return cmp.Or(t.Response, time.Minute) }

// EffectiveMaxHeaderSize returns MaxHeaderSize with its default applied.
func (c Config) EffectiveMaxHeaderSize() int64 { return cmp.Or(c.MaxHeaderSize, 64<<10) }

// EffectiveUnderscores returns Underscores with its default applied.
func (c Config) EffectiveUnderscores() Underscores { return cmp.Or(c.Underscores, UnderscoresDrop) }

// PoolNames returns the names of all pools that the service forwards to, each
// once, in the order of the file.
func (c Config) PoolNames() []string {
	var names []string
	add := func(name string) {
		for _, n := range names {
			if n == name {
				return
			}
		}
		names = append(names, name)
	}
	for _, r := range c.Routes {
		if r.Pool != "" {
			add(r.Pool)
		}
	}
	if c.Pool != "" {
		add(c.Pool)
	} else if len(c.Servers) > 0 {
		add(c.Name)
	}
	return names
}

// Validate calls problem once for each mistake in c: key is the path of the
// field below the service's table as the file spells it, message says what is
// wrong and what would be right. Whether pools and certificate files exist is
// not judged here.
func (c Config) Validate(problem func(key, message string)) {
	if c.Name == "" {
		problem("name", "a service needs a name")
	}
	if len(c.Listen) == 0 {
		problem("listen", "a service needs an address to listen on, such as [\"192.168.15.3:443\"]")
	}
	for i, a := range c.Listen {
		if a.Port() == 0 {
			problem(fmt.Sprintf("listen[%d]", i), "the port must be between 1 and 65535")
		}
	}
	c.validateTargets(problem)
	c.validateRules(problem)
	c.validateIdentity(problem)
	c.AcceptProxy.validate(problem)
	c.HTTP2.validate(problem)
	c.AccessLog.validate(problem)
	c.validateIdentityFields(problem)
	if c.TLS != nil {
		c.TLS.validateClients(problem)
		if len(c.TLS.Certificates) == 0 {
			problem("tls.certificates", "HTTPS needs at least one certificate, such as { cert = \"blog.pem\", key = \"blog.key\" }")
		}
		for i, p := range c.TLS.Certificates {
			if p.Cert == "" || p.Key == "" {
				problem(fmt.Sprintf("tls.certificates[%d]", i), "a certificate needs both cert and key, the names of two PEM files")
			}
		}
	}
	if c.MaxConnections < 0 {
		problem("max_connections", "the number must be positive")
	}
	if c.MaxHeaderSize < 0 || c.MaxHeaderSize > 16<<20 {
		problem("max_header_size", "the size must be between 1 byte and 16MiB")
	}
	for _, t := range []struct {
		key string
		d   time.Duration
	}{
		{"header", c.Timeouts.Header}, {"idle", c.Timeouts.Idle},
		{"connect", c.Timeouts.Connect}, {"response", c.Timeouts.Response},
	} {
		if t.d < 0 {
			problem("timeouts."+t.key, "a timeout must be positive")
		}
	}
}

// validateTargets reports a service or route that has no target or several.
func (c Config) validateTargets(problem func(key, message string)) {
	targets := 0
	if c.Pool != "" {
		targets++
	}
	if len(c.Servers) > 0 {
		targets++
	}
	if c.Redirect != nil {
		targets++
		c.Redirect.validate("redirect", problem)
	}
	switch {
	case targets > 1:
		problem("pool", "a service has one of pool, servers and redirect, not several")
	case targets == 0 && len(c.Routes) == 0:
		problem("pool", "a service needs a route, a pool, servers of its own or a redirect")
	}
	for i, r := range c.Routes {
		r.validate(fmt.Sprintf("route[%d]", i), problem)
	}
}

func (r Redirect) validate(at string, problem func(key, message string)) {
	switch {
	case r.To != "" && (r.Scheme != "" || r.Port != 0):
		problem(at+".to", "a redirect has either to, or scheme and port")
	case r.To != "":
		if err := validLocation(r.To); err != nil {
			problem(at+".to", err.Error())
		}
	case r.Scheme != "https" && r.Scheme != "http":
		problem(at+".scheme", fmt.Sprintf("unknown scheme %q; known: https, http", r.Scheme))
	}
	switch r.EffectiveStatus() {
	case 301, 302, 307, 308:
	default:
		problem(at+".status", fmt.Sprintf("status %d does not redirect; use 301, 302, 307 or 308", r.Status))
	}
	if r.Port < 0 || r.Port > 65535 {
		problem(at+".port", "the port must be between 1 and 65535")
	}
}

// validHost reports whether h is a host name, possibly with "*." before it.
func validHost(h string) bool {
	h = strings.TrimPrefix(h, "*.")
	if h == "" || len(h) > 253 {
		return false
	}
	for label := range strings.SplitSeq(h, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}
