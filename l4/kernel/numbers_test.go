package kernel

import (
	"net/netip"
	"testing"
	"time"
)

// numbered is a connection under way: each side has sent 1000 bytes, all of them
// acknowledged.
type numbered struct {
	*rig
	client, vip, server, seen netip.AddrPort
}

func newNumbered(r *rig, client, vip, server netip.AddrPort) *numbered {
	c := &numbered{rig: r, client: client, vip: vip, server: server}
	c.seen = r.connect(client, vip, server)
	kilobyte := string(make([]byte, 1000))
	r.client(packet{proto: TCP, from: client, to: vip, flags: ack, seq: 101, ack: 501, payload: kilobyte})
	r.server(packet{proto: TCP, from: server, to: c.seen, flags: ack, seq: 501, ack: 1101, payload: kilobyte})
	r.client(packet{proto: TCP, from: client, to: vip, flags: ack, seq: 1101, ack: 1501})
	return c
}

// say has one side, or somebody in its place, say something at a number.
func (c *numbered) say(server bool, flags byte, at uint32) {
	c.t.Helper()
	if server {
		c.rig.server(packet{proto: TCP, from: c.server, to: c.seen, flags: flags, seq: at, ack: 1101})
	} else {
		c.rig.client(packet{proto: TCP, from: c.client, to: c.vip, flags: flags, seq: at, ack: 1501})
	}
}

// age has the connection have had its latest packets some seconds ago.
func (c *numbered) age() {
	c.t.Helper()
	k := flowKey(TCP, c.client, c.vip)
	for range 2 {
		var entry programFlow
		if err := c.path.objects.Flows.Lookup(&k, &entry); err != nil {
			c.t.Fatal(err)
		}
		entry.RouteAt -= 5
		if err := c.path.objects.Flows.Put(&k, &entry); err != nil {
			c.t.Fatal(err)
		}
		k = otherKey(&k, &entry)
	}
}

// TestForgedEnds ends connections by resets and FINs whose numbers are not those of
// the connection, and then by right ones. All are passed on: the receiver judges.
func TestForgedEnds(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, f family) {
		r := newRig(t, Options{}, f.service())
		for server, next := range map[bool]uint32{false: 1101, true: 1501} {
			for i, flags := range []byte{rst, rst | ack, fin | ack} {
				client := netip.AddrPortFrom(f.client.Addr(), f.client.Port()+uint16(i))
				if server {
					client = netip.AddrPortFrom(client.Addr(), client.Port()+100)
				}
				c := newNumbered(r, client, f.vip, f.server)
				before := r.stats()
				for _, at := range []uint32{next - 1, next - 1000, 0, 1 << 31, next + 1<<17, next + 1<<21, next + 1<<24, next - 1<<20} {
					c.say(server, flags, at)
				}
				r.path.sweepOnce(tick()+ticks(30*time.Second), 0) // longer than what has ended, on one side or two, may last
				if s := r.stats(); s.Current != before.Current || s.Broken != before.Broken {
					t.Errorf("forged, flags %#x, by the server %v: %+v; want it to go on as %+v", flags, server, s, before)
				}
				c.say(server, flags, next)
				if flags == fin|ack {
					r.path.sweepOnce(tick()+ticks(30*time.Second), 0)
				}
				if s := r.stats(); s.Current != before.Current-1 {
					t.Errorf("flags %#x, by the server %v: %+v; want it ended", flags, server, s)
				}
			}
		}
	})
}

// TestNumbersThatAreForged has somebody say things at numbers that are far away, so that
// a reset at these is believed.
func TestNumbersThatAreForged(t *testing.T) {
	t.Parallel()
	f := families[0]
	r := newRig(t, Options{}, f.service())
	c := newNumbered(r, f.client, f.vip, f.server)
	for _, at := range []uint32{1 << 31, 1101 + 1<<17, 1101 + 1<<23, 1101 + 1<<24, 0xfff00000} {
		c.say(false, ack, at)
		c.say(false, syn, at)
		c.say(false, rst, at)
		c.say(false, rst, at+1)
	}
	if s := r.stats(); s.Current != 1 || s.Broken != 0 {
		t.Errorf("%+v; want the connection to go on", s)
	}
	// What is under way, and what overtakes, is neither.
	c.say(false, rst, 1101+1000)
	if s := r.stats(); s.Broken != 1 {
		t.Errorf("%+v; want it reset", s)
	}
}

