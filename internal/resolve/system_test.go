package resolve

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// zone is what the name server of a test answers, by name and type.
var zone = map[string][]string{
	"app1.internal. A":    {"app1.internal. 30 IN A 10.0.0.2", "app1.internal. 20 IN A 10.0.0.1"},
	"six.internal. A":     {},
	"six.internal. AAAA":  {"six.internal. 60 IN AAAA 2001:db8::1"},
	"alias.internal. A":   {"alias.internal. 5 IN CNAME app1.internal.", "app1.internal. 30 IN A 10.0.0.1"},
	"none.internal. A":    {},
	"none.internal. AAAA": {},
	"bad.internal. A":     {"bad.internal. 60 IN A 0.0.0.0", "bad.internal. 60 IN A 224.0.0.1"},
	"bad.internal. AAAA":  {"bad.internal. 60 IN AAAA fe80::1"},
}

// serve runs a name server on loopback by UDP and TCP and returns its port.
func serve(t *testing.T, answer func(m *dns.Msg, udp bool)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		answer(m, w.LocalAddr().Network() == "udp")
		_ = w.WriteMsg(m)
	})
	for _, s := range []*dns.Server{{Listener: l, Handler: handler}, {PacketConn: p, Handler: handler}} {
		ready, ended := make(chan struct{}), make(chan error, 1)
		s.NotifyStartedFunc = func() { close(ready) }
		go func() { ended <- s.ActivateAndServe() }()
		<-ready
		t.Cleanup(func() {
			_ = s.Shutdown()
			<-ended
		})
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// fromZone answers from the zone; there is nothing else.
func fromZone(t *testing.T) func(m *dns.Msg, udp bool) {
	return func(m *dns.Msg, udp bool) {
		records, ok := zone[m.Question[0].Name+" "+dns.TypeToString[m.Question[0].Qtype]]
		if !ok {
			m.Rcode = dns.RcodeNameError
		}
		for _, text := range records {
			record, err := dns.NewRR(text)
			if err != nil {
				t.Error(err)
			}
			m.Answer = append(m.Answer, record)
		}
	}
}

// lookup looks name up by the name server at port.
func lookup(t *testing.T, port, name string) (Found, error) {
	t.Helper()
	dir := t.TempDir()
	s := System{Hosts: filepath.Join(dir, "hosts"), Conf: filepath.Join(dir, "resolv.conf")}
	for path, text := range map[string]string{
		s.Hosts: "127.0.0.1 localhost\n10.0.0.7\tDB1.internal db1 # the first\nnonsense db2\n",
		s.Conf:  "search internal\nnameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return s.lookup(ctx, name, port)
}

func TestLookup(t *testing.T) {
	port := serve(t, fromZone(t))
	for name, want := range map[string]Found{
		"app1.internal":  {addresses("10.0.0.2", "10.0.0.1"), 20 * time.Second},
		"app1":           {addresses("10.0.0.2", "10.0.0.1"), 20 * time.Second},
		"six.internal":   {addresses("2001:db8::1"), 60 * time.Second},
		"alias.internal": {addresses("10.0.0.1"), 5 * time.Second},
		"db1":            {addresses("10.0.0.7"), hostsTTL},
		"db1.Internal.":  {addresses("10.0.0.7"), hostsTTL},
	} {
		got, err := lookup(t, port, name)
		if err != nil || got.TTL != want.TTL || !slices.Equal(got.Addresses, want.Addresses) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, want)
		}
	}
	for _, name := range []string{"none.internal", "unknown.internal", "bad.internal", "db2"} {
		if got, err := lookup(t, port, name); !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v, %v, want a denial", name, got, err)
		}
	}
}

func TestLongAnswersComeByTCP(t *testing.T) {
	all := fromZone(t)
	port := serve(t, func(m *dns.Msg, udp bool) {
		if all(m, udp); udp {
			m.Answer, m.Truncated = nil, true
		}
	})
	if got, err := lookup(t, port, "app1.internal"); err != nil || len(got.Addresses) != 2 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestLookupThatNobodyAnswers(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, nobody, _ := net.SplitHostPort(closed.Addr().String())
	closed.Close()
	failing := serve(t, func(m *dns.Msg, _ bool) { m.Rcode = dns.RcodeServerFailure })
	other := serve(t, func(m *dns.Msg, _ bool) { m.Question[0].Name = "other.internal." })
	for port, want := range map[string]string{
		nobody:  "app1.internal: name server 127.0.0.1: ",
		failing: "app1.internal: name server 127.0.0.1 answers SERVFAIL",
		other:   "app1.internal: name server 127.0.0.1: an answer to another question",
	} {
		_, err := lookup(t, port, "app1.internal")
		if err == nil || errors.Is(err, ErrDenied) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	_, err = System{Hosts: "/none", Conf: "/none"}.Lookup(t.Context(), "a")
	if err == nil || errors.Is(err, ErrDenied) {
		t.Errorf("without a file: %v", err)
	}
}
