package health

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Type names a kind of check.
type Type string

// The kinds of checks.
const (
	TCP   Type = "tcp"   // a connection is accepted
	HTTP  Type = "http"  // a request gets a status in range
	MySQL Type = "mysql" // the server greets, or logs in and answers a query
	ICMP  Type = "icmp"  // an echo request is answered
)

// Config describes how a server is judged, the key `check` of a pool. It is
// comparable: two services that check one address in the same way share one
// check. The zero value of each field means its default.
type Config struct {
	// Type selects the kind of check; required.
	Type Type `toml:"type"`
	// Interval is the time from the start of one check to the start of the
	// next; default 2 s, at least 10 ms.
	Interval time.Duration `toml:"interval"`
	// Timeout bounds one whole check; default 1 s, never above Interval.
	Timeout time.Duration `toml:"timeout"`
	// FastInterval takes the place of Interval while the state is about to
	// turn, from the first check that speaks against it; default Interval, at
	// most that and at least 10 ms.
	FastInterval time.Duration `toml:"fast_interval"`
	// DownInterval takes the place of Interval while the server is down;
	// default Interval, at least 10 ms.
	DownInterval time.Duration `toml:"down_interval"`
	// Jitter spreads the checks: each interval is longer or shorter by up to
	// this much; default a tenth of the interval, at most the interval. The
	// other intervals have the same share of theirs.
	Jitter time.Duration `toml:"jitter"`
	// Rise is how many checks in a row must pass before a server that is down
	// counts as up; default 2.
	Rise int `toml:"rise"`
	// Fall is how many checks in a row must fail before a server that is up
	// counts as down; default 3.
	Fall int `toml:"fall"`
	// Initial is the state before the first check; default unknown, where the
	// first check decides alone. From up and down, fall and rise count.
	Initial Initial `toml:"initial"`

	// Address and Port, where they are set, are checked instead of the
	// server's own.
	Address netip.Addr `toml:"address"`
	Port    int        `toml:"port"`

	// Method, Path, Host and Status belong to http checks: the request to send
	// (default GET /, with the server's address as Host) and the statuses that
	// pass, as a list of codes and ranges (default "200-399").
	Method string `toml:"method"`
	Path   string `toml:"path"`
	Host   string `toml:"host"`
	Status string `toml:"status"`

	// User, PasswordFile and Query belong to mysql checks. Without a user the
	// check reads the greeting and takes its leave by a login that is refused;
	// with one it logs in; with a query it also runs that and wants a row, or
	// with Expect this value in the row's first column. The file holds the
	// password and at most one newline; it is read for every check, so a new
	// password needs no reload.
	User         string `toml:"user"`
	PasswordFile string `toml:"password_file"`
	Query        string `toml:"query"`
	Expect       string `toml:"expect"`
}

// EffectiveInterval returns Interval with its default applied.
func (c Config) EffectiveInterval() time.Duration { return orDefault(c.Interval, 2*time.Second) }

// EffectiveTimeout returns Timeout with its default applied: 1 s, or the
// interval where that is shorter.
func (c Config) EffectiveTimeout() time.Duration {
	return orDefault(c.Timeout, min(time.Second, c.EffectiveInterval()))
}

// EffectiveJitter returns Jitter with its default applied.
func (c Config) EffectiveJitter() time.Duration {
	return orDefault(c.Jitter, c.EffectiveInterval()/10)
}

// EffectiveRise returns Rise with its default applied.
func (c Config) EffectiveRise() int { return orDefault(c.Rise, 2) }

// EffectiveFall returns Fall with its default applied.
func (c Config) EffectiveFall() int { return orDefault(c.Fall, 3) }

// EffectiveFastInterval returns FastInterval with its default applied.
func (c Config) EffectiveFastInterval() time.Duration {
	return orDefault(c.FastInterval, c.EffectiveInterval())
}

// EffectiveDownInterval returns DownInterval with its default applied.
func (c Config) EffectiveDownInterval() time.Duration {
	return orDefault(c.DownInterval, c.EffectiveInterval())
}

// Skew returns how much later than another node that runs the same check this
// node may learn of the same change: the first check that meets it is late by
// the longer interval with its jitter, each one more that rise or fall ask for
// by twice the jitter, and the last one takes up to a timeout.
func (c Config) Skew() time.Duration {
	more := time.Duration(max(c.EffectiveRise(), c.EffectiveFall()) - 1)
	interval, jitter := c.EffectiveInterval(), c.EffectiveJitter()
	if down := c.EffectiveDownInterval(); down > interval {
		jitter = time.Duration(float64(jitter) / float64(interval) * float64(down))
		interval = down
	}
	return interval + (1+2*more)*jitter + c.EffectiveTimeout()
}

// Initial is the state of a server before its first check.
type Initial string

// The states to begin with.
const (
	InitialUnknown Initial = "unknown"
	InitialUp      Initial = "up"
	InitialDown    Initial = "down"
)

