package l4

import (
	"cmp"
	"fmt"
	"net/netip"
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
	// Protocol is the transport; "tcp", the default, is the only one so far.
	Protocol string `toml:"protocol"`
	// Pool names the pool that connections go to.
	Pool string `toml:"pool"`
	// Servers, instead of Pool, make a pool of the service's own and name.
	Servers []pool.ServerConfig `toml:"servers"`
	// Timeouts bound the phases of a connection.
	Timeouts Timeouts `toml:"timeouts"`
}

// Timeouts bound the phases of a connection.
type Timeouts struct {
	// Connect bounds connecting to one server; default 3 s.
	Connect time.Duration `toml:"connect"`
	// Idle ends a connection on which nothing moved either way for this long;
	// default 1 h.
	Idle time.Duration `toml:"idle"`
	// HalfClose ends a connection of which one side is closed and on which
	// nothing moved for this long; default 10 s. In the end it bounds the wait
	// for the client to acknowledge what it was sent.
	HalfClose time.Duration `toml:"half_close"`
}

// EffectiveConnect returns Connect with its default applied.
func (t Timeouts) EffectiveConnect() time.Duration { return cmp.Or(t.Connect, 3*time.Second) }

// EffectiveIdle returns Idle with its default applied.
func (t Timeouts) EffectiveIdle() time.Duration { return cmp.Or(t.Idle, time.Hour) }

// EffectiveHalfClose returns HalfClose with its default applied.
func (t Timeouts) EffectiveHalfClose() time.Duration { return cmp.Or(t.HalfClose, 10*time.Second) }

// PoolName returns the name of the pool that the service forwards to: Pool, or
// the service's own name where it brings its servers along.
func (c Config) PoolName() string {
	if c.Pool != "" {
		return c.Pool
	}
	return c.Name
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
	if c.Protocol != "" && c.Protocol != "tcp" {
		problem("protocol", fmt.Sprintf("unknown protocol %q; known: tcp", c.Protocol))
	}
	switch {
	case c.Pool == "" && len(c.Servers) == 0:
		problem("pool", "a service needs a pool, or servers of its own")
	case c.Pool != "" && len(c.Servers) > 0:
		problem("servers", "a service has either a pool or servers of its own, not both")
	}
	for _, t := range []struct {
		key string
		d   time.Duration
	}{{"connect", c.Timeouts.Connect}, {"idle", c.Timeouts.Idle}, {"half_close", c.Timeouts.HalfClose}} {
		if t.d < 0 {
			problem("timeouts."+t.key, "a timeout must be positive")
		}
	}
}
