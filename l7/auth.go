package l7

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"

	"golang.org/x/crypto/bcrypt"
)

// BasicAuth asks clients for a user's name and password (RFC 7617).
type BasicAuth struct {
	// UsersFile is a file of htpasswd, with passwords hashed by bcrypt (htpasswd
	// -B) or SHA-1 (htpasswd -s); required.
	UsersFile string `toml:"users_file"`
	// Realm is what the client is told; default "restricted".
	Realm string `toml:"realm"`
}

func (b *BasicAuth) validate(at string, problem func(key, message string)) {
	if b == nil {
		return
	}
	if b.UsersFile == "" {
		problem(at+".users_file", "basic_auth needs a file of users, such as htpasswd -B writes")
	}
	if err := validText(b.Realm); err != nil {
		problem(at+".realm", err.Error())
	}
}

const (
	// maxProven bounds the passwords that are known to be right, which spares
	// their users the work of bcrypt at each request.
	maxProven = 4096
	// maxHashing bounds how many passwords are hashed at a time, so that guesses
	// leave something of the CPU to others.
	maxHashing = 2
	// maxWaiting bounds how many wait for that; more are answered 503.
	maxWaiting = 64
)

// basicAuth are the users of a route.
type basicAuth struct {
	users     map[string]string // hashes by name
	challenge string
	none      string // a hash that a user who does not exist is compared with
	key       [32]byte
	hashing   chan struct{}
	waiting   atomic.Int64

	mu     sync.Mutex
	proven map[[32]byte]bool
}

func newBasicAuth(cfg *BasicAuth) (*basicAuth, error) {
	if cfg == nil {
		return nil, nil
	}
	users, err := loadUsers(cfg.UsersFile)
	if err != nil {
		return nil, fmt.Errorf("basic_auth.users_file: %w", err)
	}
	realm := cfg.Realm
	if realm == "" {
		realm = "restricted"
	}
	b := &basicAuth{users: users, hashing: make(chan struct{}, maxHashing), proven: make(map[[32]byte]bool)}
	b.challenge = `Basic realm="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(realm) + `", charset="UTF-8"`
	if _, err := rand.Read(b.key[:]); err != nil {
		return nil, err
	}
	for _, hash := range users {
		// As dear as one of the others, or its time would tell who exists.
		if b.none = hash; strings.HasPrefix(hash, "$2") {
			break
		}
	}
	return b, nil
}

// loadUsers reads a file of htpasswd.
func loadUsers(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	users := make(map[string]string)
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		name, hash, ok := strings.Cut(text, ":")
		if !ok || name == "" {
			return nil, fmt.Errorf("%s: line %d is no name:hash", path, n)
		}
		if _, err := bcrypt.Cost([]byte(hash)); err != nil && !strings.HasPrefix(hash, "{SHA}") {
			return nil, fmt.Errorf("%s: line %d: the password of %s is hashed in a way that is not known here; use htpasswd -B", path, n, name)
		}
		users[name] = hash
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(users) == 0 {
		return nil, fmt.Errorf("%s has no user", path)
	}
	return users, nil
}

// user returns the name of the user that a request is of; ok is false if it is of
// none, or says so twice: a server could heed the other one. busy says that nobody
// can tell now.
func (b *basicAuth) user(ctx context.Context, ex *exchange) (name string, ok, busy bool) {
	scheme, encoded, _ := strings.Cut(ex.fields.get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Basic") || ex.fields.count("Authorization") > 1 {
		return "", false, false
	}
	text, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if err != nil || bytes.ContainsFunc(text, unicode.IsControl) { // RFC 7617, section 2
		return "", false, false
	}
	name, password, ok := strings.Cut(string(text), ":")
	if !ok {
		return "", false, false
	}
	ok, busy = b.proves(ctx, name, password)
	return name, ok, busy
}

// proves reports whether the password is that of the user.
func (b *basicAuth) proves(ctx context.Context, name, password string) (right, busy bool) {
	mac := hmac.New(sha256.New, b.key[:])
	mac.Write([]byte(name + "\x00" + password))
	var mark [32]byte
	mac.Sum(mark[:0])
	b.mu.Lock()
	known := b.proven[mark]
	b.mu.Unlock()
	if known {
		return true, false
	}
	defer b.waiting.Add(-1)
	if b.waiting.Add(1) > maxWaiting {
		return false, true
	}
	select {
	case b.hashing <- struct{}{}:
	case <-ctx.Done():
		return false, true
	}
	hash, exists := b.users[name]
	if !exists {
		hash = b.none
	}
	right = matchesHash(hash, password) && exists
	<-b.hashing
	if right {
		b.mu.Lock()
		if len(b.proven) >= maxProven {
			clear(b.proven)
		}
		b.proven[mark] = true
		b.mu.Unlock()
	}
	return right, false
}

func matchesHash(hash, password string) bool {
	if sum, ok := strings.CutPrefix(hash, "{SHA}"); ok {
		got := sha1.Sum([]byte(password))
		return subtle.ConstantTimeCompare([]byte(base64.StdEncoding.EncodeToString(got[:])), []byte(sum)) == 1
	}
	return bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil
}

// errBusy says that a password was not looked at.
var errBusy = errors.New("too many passwords wait to be compared")

// askPassword answers a request that is of nobody.
func (p *pipeline) askPassword(ex *exchange, b *basicAuth) error {
	return p.say(ex, http.StatusUnauthorized, field{Name: "WWW-Authenticate", Value: b.challenge})
}
