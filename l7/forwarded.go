package l7

import (
	"cmp"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"appliance/l7/http1"
)

// requestFields appends to out the fields of ex as a server gets them: what
// concerns only the connection to the client is removed, and who the client is
// and what it asked for is told in the fields that servers look for.
func requestFields(out fields, ex *exchange) fields {
	var drop options
	te, trailer, upgrade := false, false, false
	for i := range ex.fields {
		f := &ex.fields[i]
		switch kindOf(f.Name) {
		case kindConnection:
			drop = drop.add(f.Value)
		case kindTE:
			te = true
		case kindTrailer:
			trailer = true
		case kindUpgrade:
			upgrade = true
		case kindPlain:
			out = append(out, *f)
		}
	}
	out = drop.from(out)
	// RFC 9110, section 10.1.4: TE and the option that names it go together.
	if te && ex.fields.hasToken("TE", "trailers") {
		out = append(out, field{Name: "TE", Value: "trailers"}, field{Name: "Connection", Value: "TE"})
	}
	if upgrade {
		if protocol := upgradeWanted(ex); protocol != "" {
			out = append(out, field{Name: "Connection", Value: "Upgrade"}, field{Name: "Upgrade", Value: protocol})
		}
	}
	if trailer && ex.length < 0 {
		out = appendTrailerNames(out, ex.fields)
	}
	out = append(out,
		field{Name: "X-Forwarded-For", Value: cmp.Or(ex.via, ex.peer.text)},
		field{Name: "X-Forwarded-Proto", Value: ex.scheme},
		field{Name: "X-Real-IP", Value: ex.peer.text}, // what nginx users' applications read
		field{Name: "Forwarded", Value: ex.peer.forwardedField(ex.host, ex.scheme)})
	if ex.host != "" {
		out = append(out, field{Name: "X-Forwarded-Host", Value: ex.host})
	}
	return out
}

// answerFields appends to out the fields of a server's answer as the client gets
// them.
func answerFields(out, in fields) fields {
	var drop options
	for i := range in {
		switch f := &in[i]; kindOf(f.Name) {
		case kindConnection:
			drop = drop.add(f.Value)
		case kindPlain, kindStatement:
			out = append(out, *f)
		}
	}
	return drop.from(out)
}

// interimFields is answerFields for an answer with a status below 200, which has no
// length (RFC 9110, section 8.6): to some it would announce a body.
func interimFields(out, in fields) fields { return answerFields(out, in).without("Content-Length") }

// appendTrailerNames appends to out the announcement of those trailers that in
// announces and that may be passed on.
func appendTrailerNames(out, in fields) fields {
	var names []string
	for t := range in.tokens("Trailer") {
		if validTrailer(t) {
			names = append(names, t)
		}
	}
	if len(names) == 0 {
		return out
	}
	return append(out, field{Name: "Trailer", Value: strings.Join(names, ", ")})
}

// announceTrailers is appendTrailerNames for the head of an answer. By HTTP/1 an answer
// has no trailers if it has a length. A client that asks for them gets it without
// the length, others without the trailers (RFC 9110, section 6.5.1).
func (ex *exchange) announceTrailers(out, in fields) fields {
	if ex.lengthOrTrailers && out.has("Content-Length") {
		if ex.mayLackHost || ex.method == http.MethodHead || !ex.fields.hasToken("TE", "trailers") {
			return out
		}
		out = out.without("Content-Length")
	}
	return appendTrailerNames(out, in)
}

// trailerFields returns the trailers that may be passed on, in either
// direction: none that would be refused, or taken for what only a head may say
// (RFC 9110, section 6.5.1). It is a part of in, rearranged.
func trailerFields(in fields) fields {
	out := in[:0]
	for _, f := range in {
		if validTrailer(f.Name) {
			out = append(out, f)
		}
	}
	return out
}

func validTrailer(name string) bool {
	switch strings.ToLower(name) {
	case "content-length", "host", "authorization", "cookie", "set-cookie", "content-type",
		"content-encoding", "content-range", "cache-control", "expect", "max-forwards":
		return false
	}
	return kindOf(name) == kindPlain
}

// options are the fields that Connection names besides the known ones, in lower
// case; nil in most heads.
type options map[string]bool

