package vrrp

import (
	"encoding/hex"
	"net/netip"
	"reflect"
	"testing"
	"time"
)

// sample6 is an advert over IPv6.
func sample6() (Advert, Packet) {
	a := Advert{Version: 3, VRID: 50, Priority: 100, Interval: 100 * time.Millisecond,
		Addresses: []netip.Addr{addr("fe80::3"), addr("2001:db8::3")}}
	src := addr("fe80::11")
	return a, Packet{Payload: a.Append(nil, src, Group(src), ChecksumPlain), Source: src, Destination: addr("ff02::12"), TTL: 255}
}

func TestAppendBytesOverIPv6(t *testing.T) {
	// Worked out by hand. The words of the message, checksum 0:
	// 3132 + 6402 + 000a + fe80 + 0003 + 2001 + 0db8 + 0003 = 1c17d.
	// The pseudo-header: fe80 + 0011 + ff02 + 0012 + 0028 + 0070 = 1fe3d;
	// 1c17d + 1fe3d = 3bfba -> bfbd -> ^ 4042.
	_, p := sample6()
	want := "31326402000a4042" + "fe800000000000000000000000000003" + "20010db8000000000000000000000003"
	if got := hex.EncodeToString(p.Payload); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestParseOverIPv6(t *testing.T) {
	a, p := sample6()
	if got, form, refusal := Parse(p, 3); refusal != Accepted || form != ChecksumPseudo || !reflect.DeepEqual(got, a) {
		t.Errorf("got %+v, %s, %s", got, form, refusal)
	}
}

// refusalsOf6 is the table of refusals of a router of IPv6; it returns which ones
// the table has.
func refusalsOf6(t *testing.T) map[Refusal]bool {
	cfg := Config{VRID: 50, Version: 3, Source: addr("fe80::12"), Addresses: []netip.Prefix{prefix("fe80::3/64")}}
	plain := func(p *Packet) {
		p.Payload[6], p.Payload[7] = 0, 0
		sum := ^fold(onesSum(p.Payload))
		p.Payload[6], p.Payload[7] = byte(sum>>8), byte(sum)
	}
	return judgeAll(t, &cfg, func() Packet { _, p := sample6(); return p }, []refusalRow{
		{RefusedSource, func(p *Packet) { p.Source = netip.IPv6Unspecified() }},
		{RefusedSource, func(p *Packet) { p.Source = addr("ff02::12") }},
		{RefusedFamily, func(p *Packet) { _, *p = sample() }},
		{RefusedUnicast, func(p *Packet) { p.Destination = cfg.Source; repair(*p) }},
		{RefusedDestination, func(p *Packet) { p.Destination = addr("ff02::1"); repair(*p) }},
		{RefusedTTL, func(p *Packet) { p.TTL = 64 }},
		{RefusedShort, func(p *Packet) { p.Payload = p.Payload[:7] }},
		{RefusedVersion, func(p *Packet) { p.Payload[0] = 0x21; repair(*p) }},
		{RefusedType, func(p *Packet) { p.Payload[0] = 0x32; repair(*p) }},
		{RefusedCount, func(p *Packet) { p.Payload[3] = 0; p.Payload = p.Payload[:8]; repair(*p) }},
		{RefusedLength, func(p *Packet) { p.Payload = append(p.Payload, 0) }},
		{RefusedLength, func(p *Packet) { p.Payload = p.Payload[:8+4+4]; repair(*p) }}, // the length of two IPv4 addresses
		{RefusedLength, func(p *Packet) { p.Payload[3] = 1; repair(*p) }},
		{RefusedChecksum, func(p *Packet) { p.Payload[2]++ }},
		{RefusedChecksum, func(p *Packet) { p.Source = addr("fe80::13") }}, // the pseudo-header counts
		{RefusedChecksum, plain},
		{RefusedInterval, func(p *Packet) { p.Payload[4], p.Payload[5] = 0xf0, 0; repair(*p) }},
		{RefusedVRID, func(p *Packet) { p.Payload[1] = 51; repair(*p) }},
		{RefusedOwn, func(p *Packet) { p.Source = cfg.Source; repair(*p) }},
		{Accepted, func(p *Packet) {}},
	})
}

// refusalsOfUnicast is the table of refusals of a router that speaks unicast.
func refusalsOfUnicast(t *testing.T) map[Refusal]bool {
	cfg := Config{VRID: 50, Version: 3, Source: addr("192.168.15.12"), Addresses: []netip.Prefix{prefix("192.168.15.3/24")},
		Unicast: true, Peers: []Peer{{Name: "lb01", Address: addr("192.168.15.11"), Priority: 100}}}
	valid := func() Packet {
		a, p := sample()
		p.Destination = cfg.Source
		p.Payload = a.Append(nil, p.Source, p.Destination, ChecksumPseudo)
		return p
	}
	return judgeAll(t, &cfg, valid, []refusalRow{
		{RefusedMulticast, func(p *Packet) { _, *p = sample() }},
		{RefusedDestination, func(p *Packet) { p.Destination = addr("192.168.15.3"); repair(*p) }},
		{RefusedTTL, func(p *Packet) { p.TTL = 254 }},
		{RefusedStranger, func(p *Packet) { p.Source = addr("192.168.15.13"); repair(*p) }},
		{RefusedOwn, func(p *Packet) { p.Source = cfg.Source; repair(*p) }},
		{RefusedFamily, func(p *Packet) { _, *p = sample6() }},
		{Accepted, func(p *Packet) {}},
	})
}

// refusalRow is what must become of an advert with something wrong.
type refusalRow struct {
	want  Refusal
	spoil func(p *Packet)
}

// judgeAll fails the test unless cfg judges every row as that says, and returns
// which refusals were seen.
func judgeAll(t *testing.T, cfg *Config, valid func() Packet, rows []refusalRow) map[Refusal]bool {
	t.Helper()
	covered := make(map[Refusal]bool)
	for i, row := range rows {
		covered[row.want] = true
		p := valid()
		row.spoil(&p)
		if _, _, got := cfg.judge(p, cfg.Source); got != row.want {
			t.Errorf("row %d: got %s, want %s", i, got, row.want)
		}
	}
	return covered
}

// keepalived's unicast over IPv6 has the hop limit of any packet.
func TestUnicastOverIPv6HasAnyHopLimit(t *testing.T) {
	cfg := Config{VRID: 50, Version: 3, Source: addr("fd15::c"), Addresses: []netip.Prefix{prefix("fe80::3/64")},
		Unicast: true, Peers: []Peer{{Name: "lb01", Address: addr("fd15::b"), Priority: 100}}}
	a, _ := sample6()
	p := Packet{Source: addr("fd15::b"), Destination: cfg.Source, TTL: 64}
	p.Payload = a.Append(nil, p.Source, p.Destination, ChecksumPseudo)
	if _, _, refusal := cfg.judge(p, cfg.Source); refusal != Accepted {
		t.Errorf("refused: %s", refusal)
	}
	p.Source = addr("fd15::d")
	repair(p)
	if _, _, refusal := cfg.judge(p, cfg.Source); refusal != RefusedStranger {
		t.Errorf("a stranger: %s", refusal)
	}
}

func TestUnicastGoesToEachPeer(t *testing.T) {
	cfg := Config{VRID: 50, Version: 3, AdvertInterval: time.Second, Source: addr("192.168.15.11"),
		Addresses: []netip.Prefix{prefix("192.168.15.3/24")}, Unicast: true,
		Peers: []Peer{{Address: addr("192.168.15.12")}, {Address: addr("192.168.15.13")}}}
	n := 0
	for to := range cfg.destinations() {
		other := Config{VRID: 50, Version: 3, Source: to, Addresses: cfg.Addresses, Unicast: true, Peers: []Peer{{Address: cfg.Source}}}
		if _, _, refusal := other.judge(Packet{Payload: cfg.appendAdvert(nil, 100, to), Source: cfg.Source, Destination: to, TTL: 255}, to); refusal != Accepted {
			t.Errorf("to %s: %s", to, refusal)
		}
		n++
	}
	if n != 2 {
		t.Errorf("%d messages for two nodes", n)
	}
}
