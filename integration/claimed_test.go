package integration

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/internal/lab"
	"appliance/internal/link"
)

// claimHealed bounds the time from a foreign claim to the announcement that
// answers it. It is some hundreds of times what it takes on a machine at rest.
const claimHealed = time.Second

// claimant sends ARP from a node's cable, as a third station on that switch port
// would.
type claimant struct {
	p    *pair
	tap  *link.Tap
	port int
	mac  net.HardwareAddr
}

func (p *pair) newClaimant(h *lab.Host, mac string) *claimant {
	p.t.Helper()
	c := &claimant{p: p}
	var err error
	if c.mac, err = net.ParseMAC(mac); err != nil {
		p.t.Fatal(err)
	}
	if err := h.Do(func() (err error) {
		c.tap, err = link.OpenTap()
		return err
	}); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.tap.Close() })
	if c.port, err = h.Network.Index(lab.LAN); err != nil {
		p.t.Fatal(err)
	}
	return c
}

// claim sends a gratuitous ARP for an address to one station, or to all.
func (c *claimant) claim(address netip.Addr, to net.HardwareAddr) {
	c.p.t.Helper()
	everybody := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	if to == nil {
		to = everybody
	}
	frame := slices.Concat(to, c.mac, []byte{8, 6, 0, 1, 8, 0, 6, 4})
	frame = binary.BigEndian.AppendUint16(frame, 1)
	frame = slices.Concat(frame, c.mac, address.AsSlice(), everybody, address.AsSlice())
	if err := c.tap.Send(c.port, frame); err != nil {
		c.p.t.Fatal(err)
	}
}

// neighbour returns the hardware address that the client has for an address.
func (p *pair) neighbour(address netip.Addr) (mac string) {
	p.t.Helper()
	err := p.Client.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/arp")
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) >= 4 && f[0] == address.String() {
				mac = f[3]
			}
		}
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return mac
}

// announcements returns when a node has announced the address since.
func (p *pair) announcements(n *lab.Node, since time.Time) (times []time.Time) {
	for _, e := range p.Capture.Events() {
		if e.Kind == lab.Gratuitous && e.Host == n.Name && !e.Time.Before(since) {
			times = append(times, e.Time)
		}
	}
	return times
}

