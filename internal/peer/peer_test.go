package peer

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

var secret = []byte(NewSecret())

// recorder is a Handler that writes down what it is told.
type recorder struct {
	events chan string
	call   func(ctx context.Context, node, verb string, body json.RawMessage) (any, error)
}

func newRecorder() *recorder { return &recorder{events: make(chan string, 1000)} }

func (r *recorder) LinkChanged(node string, s State, reason string) {
	r.events <- fmt.Sprintf("%s %s", node, s)
}

func (r *recorder) Reported(node string, p Report) { r.events <- node + " says " + p.Version }

func (r *recorder) Called(ctx context.Context, node, verb string, body json.RawMessage) (any, error) {
	return r.call(ctx, node, verb, body)
}

// want waits for an event, whatever comes before it.
func (r *recorder) want(t *testing.T, event string) {
	t.Helper()
	late := time.After(10 * time.Second)
	var seen []string
	for {
		select {
		case e := <-r.events:
			if e == event {
				return
			}
			seen = append(seen, e)
		case <-late:
			t.Fatalf("no %q; there were %q", event, seen)
		}
	}
}

// place returns an address that nobody uses.
func place(t *testing.T, ip string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// node is a mesh that runs.
type node struct {
	*Mesh
	*recorder
	stop func(cause error)
}

// start runs a mesh until the test ends.
func start(t *testing.T, cfg Config, report func() Report, log zerolog.Logger) *node {
	t.Helper()
	if report == nil {
		report = func() Report { return Report{Version: "of " + cfg.Node} }
	}
	r := newRecorder()
	m, err := New(cfg, report, r, log)
	if err != nil {
		t.Fatal(err)
	}
	m.OnBulk(func(node string, body []byte) {
		r.events <- fmt.Sprintf("%s sends %d bytes, %.5s", node, len(body), body)
	})
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); m.Run(ctx) }()
	n := &node{m, r, func(cause error) { cancel(cause); <-ended }}
	t.Cleanup(func() { n.stop(nil) })
	return n
}

func configs(t *testing.T) (a, b Config) {
	at := map[string]netip.AddrPort{"lb01": place(t, "127.0.0.1"), "lb02": place(t, "127.0.0.2")}
	a = Config{Node: "lb01", Address: at["lb01"], Peers: map[string]netip.AddrPort{"lb02": at["lb02"]}, Secret: secret, Heartbeat: MinHeartbeat, Instance: rand.Text()}
	b = Config{Node: "lb02", Address: at["lb02"], Peers: map[string]netip.AddrPort{"lb01": at["lb01"]}, Secret: secret, Heartbeat: MinHeartbeat, Instance: rand.Text()}
	return a, b
}

// pair starts two nodes, of which lb01 dials: no other connection takes the place
// of the first.
func pair(t *testing.T) (a, b *node) {
	ca, cb := configs(t)
	cb.Peers["lb01"] = place(t, "127.0.0.1")
	a, b = start(t, ca, nil, zerolog.Nop()), start(t, cb, nil, zerolog.Nop())
	a.want(t, "lb02 up")
	b.want(t, "lb01 up")
	return a, b
}

// settle waits until two nodes have chosen one of the connections that they may
// have made at the same time.
func settle(t *testing.T, a, b *node) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		sa, sb := a.neighbour(b.cfg.Node).session.Load(), b.neighbour(a.cfg.Node).session.Load()
		if sa != nil && sb != nil && sa.conn.LocalAddr().String() == sb.conn.RemoteAddr().String() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v and %+v are not two ends of one link", sa, sb)
		}
	}
}

func TestNodesMeetAndReport(t *testing.T) {
	a, b := pair(t)
	a.want(t, "lb02 says of lb02")
	b.want(t, "lb01 says of lb01")
	if s := a.Status(); len(s) != 1 || s[0].State != Up || s[0].Report.Version != "of lb02" || s[0].Reported.IsZero() {
		t.Errorf("status %+v", s)
	}
}

// However both dial at the same time, one link is left, and it is the same one.
func TestOneLinkIsLeft(t *testing.T) {
	for range 20 {
		ca, cb := configs(t)
		a, b := start(t, ca, nil, zerolog.Nop()), start(t, cb, nil, zerolog.Nop())
		a.want(t, "lb02 up")
		b.want(t, "lb01 up")
		settle(t, a, b)
		a.stop(nil)
		b.stop(nil)
	}
}

