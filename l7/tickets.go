package l7

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// ticketPeriod is how long the tickets of TLS sessions are made with one key. A
// ticket is good in the period in which it was made and in the next one.
const ticketPeriod = 12 * time.Hour

// ticketKeys returns the keys for the session tickets of a service at a time: the
// one that tickets are made with, the one before and, as the clock of the node that
// made a ticket may be ahead of ours, the one after. Whoever has the secret has the
// same keys, without a word to anybody.
func ticketKeys(secret []byte, service string, now time.Time) ([][32]byte, error) {
	n := ticketNumber(now)
	var keys [][32]byte
	for _, number := range []int64{n, n - 1, n + 1} {
		key, err := hkdf.Key(sha256.New, secret, []byte("applianctl TLS session tickets"), fmt.Sprintf("%s %d", service, number), 32)
		if err != nil {
			return nil, fmt.Errorf("deriving a key for session tickets: %w", err)
		}
		keys = append(keys, [32]byte(key))
	}
	return keys, nil
}

// ticketNumber is the number of the period that now is in.
func ticketNumber(now time.Time) int64 { return now.Unix() / int64(ticketPeriod/time.Second) }

// tickets keeps the keys of a service's session tickets fresh. The zero value has
// none before setSecret.
type tickets struct {
	number atomic.Int64 // of the period whose keys are in force, and one: 0 for none

	mu     sync.Mutex
	secret []byte
}

// setSecret says what the keys are derived from; nil: from something that nobody
// else has.
func (t *tickets) setSecret(secret []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case secret == nil && len(t.secret) == ownSecret:
		return // it has one
	case secret == nil:
		secret = make([]byte, ownSecret)
		rand.Read(secret) // never fails
	case bytes.Equal(secret, t.secret):
		return
	}
	t.secret = secret
	t.number.Store(0)
}

// ownSecret is the length of a secret of our own, which others do not have.
const ownSecret = 48

// refresh gives cfg the keys of the period that now is in.
func (t *tickets) refresh(cfg *tls.Config, service string, now time.Time) {
	if t.number.Load() == ticketNumber(now)+1 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	keys, err := ticketKeys(t.secret, service, now)
	if err != nil {
		return // of a length that is wrong, which it is not; sessions are not resumed then
	}
	cfg.SetSessionTicketKeys(keys)
	t.number.Store(ticketNumber(now) + 1)
}

// Tickets has the session tickets of TLS made with keys that are derived from a
// secret, 32 bytes, so that all nodes that have it take each other's; without a
// secret, nil, a session goes on with this process alone. It is called before
// Commit.
func (c *Change) Tickets(secret []byte) { c.tickets = secret }
