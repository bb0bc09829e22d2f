package health

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Validate calls problem once for each mistake in c: key is the field as the
// file spells it, message says what is wrong and what would be right.
func (c Config) Validate(problem func(key, message string)) {
	switch {
	case c.Type == "":
		problem("type", "a check needs a type: "+list(types, " or "))
	case !slices.Contains(types, c.Type):
		problem("type", fmt.Sprintf("unknown check type %q; known: %s", c.Type, list(types, ", ")))
	}
	c.validateRhythm(problem)
	if a := c.Address; a.IsValid() && (a.IsUnspecified() || a.IsMulticast()) {
		problem("address", fmt.Sprintf("%s is no address of a server", a))
	}
	if c.Port < 0 || c.Port > 65535 {
		problem("port", "the port must be between 1 and 65535")
	}
	c.validateBelonging(problem)
	c.validateRequest(problem)
	c.validateAnswer(problem)
	c.validateTLS(problem)
	c.validateLogin(problem)
	c.validateQuestion(problem)
	switch c.SendProxy {
	case "", "none", "v1", "v2":
	default:
		problem("send_proxy", fmt.Sprintf("unknown version %q; known: v1, v2, none", c.SendProxy))
	}
}

// list returns words for a message, with last before the last of them.
func list[T ~string](words []T, last string) string {
	var b strings.Builder
	for i, w := range words {
		switch {
		case i > 0 && i == len(words)-1:
			b.WriteString(last)
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(string(w))
	}
	return b.String()
}

// validateRhythm reports mistakes in when to ask and how many answers count.
func (c Config) validateRhythm(problem func(key, message string)) {
	const shortest = 10 * time.Millisecond
	if c.EffectiveInterval() < shortest {
		problem("interval", "the interval must be at least 10ms")
	}
	if c.FastInterval != 0 && (c.FastInterval < shortest || c.FastInterval > c.EffectiveInterval()) {
		problem("fast_interval", "the fast interval must be at least 10ms and no longer than the interval")
	}
	if c.DownInterval != 0 && c.DownInterval < shortest {
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
}

// validateBelonging reports keys that do not belong to the check's type.
func (c Config) validateBelonging(problem func(key, message string)) {
	web, asking := []Type{HTTP, HTTPS}, []Type{HTTP, HTTPS, GRPC}
	secured, securable := []Type{TLS, HTTPS}, []Type{GRPC, MySQL, Postgres, Redis, SMTP}
	connecting := slices.DeleteFunc(slices.Clone(types), func(t Type) bool { return !t.Connects() })
	if c.TLS && slices.Contains(securable, c.Type) {
		secured = append(secured, c.Type)
	}
	for _, f := range []struct {
		key string
		set bool
		of  []Type
	}{
		{"port", c.Port != 0 && c.Type == ICMP, nil},
		{"send", c.Send != "", []Type{TCP, UDP}},
		{"expect", c.Expect != "", []Type{TCP, HTTP, HTTPS, MySQL, Postgres, SSH, DNS, UDP}},
		{"expect_regexp", c.ExpectRegexp != "", []Type{TCP, HTTP, HTTPS, UDP}},
		{"method", c.Method != "", web}, {"path", c.Path != "", web}, {"host", c.Host != "", asking},
		{"headers", c.Headers != "", asking}, {"status", c.Status != "", web},
		{"http", c.HTTP != "", web}, {"service", c.Service != "", []Type{GRPC}},
		{"tls", c.TLS, securable}, {"server_name", c.ServerName != "", secured}, {"verify", c.Verify, secured},
		{"ca_file", c.CAFile != "", secured}, {"expiry_warning_days", c.ExpiryWarningDays != 0, secured},
		{"cert", c.Cert != "", secured}, {"key", c.Key != "", secured},
		{"user", c.User != "", []Type{MySQL, Postgres, Redis}},
		{"password_file", c.PasswordFile != "", []Type{MySQL, Postgres, Redis}},
		{"database", c.Database != "", []Type{Postgres}},
		{"query", c.Query != "", []Type{MySQL, Postgres, DNS}},
		{"role", c.Role != "", []Type{Redis}},
		{"send_proxy", c.SendProxy != "", connecting},
		{"query_type", c.QueryType != "", []Type{DNS}}, {"rcode", c.Rcode != "", []Type{DNS}},
	} {
		switch {
		case !f.set || slices.Contains(f.of, c.Type) || !slices.Contains(types, c.Type):
		case slices.Contains(securable, c.Type) && slices.Contains(f.of, TLS):
			problem(f.key, fmt.Sprintf("%s goes with tls = true", f.key))
		case f.of == nil:
			problem(f.key, fmt.Sprintf("a check of type %s has no %s", c.Type, f.key))
		default:
			problem(f.key, fmt.Sprintf("%s belongs to checks of type %s, not %s", f.key, list(f.of, " or "), c.Type))
		}
	}
}

// validateRequest reports mistakes in the request of an http or grpc check.
func (c Config) validateRequest(problem func(key, message string)) {
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
	if c.Type == GRPC && c.Headers.has("Content-Type") {
		problem("headers", "a grpc check sends application/grpc, so Content-Type is not for it to choose")
	}
	switch c.HTTP {
	case "", "1.1", http2Version:
	default:
		problem("http", fmt.Sprintf("unknown version %q; known: \"1.1\", \"2\"", c.HTTP))
	}
	if strings.ContainsFunc(c.Service, isControl) || !utf8.ValidString(c.Service) {
		problem("service", fmt.Sprintf("%q is no name of a service", c.Service))
	}
	if c.Method == "HEAD" && (c.Expect != "" || c.ExpectRegexp != "") {
		problem("method", "the answer to HEAD has no body; what is expected would never be in it")
	}
}

// validateAnswer reports mistakes in what is sent and expected.
func (c Config) validateAnswer(problem func(key, message string)) {
	if _, err := unescape(c.Send); err != nil {
		problem("send", err.Error())
	}
	if _, err := unescape(c.Expect); err != nil {
		problem("expect", err.Error())
	}
	if _, err := newPattern(Config{ExpectRegexp: c.ExpectRegexp}); err != nil {
		problem("expect_regexp", err.Error())
	}
	switch {
	case c.Type == TCP && c.Send != "" && c.Expect == "" && c.ExpectRegexp == "":
		problem("send", "who sends something needs to expect something, with expect or expect_regexp")
	case c.Type == UDP && c.Send == "":
		problem("send", "a udp check needs something to send, for a server is not asked by an empty datagram")
	}
}

// validateTLS reports mistakes in how a certificate is judged.
func (c Config) validateTLS(problem func(key, message string)) {
	if strings.ContainsAny(c.ServerName, " \t\r\n/:@") {
		problem("server_name", fmt.Sprintf("%q is no name of a server", c.ServerName))
	}
	if c.CAFile != "" && !c.Verify {
		problem("ca_file", "the authorities of ca_file only count with verify = true")
	}
	if c.Cert != "" && c.Key == "" {
		problem("key", "a certificate is shown with its key; name the file that has it")
	}
	if c.Cert == "" && c.Key != "" {
		problem("cert", "a key goes with its certificate; name the file that has it")
	}
	if c.ExpiryWarningDays < 0 || c.ExpiryWarningDays > 3650 {
		problem("expiry_warning_days", "the days must be between 1 and 3650")
	}
}

// validateLogin reports mistakes in how to log in and what to ask then.
func (c Config) validateLogin(problem func(key, message string)) {
	database := c.Type == MySQL || c.Type == Postgres
	if database && c.User == "" && c.Query != "" {
		problem("query", "a query needs a user to log in as")
	}
	if database && c.User == "" && c.PasswordFile != "" {
		problem("password_file", "a password needs a user to log in as")
	}
	if c.User == "" && c.Database != "" {
		problem("database", "a database needs a user to log in as")
	}
	if c.Type == Redis && c.User != "" && c.PasswordFile == "" {
		problem("user", "a user of Redis needs a password_file")
	}
	if database && c.Query == "" && c.Expect != "" {
		problem("expect", "expect needs a query whose answer it can be compared with")
	}
	if strings.Contains(c.User+c.Database+c.Query, "\x00") {
		problem("query", "a NUL cannot be sent")
	}
	switch c.Role {
	case "", "master", "slave", "sentinel":
	default:
		problem("role", fmt.Sprintf("unknown role %q; known: master, slave, sentinel", c.Role))
	}
}

// validateQuestion reports mistakes in the question of a dns check.
func (c Config) validateQuestion(problem func(key, message string)) {
	if c.Type != DNS {
		return
	}
	if c.Query == "" {
		problem("query", "a dns check needs a query: the name to ask for")
	} else if _, err := newQuestion(Config{Query: c.Query}); err != nil {
		problem("query", err.Error())
	}
	if _, ok := queryTypes[c.QueryType]; !ok && c.QueryType != "" {
		problem("query_type", fmt.Sprintf("unknown type %q; known: %s", c.QueryType, list(slices.Sorted(maps.Keys(queryTypes)), ", ")))
	}
	if _, ok := rcodes[c.Rcode]; !ok && c.Rcode != "" {
		problem("rcode", fmt.Sprintf("unknown code %q; known: %s", c.Rcode, list(slices.Sorted(maps.Keys(rcodes)), ", ")))
	}
}