func TestThreeNodes(t *testing.T) {
	at := map[string]netip.AddrPort{"lb01": place(t, "127.0.0.1"), "lb02": place(t, "127.0.0.2"), "lb03": place(t, "127.0.0.3")}
	nodes := make(map[string]*node)
	for name, address := range at {
		peers := maps.Clone(at)
		delete(peers, name)
		nodes[name] = start(t, Config{Node: name, Address: address, Peers: peers, Secret: secret, Heartbeat: MinHeartbeat, Instance: rand.Text()}, nil, zerolog.Nop())
	}
	for name, n := range nodes {
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			up := 0
			for _, s := range n.Status() {
				if s.State == Up && s.Report.Version == "of "+s.Node {
					up++
				}
			}
			if up == 2 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v", name, n.Status())
			}
		}
	}
	settle(t, nodes["lb01"], nodes["lb02"])
	settle(t, nodes["lb01"], nodes["lb03"])
	settle(t, nodes["lb02"], nodes["lb03"])
	nodes["lb03"].stop(ErrGoodbye)
	nodes["lb01"].want(t, "lb03 goodbye")
	nodes["lb02"].want(t, "lb03 goodbye")
	nodes["lb01"].call = func(context.Context, string, string, json.RawMessage) (any, error) { return 7, nil }
	if err := nodes["lb02"].Call(t.Context(), "lb01", "", nil, nil); err != nil {
		t.Error(err)
	}
}

func TestNewsAreReportedAtOnceAndAnswersWhenAsked(t *testing.T) {
	ca, cb := configs(t)
	ca.Heartbeat = MaxHeartbeat
	cb.Heartbeat = MaxHeartbeat
	var mu sync.Mutex
	said := "old"
	a := start(t, ca, func() Report { mu.Lock(); defer mu.Unlock(); return Report{Version: said} }, zerolog.Nop())
	b := start(t, cb, nil, zerolog.Nop())
	b.want(t, "lb01 says old")
	mu.Lock()
	said = "new"
	mu.Unlock()
	a.Poke()
	b.want(t, "lb01 says new")
	b.Ask("lb01")
	b.want(t, "lb01 says new")
}

func TestCalls(t *testing.T) {
	a, b := pair(t)
	cancelled := make(chan struct{})
	b.call = func(ctx context.Context, node, verb string, body json.RawMessage) (any, error) {
		switch verb {
		case "echo":
			return map[string]string{"from": node, "said": string(body)}, nil
		case "wait":
			<-ctx.Done()
			close(cancelled)
			return nil, ctx.Err()
		}
		return nil, errors.New("cannot " + verb)
	}
	var got map[string]string
	if err := a.Call(t.Context(), "lb02", "echo", 7, &got); err != nil || got["from"] != "lb01" || got["said"] != "7" {
		t.Errorf("echo: %v, %v", got, err)
	}
	err := a.Call(t.Context(), "lb02", "fly", nil, nil)
	if e, ok := errors.AsType[*RemoteError](err); !ok || e.Message != "cannot fly" {
		t.Errorf("a refusal came as %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := a.Call(ctx, "lb02", "wait", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait: %v", err)
	}
	<-cancelled
	if err := a.Call(t.Context(), "lb03", "echo", nil, nil); !errors.Is(err, ErrNoLink) {
		t.Errorf("a call to nobody: %v", err)
	}
}

// What a node has said of itself when it calls is known where the call is carried
// out.
func TestCallsComeAfterNews(t *testing.T) {
	ca, cb := configs(t)
	cb.Peers["lb01"] = place(t, "127.0.0.1") // as in pair
	ca.Heartbeat, cb.Heartbeat = MaxHeartbeat, MaxHeartbeat
	var version atomic.Int64
	a := start(t, ca, func() Report { return Report{Version: fmt.Sprint(version.Load())} }, zerolog.Nop())
	b := start(t, cb, nil, zerolog.Nop())
	b.call = func(context.Context, string, string, json.RawMessage) (any, error) {
		return b.Status()[0].Report.Version, nil
	}
	a.want(t, "lb02 up")
	for n := range 300 {
		version.Store(int64(n))
		a.Poke()
		var known string
		if err := a.Call(t.Context(), "lb02", "look", nil, &known); err != nil {
			t.Fatal(err)
		}
		if known != fmt.Sprint(n) {
			t.Fatalf("lb02 knows %s when lb01, which says %d, calls", known, n)
		}
	}
}