// Another station says that the virtual address is its own. Whoever believed it
// is told better at once, and people can read who it was.
func TestForeignClaimIsAnswered(t *testing.T) {
	t.Parallel()
	p := newPair(t, patientConfig(t))
	p.start()
	load := p.load(50, 80)
	load.Stop()
	const right, wrong = "02:00:c0:a8:0f:0b", "02:66:66:66:66:66"
	if got := p.neighbour(p.VIP); got != right {
		t.Fatalf("the client has %s at %s, want %s", p.VIP, got, right)
	}
	// By the cable of lb02: its own kernel hears nothing of that.
	c := p.newClaimant(p.LB02.Host, wrong)
	clientMAC := net.HardwareAddr{0x02, 0, 192, 168, 15, 100}

	// A claim that the active node cannot hear shows that the client believes them.
	eventually(t, 10*time.Second, "the client is misled", func() bool {
		c.claim(p.VIP, clientMAC)
		return p.neighbour(p.VIP) == wrong
	})
	if got := p.status(p.LB01).VRRP[0].Counters["foreign_claims"]; got != 0 {
		t.Fatalf("lb01 counts %d foreign claims that it cannot have heard", got)
	}

	// An election that has just ended is another matter.
	p.waitAdverts(p.LB01, 10)
	claimed := time.Now()
	c.claim(p.VIP, nil)
	var announced []time.Time
	eventually(t, 10*time.Second, "lb01 announces the address, and the client is told better", func() bool {
		announced = p.announcements(p.LB01, claimed)
		return len(announced) > 0 && p.neighbour(p.VIP) == right
	})
	healed := time.Since(claimed)
	t.Logf("announced %v after the claim; the client knew after %v at most", announced[0].Sub(claimed).Round(10*time.Microsecond), healed.Round(time.Millisecond))
	if late := announced[0].Sub(claimed); late > claimHealed {
		t.Errorf("announced %v after the claim", late)
	}
	e := p.tells(p.LB01, "foreign_claim", "192.168.15.3 is claimed by another station", wrong)
	if e.Details["mac"] != wrong || e.Details["address"] != p.VIP.String() || e.Subject != "vrrp VI_1" {
		t.Errorf("%+v", e)
	}
	if !strings.Contains(p.LB01.Log(), "another station claims an address of this node") {
		t.Error("the log says nothing of it")
	}

	// A storm is answered four times at once and then once a second, and all of it is
	// counted. One more announcement may be due anyway.
	const storm = 200
	begun := time.Now()
	for range storm {
		c.claim(p.VIP, nil)
		time.Sleep(10 * time.Millisecond)
	}
	eventually(t, 10*time.Second, "every claim is counted", func() bool {
		return p.status(p.LB01).VRRP[0].Counters["foreign_claims"] == storm+1
	})
	if got, most := len(p.announcements(p.LB01, begun)), 4+int(time.Since(begun).Seconds())+1; got > most {
		t.Errorf("%d announcements in %v, want %d at most", got, time.Since(begun), most)
	}
	s := p.status(p.LB01).VRRP[0]
	if len(s.ForeignClaims) != 1 || s.ForeignClaims[0].MAC != wrong || s.ForeignClaims[0].Address != p.VIP.String() ||
		s.ForeignClaims[0].Count != storm+1 || !s.ForeignClaims[0].Last.After(s.ForeignClaims[0].First) {
		t.Errorf("status: %+v", s.ForeignClaims)
	}
	if got := p.events(p.LB01, "foreign_claim"); len(got) != 1 {
		t.Errorf("told %d times: %+v", len(got), got)
	}
	if code, output := p.applianctl(p.LB01, "status"); code != 0 || !strings.Contains(output, "ANOTHER STATION CLAIMS 192.168.15.3: "+wrong) {
		t.Errorf("applianctl status: code %d\n%s", code, output)
	}
	if now := p.status(p.LB01).VRRP[0]; now.State != "active" || now.Counters["transitions"] != 2 {
		t.Errorf("lb01 is %s after %d transitions", now.State, now.Counters["transitions"])
	}

	// The active node's own announcements, and a hand-over, are nobody's claim.
	p.failover(p.LB01)
	p.waitActive(p.LB02)
	p.failover(p.LB02)
	p.waitActive(p.LB01)
	p.waitAdverts(p.LB01, 30) // past the repeated announcements
	if s := p.status(p.LB02).VRRP[0]; len(s.ForeignClaims) > 0 || len(p.events(p.LB02, "foreign_claim")) > 0 {
		t.Errorf("lb02 takes %+v for foreign", s.ForeignClaims)
	}
	if got := p.status(p.LB01).VRRP[0].Counters["foreign_claims"]; got != storm+1 {
		t.Errorf("after two hand-overs lb01 counts %d foreign claims, want %d", got, storm+1)
	}
}

// In a switch by the peer link the new node announces the address before the old
// one lets go: that is what the old one wanted, and no claim to be answered.
func TestSwitchIsNoForeignClaim(t *testing.T) {
	t.Parallel()
	p := newPair(t, linkedConfig(t))
	p.start()
	from := p.LB01
	for range 4 {
		p.waitAdverts(from, 12) // past claimGrace: from here on a claim is news
		eventually(t, 20*time.Second, "the switch is not refused", func() bool {
			code, _ := p.applianctl(from, "failover")
			return code == 0
		})
		from = p.Other(from)
		p.waitActive(from)
	}
	for _, n := range p.Nodes() {
		if s := p.status(n).VRRP[0]; s.Counters["foreign_claims"] != 0 || len(s.ForeignClaims) > 0 {
			t.Errorf("%s takes %+v for foreign", n.Name, s.ForeignClaims)
		}
		if told := p.events(n, "foreign_claim"); len(told) > 0 {
			t.Errorf("%s tells of %+v", n.Name, told)
		}
	}
	// The last word is the new node's.
	p.announcedLast(from.Name)
}
