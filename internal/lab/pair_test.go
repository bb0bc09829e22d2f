package lab_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/internal/lab"
	"appliance/internal/link"
)

func newPair(t *testing.T) *lab.Pair {
	t.Helper()
	p, err := lab.NewPair(lab.PairOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

var vipOnLAN = netip.PrefixFrom(lab.DefaultVIP, 24)

// hold gives a node the virtual address, as the appliance would.
func hold(t *testing.T, n *lab.Node) {
	t.Helper()
	if err := n.Network.AddAddress(lab.LAN, vipOnLAN); err != nil {
		t.Fatal(err)
	}
}

// waitFor fails the test if a condition does not come true in 5 s.
func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 5 s", what)
		}
		time.Sleep(5 * time.Millisecond) // what it waits for is the kernel's
	}
}

func answerers(p *lab.Pair, since time.Time) []string {
	hosts, _ := p.Monitor.Answerers(since)
	slices.Sort(hosts)
	return hosts
}

func TestMonitorTellsWhoAnswers(t *testing.T) {
	p := newPair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	waitFor(t, "silence", func() bool { return len(p.Monitor.Silences()) == 1 })
	hold(t, p.LB01)
	if err := p.WaitActive(ctx, p.LB01); err != nil {
		t.Fatal(err)
	}
	if dual := p.Monitor.DualAnswerers(); len(dual) > 0 {
		t.Errorf("with one holder: %+v", dual)
	}
	since := time.Now()
	hold(t, p.LB02)
	waitFor(t, "two answerers", func() bool { return slices.Equal(answerers(p, since), []string{"lb01", "lb02"}) })
	waitFor(t, "an interval with two answerers", func() bool { return len(p.Monitor.DualAnswerers()) == 1 })
	if err := p.LB01.Network.DeleteAddress(lab.LAN, vipOnLAN); err != nil {
		t.Fatal(err)
	}
	if err := p.WaitActive(ctx, p.LB02); err != nil {
		t.Fatal(err)
	}
	if last, ok := p.Monitor.LastAnswer("lb01"); !ok || last.Before(since) {
		t.Errorf("lb01 answered for the last time at %s, %v; the test began at %s", last, ok, since)
	}
	if last, ok := p.Monitor.LastAnswer("client"); ok {
		t.Errorf("the client answered at %s", last)
	}
	dual := p.Monitor.DualAnswerers()
	if len(dual) != 1 || dual[0].Probes < 2 || dual[0].Length() <= 0 || dual[0].From.Before(since.Add(-time.Second)) {
		t.Errorf("got %+v", dual)
	}
}

// The monitor's questions leave no trace in anybody's neighbour table.
func TestMonitorIsNotLearned(t *testing.T) {
	p := newPair(t)
	hold(t, p.LB01)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := p.WaitActive(ctx, p.LB01); err != nil {
		t.Fatal(err)
	}
	// The first line is the table's head.
	if table := output(t, p.LB01.Host, "cat", "/proc/net/arp"); !strings.HasPrefix(table, "IP address") || strings.Contains(table, "\n") {
		t.Errorf("the neighbour table of lb01 is\n%s", table)
	}
}

func TestCables(t *testing.T) {
	p := newPair(t)
	hold(t, p.LB01)
	for name, how := range map[string]lab.Cut{"unplugged": lab.Unplugged, "silent": lab.Silent} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if err := p.WaitActive(ctx, p.LB01); err != nil {
				t.Fatal(err)
			}
			since := time.Now()
			if err := p.Cut(p.LB01.Host, lab.LAN, how); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "silence", func() bool { h, ok := p.Monitor.Answerers(since); return ok && len(h) == 0 })
			want := "1"
			if how == lab.Unplugged {
				want = "0"
			}
			waitFor(t, "carrier "+want, func() bool {
				return output(t, p.LB01.Host, "cat", "/sys/class/net/eth0/carrier") == want
			})
			if err := p.Heal(p.LB01.Host, lab.LAN); err != nil {
				t.Fatal(err)
			}
			if err := p.WaitActive(ctx, p.LB01); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Parted nodes do not reach each other, and the client reaches both.
func TestPart(t *testing.T) {
	p := newPair(t)
	if err := p.Part(true); err != nil {
		t.Fatal(err)
	}
	at := func(address string) netip.AddrPort { return netip.MustParseAddrPort(address + ":9") }
	for _, n := range p.Nodes() {
		l, err := n.Listen(at("0.0.0.0"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	reach := func(from *lab.Host, to string) bool {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		c, err := from.Dial(ctx, at(to))
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	if reach(p.LB01.Host, "192.168.15.12") {
		t.Error("lb01 reaches lb02")
	}
	for _, to := range []string{"192.168.15.11", "192.168.15.12"} {
		if !reach(p.Client, to) {
			t.Errorf("the client does not reach %s", to)
		}
	}
	if err := p.Part(false); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the nodes meet again", func() bool { return reach(p.LB01.Host, "192.168.15.12") })
}

func TestCaptureSeesGratuitousARP(t *testing.T) {
	p := newPair(t)
	var tap *link.Tap
	err := p.LB02.Do(func() (err error) {
		tap, err = link.OpenTap()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	index, err := p.LB02.Network.Index(lab.LAN)
	if err != nil {
		t.Fatal(err)
	}
	// RFC 5227 section 3: a request, sender and target address are the same.
	frame := slices.Concat(
		[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 192, 168, 15, 12, 8, 6},
		[]byte{0, 1, 8, 0, 6, 4, 0, 1},
		[]byte{2, 0, 192, 168, 15, 12}, lab.DefaultVIP.AsSlice(),
		[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, lab.DefaultVIP.AsSlice(),
	)
	before := time.Now()
	if err := tap.Send(index, frame); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "gratuitous ARP", func() bool { _, ok := p.Capture.First(lab.Gratuitous, "lb02", before); return ok })
	e, _ := p.Capture.First(lab.Gratuitous, "lb02", before)
	if e.Address != lab.DefaultVIP || e.MAC.String() != net.HardwareAddr(frame[6:12]).String() || time.Since(e.Time) > time.Minute {
		t.Errorf("got %+v", e)
	}
	if _, ok := p.Capture.First(lab.Gratuitous, "lb01", before); ok {
		t.Error("seen from lb01 too")
	}
}

// Two pairs with the same names and addresses do not meet.
func TestPairsAreApart(t *testing.T) {
	one, two := newPair(t), newPair(t)
	since := time.Now()
	hold(t, one.LB01)
	hold(t, two.LB02)
	for p, want := range map[*lab.Pair]string{one: "lb01", two: "lb02"} {
		waitFor(t, want, func() bool { return slices.Equal(answerers(p, since), []string{want}) })
		if dual := p.Monitor.DualAnswerers(); len(dual) > 0 {
			t.Errorf("%+v", dual)
		}
	}
}

func TestEchoServer(t *testing.T) {
	p := newPair(t)
	c, err := p.LB01.Dial(t.Context(), netip.AddrPortFrom(p.Servers[1].Address, lab.EchoPort))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(c); err != nil || string(text) != "web2\nhello\n" {
		t.Errorf("got %q, %v", text, err)
	}
}
