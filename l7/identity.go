package l7

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"appliance/l7/http1"
)

// Underscores says what becomes of fields whose names have an underscore: Django,
// PHP and all others that make variables of them cannot tell it from a dash.
type Underscores string

// The ways to treat them.
const (
	UnderscoresDrop   Underscores = "drop"   // they are not passed on
	UnderscoresPass   Underscores = "pass"   // they are
	UnderscoresRefuse Underscores = "refuse" // the request is answered 400
)

// identity is what a service believes about who asks.
type identity struct {
	trusted     networks // the proxies whose word counts
	requestID   string   // the name of the field; "": there is none
	via         via      // of the service itself
	underscores Underscores
	proved      []string // the fields in which a rule of the service tells who the client has proved to be
}

func newIdentity(cfg Config) identity {
	id := identity{trusted: newNetworks(cfg.TrustedProxies), requestID: cfg.RequestID, via: newVia(cfg.Via), underscores: cfg.EffectiveUnderscores()}
	cfg.EachRules(func(_ string, r *Rules) {
		if r.RequestHeaders == nil {
			return
		}
		for name, value := range r.RequestHeaders.Set {
			if tellsWho(value) {
				id.proved = append(id.proved, name)
			}
		}
	})
	return id
}

func (c Config) validateIdentity(problem func(key, message string)) {
	if c.RequestID != "" {
		if err := ruledField(c.RequestID); err != nil {
			problem("request_id", err.Error())
		} else if strings.EqualFold(c.RequestID, "Host") {
			problem("request_id", "Host is the host that is asked for")
		} else if strings.Contains(c.RequestID, "_") {
			problem("request_id", "a name with an underscore does not get through everywhere; take one with dashes")
		}
	}
	if c.Via != "" && !validHost(c.Via) {
		problem("via", fmt.Sprintf("%q is no name such as \"edge\" or \"lb.example.com\"", c.Via))
	}
	switch c.EffectiveUnderscores() {
	case UnderscoresDrop, UnderscoresPass, UnderscoresRefuse:
	default:
		problem("underscores", fmt.Sprintf("unknown policy %q; known: drop, pass, refuse", c.Underscores))
	}
}

// networks are a set of networks.
type networks []netip.Prefix

// newNetworks returns the networks of prefixes, whatever host they were written
// with, and if in IPv6 though they are of IPv4: clients' addresses never are.
func newNetworks(prefixes []netip.Prefix) networks {
	var ns networks
	for _, p := range prefixes {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		ns = append(ns, p.Masked())
	}
	return ns
}

func (ns networks) contain(a netip.Addr) bool {
	for _, n := range ns {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// identify finds out who asks, and cleans the request's fields. It reports false
// for a request that is to be refused.
func (id *identity) identify(ex *exchange) bool {
	ex.identity = id
	if id.underscores == UnderscoresRefuse && hasUnderscore(ex.fields) {
		return false
	}
	ex.fields = id.clean(ex.fields)
	trusted := len(id.trusted) > 0 && id.trusted.contain(ex.peer.addr)
	if id.requestID != "" {
		ex.id = ""
		if said := ex.fields.get(id.requestID); trusted && validID(said) {
			ex.id = said
		} else {
			ex.id = newID()
		}
	}
	if trusted {
		id.believe(ex)
	}
	return true
}

// clean returns the fields, or trailers, of a client without those that are not
// passed on.
func (id *identity) clean(fs fields) fields {
	if id.underscores != UnderscoresPass && hasUnderscore(fs) {
		fs = withoutUnderscores(fs)
	}
	for _, name := range id.proved {
		// On all routes: a server believes the field wherever it is asked.
		fs = withoutVariable(fs, name)
	}
	return fs
}

// requestTrailers returns the trailers of the request as a server gets them. Some
// servers take them for fields of the head, so what is not believed there, or is
// taken away or set here, is not passed on.
func (ex *exchange) requestTrailers() fields {
	fs := trailerFields(ex.body.trailers())
	if id := ex.identity; id != nil {
		fs = id.clean(fs)
		if id.requestID != "" {
			fs = withoutVariable(fs, id.requestID)
		}
	}
	if r := ex.rules; r != nil && r.forwardAuth != nil {
		for _, name := range r.forwardAuth.headers {
			fs = withoutVariable(fs, name)
		}
	}
	if r := ex.rules; r != nil && r.request != nil {
		for _, name := range r.request.remove {
			fs = withoutVariable(fs, name)
		}
	}
	return fs
}

func hasUnderscore(fs fields) bool {
	for i := range fs {
		if strings.IndexByte(fs[i].Name, '_') >= 0 {
			return true
		}
	}
	return false
}

// withoutUnderscores returns the fields without one in their names.
func withoutUnderscores(fs fields) fields {
	out := make(fields, 0, len(fs))
	for _, f := range fs {
		if strings.IndexByte(f.Name, '_') < 0 {
			out = append(out, f)
		}
	}
	return out
}

// withoutVariable returns the fields without those that a server may take for the
// field of that name.
func withoutVariable(fs fields, name string) fields {
	if !slices.ContainsFunc(fs, func(f field) bool { return sameVariable(f.Name, name) }) {
		return fs
	}
	return slices.Clone(fs).withoutLike(name)
}

// believe takes the client and the scheme from what a trusted proxy says. The
// client is the last address of X-Forwarded-For that is no trusted proxy's, for
// what stands before it may be made up.
func (id *identity) believe(ex *exchange) {
	via := ex.peer.text
	var list []string
	for i := range ex.fields {
		if strings.EqualFold(ex.fields[i].Name, "X-Forwarded-For") {
			list = append(list, strings.Split(ex.fields[i].Value, ",")...)
		}
	}
	client := ex.peer.addr
	for i := len(list) - 1; i >= 0; i-- {
		a, ok := forwardedAddr(strings.TrimSpace(list[i]))
		if !ok {
			break
		}
		client = a
		via = a.String() + ", " + via
		if !id.trusted.contain(a) {
			break
		}
	}
	if client != ex.peer.addr {
		behind := newPeer(client)
		behind.proxy, behind.session = ex.peer.text, ex.peer.session
		ex.peer, ex.via = behind, via
	}
	if said := ex.fields.get("X-Forwarded-Proto"); said == "http" || said == "https" {
		ex.scheme = said
	}
}

// forwardedAddr reads an element of X-Forwarded-For, which some write with a port.
func forwardedAddr(s string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		return plainAddr(a), true
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return plainAddr(ap.Addr()), true
	}
	return netip.Addr{}, false
}

// validID reports whether a request id of somebody else may be passed on.
func validID(id string) bool { return len(id) <= 128 && http1.IsToken(strings.ReplaceAll(id, "/", "")) }

// newID returns a request id: 128 random bits.
func newID() string {
	return fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64())
}

// tellID puts the request id into the fields that a server gets.
func (id *identity) tellID(ex *exchange) {
	if id.requestID != "" {
		ex.out.request = append(ex.out.request.withoutLike(id.requestID), field{Name: id.requestID, Value: ex.id})
	}
}