// TestForgedAcknowledgements has somebody acknowledge for the client what the server has
// never sent, so that a reset of the server's there is believed, or none where it is.
func TestForgedAcknowledgements(t *testing.T) {
	t.Parallel()
	f := families[0]
	r := newRig(t, Options{}, f.service())
	for i, ahead := range []uint32{1 << 17, 1 << 20, 1<<24 - 1} {
		c := newNumbered(r, netip.AddrPortFrom(f.client.Addr(), f.client.Port()+uint16(i)), f.vip, f.server)
		before := r.stats()
		c.rig.client(packet{proto: TCP, from: c.client, to: c.vip, flags: ack, seq: 1101, ack: 1501 + ahead})
		c.say(true, rst, 1501+ahead)
		if s := r.stats(); s.Current != before.Current || s.Broken != before.Broken {
			t.Errorf("%d ahead: %+v; want the connection to go on as %+v", ahead, s, before)
		}
		c.say(true, rst, 1501)
		if s := r.stats(); s.Broken != before.Broken+1 {
			t.Errorf("%d ahead: %+v; want it reset", ahead, s)
		}
	}
}

// TestResetThatOvertakes has a reset come before what was sent before it.
func TestResetThatOvertakes(t *testing.T) {
	t.Parallel()
	f := families[0]
	r := newRig(t, Options{}, f.service())
	r.connect(f.client, f.vip, f.server)
	r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: rst | ack, seq: 106, ack: 501})
	r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 101, ack: 501, payload: "hello"})
	if s := r.stats(); s.Current != 0 || s.Broken != 1 {
		t.Errorf("%+v; want it ended by the reset", s)
	}
}

// TestNumbersAreDoubted has a connection go on elsewhere for a while. A reset of before
// what this node knows ends nothing, and one of then does when both sides have spoken.
func TestNumbersAreDoubted(t *testing.T) {
	t.Parallel()
	f := families[0]
	r := newRig(t, Options{}, f.service())
	c := newNumbered(r, f.client, f.vip, f.server)
	c.age() // it came here before the address did
	r.path.AddressCame()
	c.say(false, rst, 1101)
	if s := r.stats(); s.Current != 1 {
		t.Fatalf("a reset that may be forged ended it: %+v", s)
	}
	const later = 1 << 30
	c.say(false, ack, later)
	r.server(packet{proto: TCP, from: c.server, to: c.seen, flags: ack, seq: 2 << 30, ack: later})
	c.say(false, rst, 1101)
	if s := r.stats(); s.Current != 1 {
		t.Errorf("an old number ended it: %+v", s)
	}
	c.say(false, rst, later)
	if s := r.stats(); s.Current != 0 {
		t.Errorf("the right reset did not end it: %+v", s)
	}
}

// TestNumbersCatchUp has a lot of a bulk be lost before it comes here. What was sent is
// known again when the receiver has acknowledged what is beyond, and not before.
func TestNumbersCatchUp(t *testing.T) {
	t.Parallel()
	f := families[0]
	r := newRig(t, Options{}, f.service())
	c := newNumbered(r, f.client, f.vip, f.server)
	const beyond, end = 1101 + 1<<17, 1101 + 1<<20
	c.age()
	c.say(false, ack, beyond)
	c.say(false, rst, beyond)
	if s := r.stats(); s.Current != 1 || s.Broken != 0 {
		t.Fatalf("what may be forged ended it: %+v", s)
	}
	r.server(packet{proto: TCP, from: c.server, to: c.seen, flags: ack, seq: 1501, ack: beyond})
	c.age()
	c.say(false, ack, end)
	c.say(false, rst, end)
	if s := r.stats(); s.Current != 0 || s.Broken != 1 {
		t.Errorf("the right reset did not end it: %+v", s)
	}
}
