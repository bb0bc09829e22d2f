package pool

import (
	"fmt"
	"net/netip"
)

// Balance names the rule by which a pool picks a server.
type Balance string

// The balancing rules.
const (
	RoundRobin Balance = "round_robin" // in turn, in proportion to the weights
	LeastConn  Balance = "least_conn"  // the fewest connections per unit of weight
)

// Config describes one pool, the table [pool.NAME] of the file. The zero value
// of each field means its default.
type Config struct {
	// Name is the table's key.
	Name string `toml:"-"`
	// Balance is the rule for picking a server; default round_robin.
	Balance Balance `toml:"balance"`
	// Servers are the pool's members, at least one, with different names.
	Servers []ServerConfig `toml:"servers"`
	// Outlier ejects servers that fail their clients; default: none is.
	Outlier *Outlier `toml:"outlier"`
	// Checked says that a health check judges the servers: they are not picked
	// before SetHealth calls them up. Servers of an unchecked pool are up.
	// It is not a key of its own: whoever reads the file sets it where the
	// pool's table has a check.
	Checked bool `toml:"-"`
}

// ServerConfig describes one server of a pool. In the file it may be a bare
// "host:port" string, which UnmarshalText reads.
type ServerConfig struct {
	// Name is unique in its pool; default: the address.
	Name string `toml:"name"`
	// Address is "IP:port" or "[IPv6]:port".
	Address string `toml:"address"`
	// Weight is the server's share, 1 to 256; default 1, as for 0.
	Weight int `toml:"weight"`
	// Backup servers are picked only while no other server is usable.
	Backup bool `toml:"backup"`
}

// UnmarshalText reads the short form of a server, its address alone.
func (c *ServerConfig) UnmarshalText(text []byte) error {
	c.Address = string(text)
	return nil
}

// Label returns the name by which people know the server.
func (c ServerConfig) Label() string {
	if c.Name != "" {
		return c.Name
	}
	return c.Address
}

// EffectiveWeight returns the weight with its default applied.
func (c ServerConfig) EffectiveWeight() int {
	if c.Weight == 0 {
		return 1
	}
	return c.Weight
}

// Validate calls problem once for each mistake in c: key is the path of the
// field below the pool's table as the file spells it ("servers[1].address"),
// message says what is wrong and what would be right.
func (c Config) Validate(problem func(key, message string)) {
	switch c.Balance {
	case "", RoundRobin, LeastConn:
	default:
		problem("balance", fmt.Sprintf("unknown balance %q; known: round_robin, least_conn", c.Balance))
	}
	if c.Outlier != nil {
		c.Outlier.validate(problem)
	}
	if len(c.Servers) == 0 {
		problem("servers", "a pool needs at least one server")
	}
	seen := make(map[string]int, len(c.Servers))
	for i, s := range c.Servers {
		at := func(field string) string { return fmt.Sprintf("servers[%d].%s", i, field) }
		if !validAddress(s.Address) {
			problem(at("address"), fmt.Sprintf("%q is not an address with a port, such as 172.16.1.51:3306", s.Address))
		}
		if s.Weight < 0 || s.Weight > 256 {
			problem(at("weight"), fmt.Sprintf("weight %d is out of range; 1 to 256 are allowed", s.Weight))
		}
		if first, ok := seen[s.Label()]; ok {
			problem(at("name"), fmt.Sprintf("server %q is already servers[%d]; names in a pool must differ", s.Label(), first))
			continue
		}
		seen[s.Label()] = i
	}
}

func validAddress(s string) bool {
	a, err := netip.ParseAddrPort(s)
	return err == nil && a.Port() != 0
}
