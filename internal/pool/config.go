package pool

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"appliance/internal/endpoint"
)

// Balance names the rule by which a pool picks a server.
type Balance string

// The balancing rules.
const (
	RoundRobin Balance = "round_robin" // in turn, in proportion to the weights
	LeastConn  Balance = "least_conn"  // the fewest connections per unit of weight
	Random2    Balance = "random2"     // the less busy of two drawn by weight
	SourceHash Balance = "source_hash" // the same server for a client's address, by weight
	First      Balance = "first"       // the first of the file that is not full
)

// balances are all rules.
var balances = []Balance{RoundRobin, LeastConn, Random2, SourceHash, First}

// OnServerDown says what becomes of the connections of a server whose check
// fails.
type OnServerDown string

// What becomes of them.
const (
	DownDrain OnServerDown = "drain" // they go on
	DownReset OnServerDown = "reset" // they are reset
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
	// SlowStart is for how long a server that has become usable again gets less
	// than its share, growing evenly; default 0, the whole share at once.
	SlowStart time.Duration `toml:"slow_start"`
	// Queue is how many connections may wait for a server when all are full;
	// default 0: they are refused.
	Queue int `toml:"queue"`
	// QueueTimeout bounds that wait; default 5 s.
	QueueTimeout time.Duration `toml:"queue_timeout"`
	// OnServerDown is what becomes of the connections of a server whose check
	// fails; default drain.
	OnServerDown OnServerDown `toml:"on_server_down"`
	// SendProxy has a header of the PROXY protocol sent to servers that do not
	// say themselves: "v1" or "v2"; default none.
	SendProxy string `toml:"send_proxy"`
	// Checked says that a health check judges the servers: they are not picked
	// before SetHealth calls them up. Servers of an unchecked pool are up.
	// It is not a key of its own: whoever reads the file sets it where the
	// pool's table has a check.
	Checked bool `toml:"-"`
}

// ServerConfig describes one server of a pool. In the file it may be a bare
// address, which UnmarshalText reads.
type ServerConfig struct {
	// Name is unique in its pool; default: the address.
	Name string `toml:"name"`
	// Address is "IP:port", "[IPv6]:port", "unix:/path", or "name:port"; whoever
	// reads the file replaces a name by the address of its host, or sets Down.
	Address string `toml:"address"`
	// Weight is the server's share, 1 to 256; default 1, as for 0.
	Weight int `toml:"weight"`
	// Backup servers are picked only while no other server is usable.
	Backup bool `toml:"backup"`
	// MaxConnections is how many connections the server has at most; default 0,
	// any number.
	MaxConnections int `toml:"max_connections"`
	// SendProxy is as in Config; "none" for no header where the pool asks for
	// one.
	SendProxy string `toml:"send_proxy"`
	// ServerName is the name that this server is asked for by TLS, where its pool has
	// that, and that its certificate must be for; default: as the pool has it.
	ServerName string `toml:"server_name"`
	// Host is the name of the host of Address before it was replaced; empty if
	// there was none.
	Host string `toml:"-"`
	// Down says why the server is down, whatever else is known of it; empty if it
	// need not be.
	Down string `toml:"-"`
}

// SendProxyTo returns the version of the PROXY header that a server of the pool is
// sent, "v1" or "v2"; empty for none.
func (c Config) SendProxyTo(s ServerConfig) string {
	version := cmp.Or(s.SendProxy, c.SendProxy)
	if version == "none" {
		return ""
	}
	return version
}

// EffectiveQueueTimeout returns QueueTimeout with its default applied.
func (c Config) EffectiveQueueTimeout() time.Duration { return cmp.Or(c.QueueTimeout, 5*time.Second) }

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
	if c.Balance != "" && !slices.Contains(balances, c.Balance) {
		problem("balance", fmt.Sprintf("unknown balance %q; known: round_robin, least_conn, random2, source_hash, first", c.Balance))
	}
	if c.Outlier != nil {
		c.Outlier.validate(len(c.Servers), problem)
	}
	c.validateLimits(problem)
	if len(c.Servers) == 0 {
		problem("servers", "a pool needs at least one server")
	}
	seen := make(map[string]int, len(c.Servers))
	for i, s := range c.Servers {
		at := func(field string) string { return fmt.Sprintf("servers[%d].%s", i, field) }
		if _, err := endpoint.Parse(s.Address); err != nil {
			problem(at("address"), err.Error())
		}
		if s.Weight < 0 || s.Weight > 256 {
			problem(at("weight"), fmt.Sprintf("weight %d is out of range; 1 to 256 are allowed", s.Weight))
		}
		if s.MaxConnections < 0 {
			problem(at("max_connections"), "the number of connections must be positive")
		}
		if !slices.Contains([]string{"", "none", "v1", "v2"}, s.SendProxy) {
			problem(at("send_proxy"), fmt.Sprintf("unknown version %q; known: v1, v2, none", s.SendProxy))
		}
		if first, ok := seen[s.Label()]; ok {
			problem(at("name"), fmt.Sprintf("server %q is already servers[%d]; names in a pool must differ", s.Label(), first))
			continue
		}
		seen[s.Label()] = i
	}
}

// validateLimits reports mistakes in what is not about a single server.
func (c Config) validateLimits(problem func(key, message string)) {
	if c.SlowStart < 0 {
		problem("slow_start", "a duration must be positive")
	}
	if c.QueueTimeout < 0 {
		problem("queue_timeout", "a timeout must be positive")
	}
	limited := slices.ContainsFunc(c.Servers, func(s ServerConfig) bool { return s.MaxConnections > 0 })
	switch {
	case c.Queue < 0:
		problem("queue", "the number of connections must be positive")
	case c.Queue > 0 && !limited:
		problem("queue", "nothing ever waits: no server of the pool has max_connections")
	case c.QueueTimeout > 0 && c.Queue == 0:
		problem("queue_timeout", "nothing ever waits: the pool has no queue")
	}
	switch c.OnServerDown {
	case "", DownDrain, DownReset:
	default:
		problem("on_server_down", fmt.Sprintf("unknown word %q; known: drain, reset", c.OnServerDown))
	}
	if !slices.Contains([]string{"", "v1", "v2"}, c.SendProxy) {
		problem("send_proxy", fmt.Sprintf("unknown version %q; known: v1, v2", c.SendProxy))
	}
}