// add adds those that a Connection field names: they are for the next hop alone
// (RFC 9110, section 7.6.1).
func (n options) add(list string) options {
	for rest, more := list, true; more; {
		var t string
		t, rest, more = strings.Cut(rest, ",")
		t, _, _ = strings.Cut(t, ";")
		t = strings.TrimSpace(t)
		if t == "" || strings.EqualFold(t, "close") || kindOf(t) != kindPlain && kindOf(t) != kindStatement ||
			strings.EqualFold(t, "Content-Length") { // without it the body would be taken for another message
			continue
		}
		if n == nil {
			n = make(options)
		}
		n[strings.ToLower(t)] = true
	}
	return n
}

// from removes those fields from fs, which is the caller's.
func (n options) from(fs fields) fields {
	if n == nil {
		return fs
	}
	return slices.DeleteFunc(fs, func(f field) bool { return n[strings.ToLower(f.Name)] })
}

// kind says what a field is for, as far as that matters on the way.
type kind uint8

const (
	kindPlain      kind = iota // passed on
	kindStatement              // see statements
	kindHop                    // for the next hop alone, like those that follow
	kindConnection             // names such fields
	kindTE
	kindTrailer
	kindUpgrade
)

// hops are the fields for the next hop alone.
var hops = [...]struct {
	name string
	kind kind
}{
	{"Connection", kindConnection}, {"TE", kindTE}, {"Trailer", kindTrailer}, {"Upgrade", kindUpgrade},
	{"Proxy-Connection", kindHop}, {"Keep-Alive", kindHop}, {"Transfer-Encoding", kindHop}, {"HTTP2-Settings", kindHop},
	{"Proxy-Authenticate", kindHop}, {"Proxy-Authorization", kindHop},
}

// statements are the fields that servers take for a proxy's statement about the
// client or about what it asked for. Those of one provider alone, such as
// CF-Connecting-IP, are not among them: behind that provider they are true.
var statements = [...]string{
	"Forwarded", "X-Forwarded", "X-Real-IP", "X-Client-IP", "Client-IP", "True-Client-IP", "X-Cluster-Client-IP",
	"X-Original-Forwarded-For", "X-Original-URL", "X-Rewrite-URL", "X-Scheme", "Front-End-Https",
	"X-Host", "X-Original-Host", "X-HTTP-Host-Override", "X-URL-Scheme", "X-Originating-IP", "X-Remote-IP", "X-Remote-Addr",
	"Proxy", // would become HTTP_PROXY in a CGI program's environment
}

// kindOf tells what the field of that name is for. A client's statement about
// itself is worth nothing, also one that begins with X-Forwarded-.
func kindOf(name string) kind {
	if len(name) == 0 || suspects[name[0]]&lengthBit(len(name)) == 0 {
		return kindPlain
	}
	for i := range hops {
		if h := &hops[i]; len(h.name) == len(name) && strings.EqualFold(h.name, name) {
			return h.kind
		}
	}
	if len(name) > len(family) && sameVariable(name[:len(family)], family) {
		return kindStatement
	}
	for _, s := range statements {
		if sameVariable(name, s) {
			return kindStatement
		}
	}
	return kindPlain
}

// family begins the names of statements that there may be more of.
const family = "X-Forwarded-"

// suspects are how long the names are that kindOf knows, by their first byte: nearly
// all others are told by that.
var suspects = func() (lengths [256]uint64) {
	add := func(name string, bits uint64) {
		lengths[strings.ToLower(name)[0]] |= bits
		lengths[strings.ToUpper(name)[0]] |= bits
	}
	for _, h := range hops {
		add(h.name, lengthBit(len(h.name)))
	}
	for _, s := range statements {
		add(s, lengthBit(len(s)))
	}
	add(family, ^(lengthBit(len(family)+1) - 1)) // and whatever is longer
	return lengths
}()

// lengthBit stands for a length of n bytes, or for all from 63 on.
func lengthBit(n int) uint64 { return 1 << min(n, 63) }

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
	b := make([]byte, 0, 64+len(host))
	b = append(b, "for="...)
	if client.Is6() {
		// Section 6.1: an IPv6 address is in brackets and therefore quoted.
		b = append(b, `"[`...)
		b = client.AppendTo(b)
		b = append(b, `]"`...)
	} else {
		b = client.AppendTo(b)
	}
	if host != "" {
		b = append(b, ";host="...)
		b = appendTokenOrQuoted(b, host)
	}
	b = append(b, ";proto="...)
	return string(append(b, scheme...))
}

// appendTokenOrQuoted appends s to b, in quotes unless it is a token (RFC 9110,
// sections 5.6.2 and 5.6.4).
func appendTokenOrQuoted(b []byte, s string) []byte {
	if http1.IsToken(s) {
		return append(b, s...)
	}
	b = append(b, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
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