func TestBulkArrivesWholeAndInOrder(t *testing.T) {
	a, b := pair(t)
	large := bytes.Repeat([]byte("x"), MaxBulk)
	for _, body := range [][]byte{[]byte("first"), large, {}} {
		if err := a.Send("lb02", body); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"lb01 sends 5 bytes, first", fmt.Sprintf("lb01 sends %d bytes, xxxxx", MaxBulk), "lb01 sends 0 bytes, "} {
		b.want(t, want)
	}
	if err := a.Send("lb02", append(large, 'x')); !errors.Is(err, errTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if err := a.Send("lb03", nil); !errors.Is(err, ErrNoLink) {
		t.Errorf("to nobody: %v", err)
	}
	b.stop(nil)
	a.want(t, "lb02 lost")
	if err := a.Send("lb02", nil); !errors.Is(err, ErrNoLink) {
		t.Errorf("without a link: %v", err)
	}
}

func TestCallEndsWithTheLink(t *testing.T) {
	a, b := pair(t)
	called := make(chan struct{})
	b.call = func(ctx context.Context, _, _ string, _ json.RawMessage) (any, error) {
		close(called)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	answer := make(chan error)
	go func() { answer <- a.Call(context.Background(), "lb02", "wait", nil, nil) }()
	<-called
	b.stop(nil)
	if err := <-answer; !errors.Is(err, ErrNoLink) {
		t.Errorf("the call ended with %v", err)
	}
}

func TestGoodbye(t *testing.T) {
	a, b := pair(t)
	b.stop(ErrGoodbye)
	a.want(t, "lb02 goodbye")
	if s := a.Status()[0]; s.State != Goodbye {
		t.Errorf("after that it is %s", s.State)
	}
}

// A node that takes its link down for a moment, for a reload, has not died.
func TestLinkThatComesBackIsNoDeath(t *testing.T) {
	ca, cfg := configs(t)
	log := new(journal)
	a, b := start(t, ca, nil, zerolog.New(log)), start(t, cfg, nil, zerolog.Nop())
	a.want(t, "lb02 up")
	b.want(t, "lb01 up")
	settle(t, a, b)
	b.stop(nil)
	time.Sleep(lostMin / 5) // the other one dials in vain
	again := start(t, cfg, nil, zerolog.Nop())
	again.want(t, "lb01 up")
	for len(a.events) > 0 {
		if e := <-a.events; e == "lb02 died" || e == "lb02 goodbye" {
			t.Errorf("meanwhile %s\n%s", e, log.text.String())
		}
	}
}

// impostor is the end of a connection that a test speaks for.
type impostor struct {
	t    *testing.T
	raw  net.Conn
	conn *tls.Conn
}

// reach connects to a node from an address, as soon as it listens.
func reach(t *testing.T, to *node, ip string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		c, err := d.Dial("tcp", to.cfg.Address.String())
		if err == nil {
			t.Cleanup(func() { c.Close() })
			c.SetDeadline(time.Now().Add(10 * time.Second))
			return c
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// dialAs is reach with TLS.
func dialAs(t *testing.T, to *node, ip string, secret []byte) (*impostor, error) {
	t.Helper()
	c := reach(t, to, ip)
	cfg, err := identity(secret)
	if err != nil {
		t.Fatal(err)
	}
	i := &impostor{t, c, tls.Client(c, cfg)}
	return i, i.conn.Handshake()
}

// greet sends a greeting and returns the answer.
func (i *impostor) greet(h hello) (hello, error) {
	i.t.Helper()
	if err := send(i.conn, kindHello, h); err != nil {
		return hello{}, err
	}
	return receiveHello(i.conn)
}

var honest = hello{Protocol: protocolVersion, Node: "lb02", To: "lb01", Instance: "x", HeartbeatMS: 50}

// alone runs lb01, whose other node is only what a test makes of it.
func alone(t *testing.T) (*node, *journal) {
	ca, _ := configs(t)
	log := new(journal)
	return start(t, ca, nil, zerolog.New(log)), log
}

// journal is a log that a test reads.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) contains(s string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Contains(j.text.String(), s)
}

func (n *node) linkWith(t *testing.T) *impostor {
	t.Helper()
	i, err := dialAs(t, n, "127.0.0.2", secret)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.greet(honest); err != nil {
		t.Fatal(err)
	}
	n.want(t, "lb02 up")
	return i
}

func TestDeadProcessIsToldFromASilentOne(t *testing.T) {
	for name, end := range map[string]func(*impostor){
		"end":   func(i *impostor) { i.raw.Close() },
		"reset": func(i *impostor) { i.raw.(*net.TCPConn).SetLinger(0); i.raw.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			a, _ := alone(t)
			i := a.linkWith(t)
			ended := time.Now()
			end(i)
			a.want(t, "lb02 died")
			t.Logf("known after %v", time.Since(ended))
		})
	}
	t.Run("silence", func(t *testing.T) {
		a, _ := alone(t)
		a.linkWith(t)
		a.want(t, "lb02 lost")
	})
}

func TestNewProcessMeansThatTheOldOneDied(t *testing.T) {
	a, _ := alone(t)
	a.linkWith(t)
	i, err := dialAs(t, a, "127.0.0.2", secret)
	if err != nil {
		t.Fatal(err)
	}
	next := honest
	next.Instance = "y"
	if _, err := i.greet(next); err != nil {
		t.Fatal(err)
	}
	a.want(t, "lb02 died")
	a.want(t, "lb02 up")
}

func TestUnknownFramesAndFieldsAreSkipped(t *testing.T) {
	a, _ := alone(t)
	i := a.linkWith(t)
	b := frame{kind(77), []byte("a batch of a later version")}.append(nil)
	b = frame{kindReport, []byte(`{"version":"later","moon":{"phase":[1,2]}}`)}.append(b)
	if _, err := i.conn.Write(b); err != nil {
		t.Fatal(err)
	}
	a.want(t, "lb02 says later")
}

func TestStrangersAreRefused(t *testing.T) {
	t.Run("address", func(t *testing.T) {
		a, _ := alone(t)
		if _, err := dialAs(t, a, "127.0.0.9", secret); err == nil {
			t.Error("an address that is no node's got a handshake")
		}
	})
	t.Run("secret", func(t *testing.T) {
		a, log := alone(t)
		i, err := dialAs(t, a, "127.0.0.2", []byte(NewSecret()))
		if err == nil {
			_, err = i.greet(honest)
		}
		if err == nil {
			t.Error("another secret got a greeting")
		}
		for deadline := time.Now().Add(10 * time.Second); !log.contains("refuses this node's secret"); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the log says nothing of the secret")
			}
		}
	})
	for name, c := range map[string]struct {
		change func(*hello)
		why    string
	}{
		"own name":         {func(h *hello) { h.Node = "lb01" }, "this node's own name"},
		"unknown name":     {func(h *hello) { h.Node = "lb09" }, `"lb09", and the file of this node has no such node`},
		"meant for others": {func(h *hello) { h.To = "lb09" }, `for "lb09"`},
		"other protocol":   {func(h *hello) { h.Protocol = 2 }, "version 2 of the protocol"},
	} {
		t.Run(name, func(t *testing.T) {
			a, _ := alone(t)
			i, err := dialAs(t, a, "127.0.0.2", secret)
			if err != nil {
				t.Fatal(err)
			}
			h := honest
			c.change(&h)
			if _, err := i.greet(h); !errors.Is(err, errRefused) || !strings.Contains(err.Error(), c.why) {
				t.Errorf("the answer is %v, want a refusal with %q", err, c.why)
			}
		})
	}
}

