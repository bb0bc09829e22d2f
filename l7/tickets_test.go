package l7

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestTicketKeys(t *testing.T) {
	keys := func(secret, service string, at time.Time) [][32]byte {
		t.Helper()
		k, err := ticketKeys([]byte(secret), service, at)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	// The start of a period.
	at := time.Unix(1_000*int64(ticketPeriod/time.Second), 0)
	now := keys("secret", "web", at)
	for what, other := range map[string][][32]byte{
		"the end of the period": keys("secret", "web", at.Add(ticketPeriod-time.Second)),
		"another time zone":     keys("secret", "web", at.In(time.FixedZone("", 3600))),
	} {
		if !slices.Equal(now, other) {
			t.Errorf("%s has other keys", what)
		}
	}
	for what, other := range map[string][][32]byte{"another secret": keys("secret2", "web", at), "another service": keys("secret", "web 1", at)} {
		for _, k := range other {
			if slices.Contains(now, k) {
				t.Errorf("%s has a key of this one", what)
			}
		}
	}
	// A node whose clock is up to a period ahead, or behind.
	before, after := keys("secret", "web", at.Add(-time.Second)), keys("secret", "web", at.Add(ticketPeriod))
	for _, pair := range [][2][][32]byte{{before, now}, {now, before}, {now, after}, {after, now}} {
		if !slices.Contains(pair[1], pair[0][0]) {
			t.Error("a ticket of one period is not taken in the next or the one before")
		}
	}
	if slices.Contains(keys("secret", "web", at.Add(2*ticketPeriod)), now[0]) {
		t.Error("a ticket is good for ever")
	}
}

// A session goes on with another node that has the same secret, over reloads, and
// nowhere else.
func TestTicketsOfTwoNodes(t *testing.T) {
	secret, another := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	node := func(secrets ...[]byte) netip.AddrPort {
		r := newRig(t)
		r.pool("p", web(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }))
		addr := r.addr()
		for _, s := range secrets {
			r.secret = s
			r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", TLS: &TLS{Certificates: []Certificate{makeCert(t, "blog.example.com")}}})
		}
		return addr
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, one := range []struct {
			name string
			to   []netip.AddrPort // the first one makes the ticket
			want []bool
		}{
			{"a pair", []netip.AddrPort{node(secret), node(secret), node(another, secret)}, []bool{false, true, true}},
			{"strangers", []netip.AddrPort{node(secret), node(another)}, []bool{false, false}},
			{"no secret", []netip.AddrPort{node(nil), node(nil)}, []bool{false, false}},
			{"a secret that was given up", []netip.AddrPort{node(secret), node(secret, nil)}, []bool{false, false}},
		} {
			config := &tls.Config{
				InsecureSkipVerify: true, ServerName: "blog.example.com", MaxVersion: version, NextProtos: []string{protocolHTTP1},
				ClientSessionCache: tls.NewLRUClientSessionCache(1),
			}
			for i, addr := range one.to {
				for again := range 2 {
					c, in := dial(t, addr, config)
					io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
					body(t, answerTo(t, in, "GET"))
					if resumed := c.(*tls.Conn).ConnectionState().DidResume; resumed != (one.want[i] || again == 1) {
						t.Errorf("%s, %s, node %d: resumed is %v", one.name, tls.VersionName(version), i, resumed)
					}
				}
			}
		}
	}
}
