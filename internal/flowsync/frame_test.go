package flowsync

import (
	"bytes"
	"net/netip"
	"reflect"
	"testing"
	"time"
)

func place(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// flow returns the flow of a client of IPv4 that has port.
func flow(port uint16) Flow {
	return Flow{
		Key:    Key{Protocol: TCP, Client: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), port), Listen: place("192.0.2.3:443")},
		Server: place("10.0.0.5:8443"), Port: port,
	}
}

// flow6 is one of IPv6 with everything that a flow may have.
func flow6() Flow {
	return Flow{
		Key:    Key{Protocol: UDP, Client: place("[2001:db8::7]:4000"), Listen: place("[2001:db8:1::3]:53")},
		Server: place("[2001:db8:2::5]:53"), Port: 65535, Mode: 3, ClientEnded: true, ServerEnded: true, Idle: 136 * 365 * 24 * time.Hour,
	}
}

func gone(f Flow) Change { return Change{Flow: Flow{Key: f.Key}, Gone: true} }

func TestFramesAreReadAsWritten(t *testing.T) {
	for _, f := range []frame{
		{kind: kindAsk, stream: 1},
		{kind: kindDone, stream: 1 << 63, seq: 7},
		{kind: kindAck, stream: 2, seq: 1<<64 - 1},
		{kind: kindBatch, stream: 3, seq: 1, changes: []Change{{Flow: flow(4000)}, {Flow: flow6()}, gone(flow(1)), gone(flow6())}},
	} {
		got, err := readFrame(f.bytes())
		if err != nil || !reflect.DeepEqual(got, f) {
			t.Errorf("%+v was read as %+v, %v", f, got, err)
		}
	}
}

func TestWhatIsNoFrameIsRefused(t *testing.T) {
	good := frame{kind: kindBatch, stream: 3, seq: 1, changes: []Change{{Flow: flow(4000)}}}.bytes()
	with := func(at int, b byte) []byte {
		c := bytes.Clone(good)
		c[at] = b
		return c
	}
	mapped := Flow{Key: Key{Protocol: TCP, Client: place("[::ffff:10.0.0.1]:1"), Listen: place("[2001:db8::1]:1")}, Server: place("[2001:db8::2]:1")}
	for name, b := range map[string][]byte{
		"empty":                  {},
		"short header":           good[:frameHeader-1],
		"no changes":             good[:frameHeader],
		"fewer than it says":     with(frameHeader-1, 2),
		"cut off":                good[:len(good)-1],
		"something follows":      append(bytes.Clone(good), 0),
		"another format":         with(0, 2),
		"kind 0":                 with(1, 0),
		"kind 5":                 with(1, 5),
		"an ask with changes":    with(1, byte(kindAsk)),
		"a done with changes":    with(1, byte(kindDone)),
		"number 0":               with(17, 0),
		"stream 0":               with(9, 0),
		"unknown flag":           with(frameHeader, 1<<6),
		"gone, and has a mode":   with(frameHeader, flagGone|1<<modeShift),
		"protocol 1":             with(frameHeader+1, 1),
		"an ask with a number":   frame{kind: kindAsk, stream: 1, seq: 1}.bytes(),
		"an ack without one":     frame{kind: kindAck, stream: 1}.bytes(),
		"IPv4 dressed as IPv6":   frame{kind: kindBatch, stream: 3, seq: 1, changes: []Change{{Flow: mapped}}}.bytes(),
		"a second change, short": append(bytes.Clone(good), 0, TCP),
	} {
		if f, err := readFrame(b); err == nil {
			t.Errorf("%s: read as %+v", name, f)
		}
	}
}

func TestOnlyWholeFlowsAreTold(t *testing.T) {
	for name, change := range map[string]func(*Change){
		"protocol":   func(c *Change) { c.Protocol = 132 },
		"no client":  func(c *Change) { c.Client = netip.AddrPort{} },
		"zone":       func(c *Change) { c.Listen = place("[fe80::1%eth0]:1") },
		"families":   func(c *Change) { c.Server = place("[2001:db8::1]:1") },
		"mode":       func(c *Change) { c.Mode = 4 },
		"future":     func(c *Change) { c.Idle = -time.Second },
		"no service": func(c *Change) { c.Listen = netip.AddrPort{} },
		"no server":  func(c *Change) { c.Server = netip.AddrPort{} },
		"in disguise": func(c *Change) {
			c.Client, c.Listen, c.Server = place("[::ffff:10.0.0.1]:1"), place("[2001:db8::1]:1"), place("[2001:db8::1]:2")
		},
	} {
		c := Change{Flow: flow(1)}
		change(&c)
		if c.valid() {
			t.Errorf("%s: %+v is valid", name, c)
		}
	}
}

func TestNoFrameIsTooLargeForTheLink(t *testing.T) {
	var all []Change
	for range Batch {
		all = append(all, Change{Flow: flow6()})
	}
	if n := len(frame{kindBatch, 1, 1, all}.bytes()); n != frameHeader+Batch*maxChange || n > 32<<10 {
		t.Errorf("%d bytes", n)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(frame{kind: kindAsk, stream: 1}.bytes())
	f.Add(frame{kind: kindAck, stream: 1, seq: 4}.bytes())
	f.Add(frame{kind: kindBatch, stream: 3, seq: 1, changes: []Change{{Flow: flow(4000)}, {Flow: flow6()}, gone(flow(1)), gone(flow6())}}.bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readFrame(b)
		if err != nil {
			return
		}
		if again := got.bytes(); !bytes.Equal(again, b) {
			t.Errorf("%x was read as %+v, which is written as %x", b, got, again)
		}
	})
}
