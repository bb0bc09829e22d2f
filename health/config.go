package health

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"appliance/internal/endpoint"
	"appliance/internal/proxyproto"
)

// Type names a kind of check.
type Type string

// The kinds of checks.
const (
	TCP      Type = "tcp"      // a connection is accepted, or an answer is as expected
	TLS      Type = "tls"      // a TLS handshake succeeds
	HTTP     Type = "http"     // a request gets a status in range, and a body as expected
	HTTPS    Type = "https"    // the same over TLS
	GRPC     Type = "grpc"     // a service of gRPC says that it is serving
	MySQL    Type = "mysql"    // the server greets, or logs in and answers a query
	Postgres Type = "postgres" // the server takes logins, or logs in and answers a query
	Redis    Type = "redis"    // PING is answered, by a server in a role
	SMTP     Type = "smtp"     // the server greets and answers EHLO
	SSH      Type = "ssh"      // the server identifies itself
	DNS      Type = "dns"      // a question is answered as expected
	UDP      Type = "udp"      // a datagram is answered, or at least not refused
	ICMP     Type = "icmp"     // an echo request is answered
)

// types are all kinds of checks, in the order in which messages list them.
var types = []Type{TCP, TLS, HTTP, HTTPS, GRPC, MySQL, Postgres, Redis, SMTP, SSH, DNS, UDP, ICMP}

// Connects reports whether checks of that kind make a connection.
func (t Type) Connects() bool { return t != DNS && t != UDP && t != ICMP }

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

	// Send, of tcp and udp checks, is what is sent first; \xHH in it is one byte.
	Send string `toml:"send"`
	// Expect is what the server must answer. In checks by tcp, udp, http and
	// https it is a part of the answer or its body, where \xHH is one byte, in
	// those by ssh a part of the identification; in checks by mysql and postgres
	// it is the first column of the first row, and in those by dns the value of
	// one of the records. ExpectRegexp is a regular expression (RE2) that
	// matches somewhere in the answer of a tcp, udp, http or https check.
	Expect       string `toml:"expect"`
	ExpectRegexp string `toml:"expect_regexp"`

	// Method, Path, Host, Headers and Status belong to http and https checks:
	// the request to send (default GET /, with the server's address as Host)
	// and the statuses that pass, as a list of codes and ranges (default
	// "200-399"). Host and Headers belong to grpc checks as well.
	Method  string  `toml:"method"`
	Path    string  `toml:"path"`
	Host    string  `toml:"host"`
	Headers Headers `toml:"headers"`
	Status  string  `toml:"status"`
	// HTTP is the version of HTTP that http and https checks speak, "1.1" (the
	// default) or "2": by TLS both sides agree on it (ALPN), else the server must
	// expect it.
	HTTP string `toml:"http"`
	// Service, of a grpc check, is the name of the service to ask for; default "",
	// which is the server as a whole.
	Service string `toml:"service"`

	// TLS has checks by grpc, mysql, postgres, redis and smtp encrypted: grpc and
	// redis from the start, mysql and postgres by their SSLRequest, smtp by STARTTLS.
	// A server that does not know it fails.
	TLS bool `toml:"tls"`
	// ServerName, Verify, CAFile and ExpiryWarningDays belong to tls and https
	// checks, and to those with TLS. ServerName is the name to ask for (SNI) and, where Verify is set,
	// the one that the certificate must be for; default the host of an https
	// check, or else the address, which is not sent. Verify wants a certificate
	// by an authority of CAFile, in PEM, or else of the system. The check warns
	// so many days before a certificate expires; default 14.
	ServerName        string `toml:"server_name"`
	Verify            bool   `toml:"verify"`
	CAFile            string `toml:"ca_file"`
	ExpiryWarningDays int    `toml:"expiry_warning_days"`
	// Cert and Key belong to the same checks: files in PEM with a chain of
	// certificates and its key, for servers that ask who we are. They are read for
	// each check.
	Cert string `toml:"cert"`
	Key  string `toml:"key"`

	// User, PasswordFile and Query belong to mysql and postgres checks, the
	// first two to redis checks as well. Without a user, mysql reads the
	// greeting and takes its leave by a login that is refused, and postgres
	// asks for a login; with one they log in; with a query they also run that
	// and want a row. The file holds the password and at most one newline; it
	// is read for every check, so a new password needs no reload. Database is
	// the one of a postgres check; default the server's, which is named like
	// the user. Role, of a redis check, is what ROLE must answer: "master",
	// "slave" or "sentinel".
	User         string `toml:"user"`
	PasswordFile string `toml:"password_file"`
	Database     string `toml:"database"`
	Query        string `toml:"query"`
	Role         string `toml:"role"`

	// SendProxy has the check begin with a PROXY header that tells of no client,
	// for servers that expect one before anything else: "v1" or "v2". Default
	// "none"; whoever reads the file puts in what the server is sent anyway.
	SendProxy string `toml:"send_proxy"`

	// Query, of a dns check, is the name to ask for, QueryType the type of the
	// records (default A), and Rcode the code of the answer (default NOERROR).
	QueryType string `toml:"query_type"`
	Rcode     string `toml:"rcode"`
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

// EffectiveExpiryWarningDays returns ExpiryWarningDays with its default applied.
func (c Config) EffectiveExpiryWarningDays() int { return orDefault(c.ExpiryWarningDays, 14) }

// Skew returns how much later than another node that runs the same check this
// node may learn of the same change: the first check that meets it is late by
// the longer interval with its jitter, each one more that rise or fall ask for
// by twice the jitter, the last one takes up to a timeout, and one node may be
// early by as much as the other is not.
func (c Config) Skew() time.Duration {
	more := time.Duration(max(c.EffectiveRise(), c.EffectiveFall()) - 1)
	interval, jitter := c.EffectiveInterval(), c.EffectiveJitter()
	if down := c.EffectiveDownInterval(); down > interval {
		jitter = time.Duration(float64(jitter) / float64(interval) * float64(down))
		interval = down
	}
	return interval + (1+2*more)*jitter + c.EffectiveTimeout() + 2*earlyBy(c.EffectiveInterval())
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

// preamble returns what a connection begins with, whatever the type of the check.
func (c Config) preamble() []byte {
	switch c.SendProxy {
	case "v1":
		return proxyproto.AppendV1(nil, proxyproto.Header{})
	case "v2":
		return proxyproto.AppendV2(nil, proxyproto.Header{})
	}
	return nil
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

// Target is one endpoint judged in one way. It is comparable and identifies a
// check: services that need the same target share it. The port is 0 where the
// check needs none.
type Target struct {
	Address endpoint.Endpoint
	Check   Config
}

// For returns the target that judges the server at an endpoint: that one,
// unless the check says where to look instead.
func (c Config) For(server endpoint.Endpoint) Target {
	address, port := server.IP().Addr(), server.IP().Port()
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
	if !address.IsValid() {
		return Target{Address: server, Check: c} // a path
	}
	return Target{Address: endpoint.IP(netip.AddrPortFrom(address, port)), Check: c}
}

// String returns the address, without the port where there is none.
func (t Target) String() string {
	if a := t.Address.IP(); a.IsValid() && a.Port() == 0 {
		return a.Addr().String()
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
