package l7

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"appliance/internal/pool"
	"appliance/l7/http1"
)

// Sticky keeps a client at one server of the pool by a cookie. When that server
// takes no requests the client gets another one, and its cookie.
type Sticky struct {
	// Cookie is the cookie's name; required.
	Cookie string `toml:"cookie"`
	// KeyFile holds the secret that the cookie is signed with, at least 16 bytes
	// and the same on all nodes; required.
	KeyFile string `toml:"key_file"`
	// MaxAge is how long browsers keep the cookie; default as long as they run.
	MaxAge time.Duration `toml:"max_age"`
}

func (s *Sticky) validate(at string, problem func(key, message string)) {
	if s == nil {
		return
	}
	if !http1.IsToken(s.Cookie) {
		problem(at+".cookie", fmt.Sprintf("%q is no name of a cookie", s.Cookie))
	}
	if s.KeyFile == "" {
		problem(at+".key_file", "the cookie is signed with a secret; let applianctl secret print one into a file, and name that file here")
	}
	if s.MaxAge != 0 && s.MaxAge < time.Second {
		problem(at+".max_age", "a cookie is kept for a second at least")
	}
}

// sticky makes the cookies and reads them. A cookie's value is the HMAC of the
// server's name, so that it tells nobody anything, and only we can make one.
type sticky struct {
	cookie string
	age    string
	key    []byte

	names sync.Map     // of *pool.Server: the value for it
	known atomic.Int64 // how many there are, about
}

// maxNames is how many values are kept: a server whose name leads to another address
// is another one, and some do so all the time.
const maxNames = 4096

func newSticky(cfg *Sticky) (*sticky, error) {
	if cfg == nil {
		return nil, nil
	}
	key, err := loadKey(cfg.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("sticky.key_file: %w", err)
	}
	s := &sticky{cookie: cfg.Cookie, key: key}
	if cfg.MaxAge > 0 {
		s.age = fmt.Sprintf("; Max-Age=%d", int(cfg.MaxAge.Seconds()))
	}
	return s, nil
}

func loadKey(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if key := []byte(strings.TrimSpace(string(b))); len(key) >= 16 {
		return key, nil
	}
	return nil, errors.New(path + " has less than 16 bytes; let applianctl secret print a secret into it")
}

// value returns what the cookie is for a server.
func (s *sticky) value(of *pool.Pool, server *pool.Server) string {
	if v, ok := s.names.Load(server); ok {
		return v.(string)
	}
	mac := hmac.New(sha256.New, s.key)
	mac.Write([]byte(of.Name() + "\x00" + server.Label()))
	v := hex.EncodeToString(mac.Sum(nil)[:16])
	if s.known.Add(1) > maxNames {
		s.names.Clear()
		s.known.Store(0)
	}
	s.names.Store(server, v)
	return v
}

// pick returns the server that the client's cookie names, picked; nil if it names
// none that may be had.
func (s *sticky) pick(from *pool.Pool, ex *exchange) *pool.Server {
	said := cookie(ex.fields, s.cookie)
	if len(said) != 32 {
		return nil
	}
	for _, server := range from.Servers() {
		if subtle.ConstantTimeCompare([]byte(s.value(from, server)), []byte(said)) == 1 {
			if from.Take(server) {
				return server
			}
			return nil
		}
	}
	return nil
}

// setCookie returns the field that keeps the client at the server, ok is false if
// the client has the cookie already.
func (s *sticky) setCookie(from *pool.Pool, ex *exchange) (f field, ok bool) {
	v := s.value(from, ex.server)
	if subtle.ConstantTimeCompare([]byte(v), []byte(cookie(ex.fields, s.cookie))) == 1 {
		return field{}, false
	}
	secure := ""
	if ex.scheme == "https" {
		secure = "; Secure"
	}
	return field{Name: "Set-Cookie", Value: s.cookie + "=" + v + "; Path=/" + s.age + secure + "; HttpOnly; SameSite=Lax"}, true
}

// cookie returns the value of the first cookie of that name (RFC 6265, section
// 5.4), "" if there is none.
func cookie(fs fields, name string) string {
	for i := range fs {
		if !strings.EqualFold(fs[i].Name, "Cookie") {
			continue
		}
		for rest, more := fs[i].Value, true; more; {
			var pair string
			pair, rest, more = strings.Cut(rest, ";")
			if n, v, ok := strings.Cut(strings.TrimSpace(pair), "="); ok && n == name {
				return v
			}
		}
	}
	return ""
}

// HashBy says by what a pool with balance source_hash chooses instead of by the
// client's address. One of the two; a request without it goes by the address.
type HashBy struct {
	Header string `toml:"header"`
	Cookie string `toml:"cookie"`
}

func (h *HashBy) validate(at string, problem func(key, message string)) {
	if h == nil {
		return
	}
	if (h.Header == "") == (h.Cookie == "") {
		problem(at, "hash_by has either a header or a cookie")
	}
	for key, name := range map[string]string{"header": h.Header, "cookie": h.Cookie} {
		if name != "" && !http1.IsToken(name) {
			problem(at+"."+key, fmt.Sprintf("%q is no name", name))
		}
	}
}

// address returns what the pool is to take for the client's address: one that
// stands for the value, as evenly spread as its hash.
func (h *HashBy) address(ex *exchange) netip.Addr {
	value := ""
	switch {
	case strings.EqualFold(h.Header, "Host"): // which is not among the fields
		value, _ = normalHost(ex.host)
	case h.Header != "":
		value = ex.fields.get(h.Header)
	default:
		value = cookie(ex.fields, h.Cookie)
	}
	if value == "" {
		return ex.peer.addr
	}
	sum := sha256.Sum256([]byte(value))
	return netip.AddrFrom16([16]byte(sum[:16]))
}
