package l4

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"appliance/internal/pool"
)

// Config describes one [[l4]] service. The zero value of each field means its
// default.
type Config struct {
	// Name is unique among all services, l4 and l7.
	Name string `toml:"name"`
	// Listen are the addresses to accept connections on, at least one.
	Listen []netip.AddrPort `toml:"listen"`
	// Protocol is the transport: "tcp", the default, or "udp".
	Protocol string `toml:"protocol"`
	// Mode says what carries the packets; default proxy.
	Mode Mode `toml:"mode"`
	// Forward says how the kernel path carries them; default nat.
	Forward Forward `toml:"forward"`
	// Pool names the pool that connections go to.
	Pool string `toml:"pool"`
	// Servers, instead of Pool, make a pool of the service's own and name.
	Servers []pool.ServerConfig `toml:"servers"`
	// Routes choose another pool by the name that a TLS client asks for, without
	// touching what it sends. Pool, or the service's own servers, are for what
	// no route matches; without them that is refused.
	Routes []Route `toml:"route"`
	// AcceptProxy has clients of some networks begin with a PROXY header; nil
	// for none.
	AcceptProxy *AcceptProxy `toml:"accept_proxy"`
	// MaxConnections is how many connections the service carries at a time;
	// default 0, any number; with UDP, sessions, and 10,000.
	MaxConnections int `toml:"max_connections"`
	// Responses is after how many datagrams from the server a session of UDP
	// ends; default 0, only the idle timeout ends it.
	Responses int `toml:"responses"`
	// PerClient bounds what one client gets: an IPv4 address or the /64 of an
	// IPv6 address.
	PerClient PerClient `toml:"per_client"`
	// Timeouts bound the phases of a connection.
	Timeouts Timeouts `toml:"timeouts"`
	// KeepAlive finds peers that are gone without a word.
	KeepAlive KeepAlive `toml:"keepalive"`
}

// Route sends the connections for some TLS server names to a pool.
type Route struct {
	// SNI are the names: exact ones, or "*.example.com" for all names below
	// example.com.
	SNI []string `toml:"sni"`
	// Pool names the pool.
	Pool string `toml:"pool"`
}

// AcceptProxy says who is believed about the client's address.
type AcceptProxy struct {
	// From are the networks of the proxies. Their connections must begin with a
	// PROXY header, version 1 or 2; what others send is never taken for one.
	From []netip.Prefix `toml:"from"`
}

// PerClient bounds what one client gets; 0 is no bound.
type PerClient struct {
	// MaxConnections is how many connections it has at a time.
	MaxConnections int `toml:"max_connections"`
	// Rate is how many new ones it gets in a second.
	Rate int `toml:"rate"`
}

// Timeouts bound the phases of a connection.
type Timeouts struct {
	// Connect bounds connecting to one server; default 3 s.
	Connect time.Duration `toml:"connect"`
	// Header bounds the wait for a PROXY header and for a ClientHello where
	// there are routes; default 5 s. After it a client that has sent no
	// ClientHello goes to the service's own pool, if it has one.
	Header time.Duration `toml:"header"`
	// Idle ends a connection on which nothing moved either way for this long;
	// default 1 h, with UDP 30 s.
	Idle time.Duration `toml:"idle"`
	// HalfClose ends a connection of which one side is closed and on which
	// nothing moved for this long; default 10 s. In the end it bounds the wait
	// for the client to acknowledge what it was sent.
	HalfClose time.Duration `toml:"half_close"`
}

// EffectiveConnect returns Connect with its default applied.
func (t Timeouts) EffectiveConnect() time.Duration { return cmp.Or(t.Connect, 3*time.Second) }

// EffectiveHeader returns Header with its default applied.
func (t Timeouts) EffectiveHeader() time.Duration { return cmp.Or(t.Header, 5*time.Second) }

// EffectiveIdle returns Idle with its default applied.
func (t Timeouts) EffectiveIdle() time.Duration { return cmp.Or(t.Idle, time.Hour) }

// EffectiveHalfClose returns HalfClose with its default applied.
func (t Timeouts) EffectiveHalfClose() time.Duration { return cmp.Or(t.HalfClose, 10*time.Second) }

// PoolName returns the name of the pool for what no route matches: Pool, the
// service's own name where it brings its servers along, or nothing.
func (c Config) PoolName() string {
	if c.Pool != "" || len(c.Servers) == 0 && len(c.Routes) > 0 {
		return c.Pool
	}
	return c.Name
}

// PoolNames returns the names of all pools that the service forwards to.
func (c Config) PoolNames() []string {
	var names []string
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	add(c.PoolName())
	for _, r := range c.Routes {
		add(r.Pool)
	}
	return names
}

