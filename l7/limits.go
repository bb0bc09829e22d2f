package l7

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// PerClient bounds what one client gets, an IPv4 address or the /64 of an IPv6
// address; requests beyond it are answered 429. 0 is no bound.
type PerClient struct {
	// MaxConnections is how many connections it has at a time; more are reset. It is
	// for services: on a connection there are requests for all their routes. The
	// client is who connects, or of whom its PROXY header tells; a trusted proxy is
	// not one.
	MaxConnections int `toml:"max_connections"`
	// Rate is how many requests a client may make in a second, on average.
	Rate int `toml:"rate"`
	// Burst is how many may come at once; default the rate.
	Burst int `toml:"burst"`
	// MaxRequests is how many may be under way at a time.
	MaxRequests int `toml:"max_requests"`
}

// EffectiveBurst returns Burst with its default applied.
func (c PerClient) EffectiveBurst() int {
	if c.Burst == 0 {
		return c.Rate
	}
	return c.Burst
}

func (c *PerClient) validate(at string, problem func(key, message string)) {
	if c == nil {
		return
	}
	for _, n := range []struct {
		key   string
		value int
	}{{"max_connections", c.MaxConnections}, {"rate", c.Rate}, {"burst", c.Burst}, {"max_requests", c.MaxRequests}} {
		if n.value < 0 || n.value > 1000000 {
			problem(at+"."+n.key, "the number must be between 1 and 1000000")
		}
	}
	if c.Burst != 0 && c.Rate == 0 {
		problem(at+".burst", "a burst goes with a rate")
	}
	switch {
	case at != "per_client" && c.MaxConnections != 0:
		problem(at+".max_connections", "connections are bounded by the service, for they are not those of a route; put it into the per_client of the service")
	case c.MaxConnections == 0 && c.Rate == 0 && c.MaxRequests == 0:
		problem(at, "a bound for clients needs rate, max_requests or, in a service, max_connections")
	}
}

// maxClients bounds how many clients are kept count of in one shard. Beyond it
// those that have no request under way are forgotten, whatever their rate.
const maxClients = 1 << 14

// clients counts the requests of each client of a route. It is in shards, so that
// connections do not wait for each other.
type clients struct {
	limit  PerClient
	shards [16]clientShard
}

type clientShard struct {
	mu    sync.Mutex
	known map[netip.Addr]*clientState
}

// clientState is one client.
type clientState struct {
	current int
	// level is how many of the requests that the rate allows are used up; it
	// falls with time.
	level float64
	at    time.Time // when level was worked out
}

// newClients returns nil if there is no limit of requests.
func newClients(limit *PerClient) *clients {
	if limit == nil || limit.Rate == 0 && limit.MaxRequests == 0 {
		return nil
	}
	c := &clients{limit: *limit}
	c.limit.MaxConnections = 0 // is not of requests
	return c
}

// clientOf returns what counts as one client: of addresses in the /64 of an IPv6
// address everybody has as many as they like.
func clientOf(a netip.Addr) netip.Addr {
	if a.Is4() || !a.IsValid() {
		return a
	}
	p, _ := a.Prefix(64) // fails only if the address is invalid
	return p.Addr()
}

func (c *clients) shard(client netip.Addr) *clientShard {
	b := client.As16()
	return &c.shards[(b[7]^b[6]^b[5]^b[15]^b[14])%16]
}

// enter counts a request of a client. If that has too many, wait is after which
// time it may come again; else leave is due.
func (c *clients) enter(client netip.Addr, now time.Time) (wait time.Duration, ok bool) {
	key := clientOf(client)
	sh := c.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := sh.known[key]
	if s == nil {
		if sh.known == nil {
			sh.known = make(map[netip.Addr]*clientState)
		}
		if len(sh.known) >= maxClients {
			sh.forget()
		}
		s = &clientState{at: now}
		sh.known[key] = s
	}
	rate, burst := float64(c.limit.Rate), float64(c.limit.EffectiveBurst())
	if passed := now.Sub(s.at); passed > 0 {
		s.level = max(0, s.level-rate*passed.Seconds())
		s.at = now
	}
	switch {
	case c.limit.MaxRequests > 0 && s.current >= c.limit.MaxRequests:
		return time.Second, false
	case rate > 0 && s.level+1 > burst:
		return time.Duration((s.level + 1 - burst) / rate * float64(time.Second)), false
	}
	s.current++
	s.level++
	return 0, true
}

// leave ends a request that entered.
func (c *clients) leave(client netip.Addr) {
	key := clientOf(client)
	sh := c.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s := sh.known[key]; s != nil {
		if s.current--; s.current <= 0 && c.limit.Rate == 0 {
			delete(sh.known, key)
		}
	}
}

// forget drops the clients that have no request under way.
func (sh *clientShard) forget() {
	for key, s := range sh.known {
		if s.current <= 0 {
			delete(sh.known, key)
		}
	}
}

// tooMany answers a client that has asked too often.
func (p *pipeline) tooMany(ex *exchange, wait time.Duration) error {
	seconds := int((wait + time.Second - 1) / time.Second)
	return p.say(ex, http.StatusTooManyRequests, field{Name: "Retry-After", Value: strconv.Itoa(max(1, seconds))})
}

// errTooLarge says that a request's body is larger than it may be.
var errTooLarge = errors.New("the body is larger than max_body_size")

// limitedBody is a body of unknown length that may only have so many bytes.
type limitedBody struct {
	requestBody
	left int64
}

// Read is described at requestBody.
func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.requestBody.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, &bodyError{errTooLarge}
	}
	return n, err
}

// limitBody bounds the body of a request; it reports false if that is known to be
// too large.
func limitBody(ex *exchange, most int64) bool {
	switch {
	case ex.body == nil:
	case ex.length > most:
		return false
	case ex.length < 0:
		ex.body = &limitedBody{ex.body, most}
	}
	return true
}

func validateBodySize(at string, size int64, problem func(key, message string)) {
	if size < 0 || size > 1<<50 {
		problem(at, fmt.Sprintf("a body of %d bytes is out of the question", size))
	}
}
