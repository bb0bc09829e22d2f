package l7

import (
	"net/netip"
	"slices"
	"strings"
)

// requestFields returns the fields of ex as a server gets them: what concerns
// only the connection to the client is removed, and who the client is and what
// it asked for is told in the fields that servers look for.
func requestFields(ex *exchange) fields {
	drop := connectionFields(ex.fields)
	out := make(fields, 0, len(ex.fields)+6)
	for _, f := range ex.fields {
		if !drop(f.name) && !saysWhoAsks(f.name) {
			out = append(out, f)
		}
	}
	// RFC 9110, section 10.1.4: TE and the option that names it go together.
	if ex.fields.hasToken("TE", "trailers") {
		out = append(out, field{"TE", "trailers"}, field{"Connection", "TE"})
	}
	if protocol := upgradeWanted(ex); protocol != "" {
		out = append(out, field{"Connection", "Upgrade"}, field{"Upgrade", protocol})
	}
	client := ex.client.Unmap().WithZone("")
	out = append(out,
		field{"X-Forwarded-For", client.String()},
		field{"X-Forwarded-Proto", ex.scheme},
		field{"X-Real-IP", client.String()}, // what nginx users' applications read
		field{"Forwarded", forwarded(client, ex.host, ex.scheme)})
	if ex.host != "" {
		out = append(out, field{"X-Forwarded-Host", ex.host})
	}
	return out
}

// answerFields returns the fields of a server's answer as the client gets them.
func answerFields(in fields) fields {
	drop := connectionFields(in)
	return slices.DeleteFunc(slices.Clone(in), func(f field) bool { return drop(f.name) })
}

// trailerFields returns the trailers that may be passed on, in either
// direction: none that would be refused, or taken for what only a head may say
// (RFC 9110, section 6.5.1).
func trailerFields(in fields) fields {
	return slices.DeleteFunc(slices.Clone(in), func(f field) bool { return !validTrailer(f.name) })
}

func validTrailer(name string) bool {
	switch strings.ToLower(name) {
	case "content-length", "host", "authorization", "cookie", "set-cookie", "content-type",
		"content-encoding", "content-range", "cache-control", "expect", "max-forwards", "te":
		return false
	}
	return !hopByHop(name) && !saysWhoAsks(name)
}

// connectionFields tells the fields that are for the next hop alone: the known
// ones and those that Connection names (RFC 9110, section 7.6.1).
func connectionFields(f fields) (drop func(name string) bool) {
	var named map[string]bool // in lower case; nil in most heads
	for t := range f.tokens("Connection") {
		if hopByHop(t) || strings.EqualFold(t, "close") {
			continue
		}
		if named == nil {
			named = make(map[string]bool)
		}
		named[strings.ToLower(t)] = true
	}
	return func(name string) bool {
		return hopByHop(name) || named != nil && named[strings.ToLower(name)]
	}
}

func hopByHop(name string) bool {
	for _, n := range [...]string{"Connection", "Proxy-Connection", "Keep-Alive", "TE", "Trailer",
		"Transfer-Encoding", "Upgrade", "HTTP2-Settings", "Proxy-Authenticate", "Proxy-Authorization"} {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

// statements are the fields that servers take for a proxy's statement about the
// client or about what it asked for. Those of one provider alone, such as
// CF-Connecting-IP, are not among them: behind that provider they are true.
var statements = [...]string{
	"Forwarded", "X-Forwarded", "X-Real-IP", "X-Client-IP", "Client-IP", "True-Client-IP", "X-Cluster-Client-IP",
	"X-Original-Forwarded-For", "X-Original-URL", "X-Rewrite-URL", "X-Scheme", "Front-End-Https",
	"Proxy", // would become HTTP_PROXY in a CGI program's environment
}

// saysWhoAsks reports whether the field is one of statements or begins with
// X-Forwarded-. Such a statement of the client itself is worth nothing.
func saysWhoAsks(name string) bool {
	const family = "X-Forwarded-"
	if len(name) > len(family) && sameVariable(name[:len(family)], family) {
		return true
	}
	for _, s := range statements {
		if sameVariable(name, s) {
			return true
		}
	}
	return false
}

// sameVariable reports whether gateways such as CGI make the same variable of
// both names: they turn what is neither letter nor digit into an underscore, so
// that X_Forwarded_For passes for X-Forwarded-For there.
func sameVariable(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if variableByte(a[i]) != variableByte(b[i]) {
			return false
		}
	}
	return true
}

func variableByte(c byte) byte {
	switch {
	case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		return c
	case c >= 'A' && c <= 'Z':
		return c + 'a' - 'A'
	}
	return '_'
}

// forwarded writes the one element of the Forwarded field (RFC 7239, section
// 4); an empty host is left out.
func forwarded(client netip.Addr, host, scheme string) string {
	var b strings.Builder
	b.WriteString("for=")
	if client.Is6() {
		// Section 6.1: an IPv6 address is in brackets and therefore quoted.
		b.WriteString(`"[` + client.String() + `]"`)
	} else {
		b.WriteString(client.String())
	}
	if host != "" {
		b.WriteString(";host=" + tokenOrQuoted(host))
	}
	b.WriteString(";proto=" + scheme)
	return b.String()
}

// tokenOrQuoted returns s, in quotes unless it is a token (RFC 9110, sections
// 5.6.2 and 5.6.4).
func tokenOrQuoted(s string) string {
	const others = "!#$%&'*+-.^_`|~"
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(others, c) >= 0) {
			return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
		}
	}
	return s
}

// upgradeWanted returns the protocol to which the client wants to change, ""
// if it does not, may not or cannot.
func upgradeWanted(ex *exchange) string {
	protocol := ex.fields.get("Upgrade")
	if ex.upgrade == nil || ex.body != nil || protocol == "" || !ex.fields.hasToken("Connection", "Upgrade") {
		return ""
	}
	// Other versions of HTTP and TLS would carry further requests past the
	// routes and rules, so the request goes on without.
	for t := range ex.fields.tokens("Upgrade") {
		name, _, _ := strings.Cut(strings.ToLower(t), "/")
		if name == "h2c" || name == "h2" || name == "http" || name == "tls" {
			return ""
		}
	}
	return protocol
}
