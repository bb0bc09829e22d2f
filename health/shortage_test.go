package health

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"appliance/internal/endpoint"
)

func TestShortageOnThisNodeJudgesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const short, broken = time.Second, 31 * time.Second // from when on
		start := time.Now()
		b := newBench(t, func(context.Context, Target) (string, error) {
			switch since := time.Since(start); {
			case since < short:
				return "fine", nil
			case since < broken:
				return "", fmt.Errorf("open: %w", syscall.EMFILE)
			default:
				return "", errors.New("broken")
			}
		})
		b.Set([]Target{target(1)})
		b.until(broken - time.Millisecond)
		r := b.Results()[target(1)]
		want := "not judged, the fault is on this node: too many open files"
		if r.State != Up || r.Reason != want || !r.Since.Equal(b.start) || r.Checked.Sub(b.start) != 29*time.Second {
			t.Errorf("while descriptors are short: %+v", r)
		}
		b.until(broken + 10*time.Second)
		b.stop()
		if r := b.Results()[target(1)]; r.State != Down || len(b.changes) != 2 {
			t.Errorf("afterwards: %+v, after %d changes, want down after 2", r, len(b.changes))
		}
		if n := strings.Count(b.log.String(), "cannot check server"); n != 1 {
			t.Errorf("the shortage is logged %d times, want once:\n%s", n, &b.log)
		}
	})
}

// What is wrong with a file of this node says nothing about a server.
func TestFilesOfThisNodeJudgeNobody(t *testing.T) {
	pair, _ := certificate(t, year, "web.example.com")
	odd := filepath.Join(t.TempDir(), "odd")
	if err := os.WriteFile(odd, make([]byte, maxPassword+1), 0o600); err != nil {
		t.Fatal(err)
	}
	asking := serve(t, func(c net.Conn) {
		_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert}).Handshake()
		silent(c)
	})
	for name, test := range map[string]struct {
		address netip.AddrPort
		check   Config
	}{
		"no password":        {serve(t, silent), Config{Type: Redis, PasswordFile: "no/such/file"}},
		"an odd password":    {serve(t, silent), Config{Type: Redis, PasswordFile: odd}},
		"of mysql":           {serve(t, greet(nil, denied)), Config{Type: MySQL, User: "lb", PasswordFile: "no/such/file"}},
		"of postgres":        {serve(t, silent), Config{Type: Postgres, User: "lb", PasswordFile: "no/such/file"}},
		"no authorities":     {serveTLS(t, pair, nil, silent), Config{Type: TLS, Verify: true, CAFile: "no/such/file"}},
		"odd authorities":    {serveTLS(t, pair, nil, silent), Config{Type: HTTPS, Verify: true, CAFile: odd}},
		"no certificate":     {asking, Config{Type: TLS, Cert: "no/such/file", Key: odd}},
		"an odd certificate": {asking, Config{Type: TLS, Cert: odd, Key: odd}},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), ample)
		_, err := prepare(Target{Address: endpoint.IP(test.address), Check: test.check}).once(ctx)
		cancel()
		if !isOurs(err) || !strings.Contains(inWords(err, 0), "no/such/file: ") && !strings.Contains(inWords(err, 0), odd+": ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A server that this node cannot even try stays unknown, and the try is told: who
// waits for the first round of checks must not wait for ever.
func TestShortageFromTheFirstCheckOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(context.Context, Target) (string, error) { return "", syscall.EADDRNOTAVAIL })
		b.Set([]Target{target(1)})
		b.until(10 * time.Second)
		b.stop()
		if len(b.changes) != 1 || b.changes[0].State != Unknown || !b.changes[0].Checked.Equal(b.start) {
			t.Errorf("told %+v, want the first check alone", b.changes)
		}
		if r := b.Results()[target(1)]; r.State != Unknown || r.Checked.Sub(b.start) != 9*time.Second || !r.Since.IsZero() {
			t.Errorf("in the end %+v", r)
		}
	})
}