// state returns the state that i means; Unknown for anything unknown.
func (i Initial) state() State {
	switch i {
	case InitialUp:
		return Up
	case InitialDown:
		return Down
	default:
		return Unknown
	}
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// Validate calls problem once for each mistake in c: key is the field as the
// file spells it, message says what is wrong and what would be right.
func (c Config) Validate(problem func(key, message string)) {
	switch c.Type {
	case TCP, HTTP, MySQL, ICMP:
	case "":
		problem("type", "a check needs a type: tcp, http, mysql or icmp")
	default:
		problem("type", fmt.Sprintf("unknown check type %q; known: tcp, http, mysql, icmp", c.Type))
	}
	if c.EffectiveInterval() < 10*time.Millisecond {
		problem("interval", "the interval must be at least 10ms")
	}
	if c.FastInterval != 0 && (c.FastInterval < 10*time.Millisecond || c.FastInterval > c.EffectiveInterval()) {
		problem("fast_interval", "the fast interval must be at least 10ms and no longer than the interval")
	}
	if c.DownInterval != 0 && c.DownInterval < 10*time.Millisecond {
		problem("down_interval", "the interval while a server is down must be at least 10ms")
	}
	if c.Timeout < 0 || c.EffectiveTimeout() > c.EffectiveInterval() {
		problem("timeout", "the timeout must be positive and no longer than the interval, so that checks never pile up")
	}
	if c.Jitter < 0 || c.EffectiveJitter() > c.EffectiveInterval() {
		problem("jitter", "the jitter must be between 0s and the interval")
	}
	if c.Rise < 0 {
		problem("rise", "rise must be at least 1")
	}
	if c.Fall < 0 {
		problem("fall", "fall must be at least 1")
	}
	switch c.Initial {
	case "", InitialUnknown, InitialUp, InitialDown:
	default:
		problem("initial", fmt.Sprintf("unknown state %q; known: unknown, up, down", c.Initial))
	}
	if a := c.Address; a.IsValid() && (a.IsUnspecified() || a.IsMulticast()) {
		problem("address", fmt.Sprintf("%s is no address of a server", a))
	}
	if c.Port < 0 || c.Port > 65535 {
		problem("port", "the port must be between 1 and 65535")
	}
	if _, err := parseStatus(c.Status); err != nil {
		problem("status", err.Error())
	}
	if c.Path != "" && !strings.HasPrefix(c.Path, "/") {
		problem("path", "the path must begin with a slash")
	} else if _, err := newRequest(Config{Path: c.Path}); err != nil {
		problem("path", err.Error())
	}
	if _, err := newRequest(Config{Method: c.Method}); err != nil {
		problem("method", err.Error())
	}
	if _, err := newRequest(Config{Host: c.Host}); err != nil {
		problem("host", err.Error())
	}
	c.validateKind(problem)
}

// validateKind reports fields that do not belong to the check's type.
func (c Config) validateKind(problem func(key, message string)) {
	fields := []struct {
		key, value string
		kind       Type
	}{
		{"method", c.Method, HTTP}, {"path", c.Path, HTTP}, {"host", c.Host, HTTP}, {"status", c.Status, HTTP},
		{"user", c.User, MySQL}, {"password_file", c.PasswordFile, MySQL},
		{"query", c.Query, MySQL}, {"expect", c.Expect, MySQL},
	}
	for _, f := range fields {
		if f.value != "" && c.Type != f.kind {
			problem(f.key, fmt.Sprintf("%s belongs to checks of type %s, not %s", f.key, f.kind, c.Type))
		}
	}
	if c.Type == MySQL && c.User == "" && c.Query != "" {
		problem("query", "a query needs a user to log in as")
	}
	if c.Type == MySQL && c.User == "" && c.PasswordFile != "" {
		problem("password_file", "a password needs a user to log in as")
	}
	if c.Query == "" && c.Expect != "" {
		problem("expect", "expect needs a query whose answer it can be compared with")
	}
}

// statusRange is an inclusive range of HTTP statuses.
type statusRange struct{ low, high int }

// parseStatus reads "200-299,304"; the empty string is the default.
func parseStatus(s string) ([]statusRange, error) {
	if s == "" {
		s = defaultStatus
	}
	var ranges []statusRange
	for part := range strings.SplitSeq(s, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			high = low
		}
		l, errLow := strconv.Atoi(low)
		h, errHigh := strconv.Atoi(high)
		if errLow != nil || errHigh != nil || l < 100 || h > 599 || l > h {
			return nil, fmt.Errorf("%q is no list of statuses such as \"200-299,304\"", s)
		}
		ranges = append(ranges, statusRange{l, h})
	}
	return ranges, nil
}

// Target is one address judged in one way. It is comparable and identifies a
// check: services that need the same target share it. The port is 0 where the
// check needs none.
type Target struct {
	Address netip.AddrPort
	Check   Config
}

// For returns the target that judges the server at an address: that address,
// unless the check says where to look instead.
func (c Config) For(server netip.AddrPort) Target {
	address, port := server.Addr(), server.Port()
	if c.Address.IsValid() {
		address = c.Address
	}
	if c.Port != 0 {
		port = uint16(c.Port)
	}
	if c.Type == ICMP {
		port = 0
	}
	// Whoever gets to the same place in another way shares the check.
	c.Address, c.Port = netip.Addr{}, 0
	return Target{Address: netip.AddrPortFrom(address, port), Check: c}
}

// String returns the address, without the port where there is none.
func (t Target) String() string {
	if t.Address.Port() == 0 {
		return t.Address.Addr().String()
	}
	return t.Address.String()
}

// question returns t without what only says when to ask and how many answers
// turn the state: targets that put the same question to one server find the
// same.
func (t Target) question() Target {
	c := &t.Check
	c.Interval, c.FastInterval, c.DownInterval, c.Timeout, c.Jitter = 0, 0, 0, 0, 0
	c.Rise, c.Fall, c.Initial = 0, 0, ""
	return t
}