// Validate calls problem once for each mistake in c: key is the path of the
// field below the service's table as the file spells it, message says what is
// wrong and what would be right. Whether the pool exists is not judged here.
func (c Config) Validate(problem func(key, message string)) {
	if c.Name == "" {
		problem("name", "a service needs a name")
	}
	if len(c.Listen) == 0 {
		problem("listen", "a service needs an address to listen on, such as [\"192.168.15.3:3306\"]")
	}
	for i, a := range c.Listen {
		if a.Port() == 0 {
			problem(fmt.Sprintf("listen[%d]", i), "the port must be between 1 and 65535")
		}
	}
	switch c.Protocol {
	case "", "tcp":
		if c.Responses != 0 {
			problem("responses", "only a service with protocol = \"udp\" counts responses")
		}
	case "udp":
		c.validateUDP(problem)
	default:
		problem("protocol", fmt.Sprintf("unknown protocol %q; known: tcp, udp", c.Protocol))
	}
	switch {
	case c.Pool == "" && len(c.Servers) == 0 && len(c.Routes) == 0:
		problem("pool", "a service needs a pool, or servers of its own")
	case c.Pool != "" && len(c.Servers) > 0:
		problem("servers", "a service has either a pool or servers of its own, not both")
	}
	for _, t := range []struct {
		key string
		d   time.Duration
	}{{"connect", c.Timeouts.Connect}, {"header", c.Timeouts.Header}, {"idle", c.Timeouts.Idle}, {"half_close", c.Timeouts.HalfClose}} {
		if t.d < 0 {
			problem("timeouts."+t.key, "a timeout must be positive")
		}
	}
	c.validateMode(problem)
	c.KeepAlive.validate(problem)
	c.validateRoutes(problem)
	if c.AcceptProxy != nil && len(c.AcceptProxy.From) == 0 {
		problem("accept_proxy.from", "the networks of the proxies are missing, such as [\"192.168.15.0/24\"]")
	}
	if c.Timeouts.Header > 0 && c.AcceptProxy == nil && len(c.Routes) == 0 {
		problem("timeouts.header", "there is no header to wait for: the service has neither accept_proxy nor routes")
	}
	for _, n := range []struct {
		key string
		n   int
	}{{"max_connections", c.MaxConnections}, {"per_client.max_connections", c.PerClient.MaxConnections}, {"per_client.rate", c.PerClient.Rate}} {
		if n.n < 0 {
			problem(n.key, "the number must be positive")
		}
	}
}

// The defaults of UDP.
const (
	udpIdle     = 30 * time.Second
	udpSessions = 10000
)

// UDP reports whether the service carries datagrams.
func (c Config) UDP() bool { return c.Protocol == "udp" }

// validateUDP reports what a service of datagrams cannot have.
func (c Config) validateUDP(problem func(key, message string)) {
	const why = "is for connections of TCP; this service has protocol = \"udp\""
	if len(c.Routes) > 0 {
		problem("route", why)
	}
	if c.AcceptProxy != nil {
		problem("accept_proxy", why)
	}
	if c.KeepAlive != (KeepAlive{}) {
		problem("keepalive", why)
	}
	for _, t := range []struct {
		key string
		d   time.Duration
	}{{"connect", c.Timeouts.Connect}, {"header", c.Timeouts.Header}, {"half_close", c.Timeouts.HalfClose}} {
		if t.d > 0 {
			problem("timeouts."+t.key, why)
		}
	}
	if c.Responses < 0 {
		problem("responses", "the number must be positive")
	}
}

// validateRoutes reports mistakes in the routes.
func (c Config) validateRoutes(problem func(key, message string)) {
	seen := make(map[string]string)
	for i, r := range c.Routes {
		at := fmt.Sprintf("route[%d]", i)
		if len(r.SNI) == 0 {
			problem(at+".sni", "a route needs a server name, such as [\"blog.example.com\"]")
		}
		if r.Pool == "" {
			problem(at+".pool", "a route needs a pool")
		}
		for j, name := range r.SNI {
			key := fmt.Sprintf("%s.sni[%d]", at, j)
			if !validName(strings.TrimPrefix(name, "*.")) {
				problem(key, fmt.Sprintf("%q is no host name; write blog.example.com or *.example.com", name))
			}
			if first, ok := seen[strings.ToLower(name)]; ok {
				problem(key, fmt.Sprintf("%s is in %s already", name, first))
			}
			seen[strings.ToLower(name)] = key
		}
	}
}

// validName reports whether name may be that of a host.
func validName(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}