// tap keeps what is written to a connection.
type tap struct {
	net.Conn
	written bytes.Buffer
}

func (c *tap) Write(p []byte) (int, error) {
	c.written.Write(p)
	return c.Conn.Write(p)
}

func TestReplayedHandshakeGetsNothing(t *testing.T) {
	a, _ := alone(t)
	c := reach(t, a, "127.0.0.2")
	cfg, _ := identity(secret)
	recorded := &tap{Conn: c}
	i := &impostor{t, c, tls.Client(recorded, cfg)}
	if _, err := i.greet(honest); err != nil {
		t.Fatal(err)
	}
	a.want(t, "lb02 up")
	c.Close()
	a.want(t, "lb02 died")

	again := reach(t, a, "127.0.0.2")
	again.Write(recorded.written.Bytes())
	io.Copy(io.Discard, again) // the server's part of the handshake, and the end
	if s := a.Status()[0]; s.State != Died {
		t.Errorf("a replay made the link %s", s.State)
	}
}

// Whoever connects and says nothing takes a slot for a moment, and the other
// node gets its link all the same: it is dialed as well.
func TestCrowdOfSilentConnections(t *testing.T) {
	ca, cb := configs(t)
	a := start(t, ca, nil, zerolog.Nop())
	for range 3 * maxHandshakes {
		reach(t, a, "127.0.0.2")
	}
	start(t, cb, nil, zerolog.Nop())
	a.want(t, "lb02 up")
}

func TestSecretFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peer.secret")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	good := NewSecret()
	if good == NewSecret() {
		t.Error("two secrets are the same")
	}
	for _, c := range []struct {
		text string
		mode os.FileMode
		want string // in the error
	}{
		{good + "\n", 0o600, ""},
		{good, 0o400, ""},
		{good, 0o640, ""},
		{good, 0o644, "chmod 600"},
		{good, 0o620, "chmod 600"},
		{"short\n", 0o600, "applianctl secret"},
		{strings.Repeat("x", maxSecret+1), 0o600, "larger"},
	} {
		write(c.text, c.mode)
		s, err := ReadSecret(path)
		switch {
		case c.want == "" && (err != nil || string(s) != good):
			t.Errorf("mode %o: %q, %v", c.mode, s, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("mode %o: %v, want %q", c.mode, err, c.want)
		}
	}
	if _, err := ReadSecret(filepath.Dir(path)); err == nil {
		t.Error("a folder is a secret")
	}
}
