package vrrp

import (
	"bytes"
	"encoding/hex"
	"maps"
	"net/netip"
	"reflect"
	"testing"
	"time"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// sample is an advert as it is sent by default.
func sample() (Advert, Packet) {
	a := Advert{Version: 3, VRID: 50, Priority: 100, Interval: 100 * time.Millisecond,
		Addresses: []netip.Addr{addr("192.168.15.3")}}
	src := addr("192.168.15.11")
	return a, Packet{Payload: a.Append(nil, src, Group(src), ChecksumPseudo), Source: src, Destination: Group(src), TTL: 255}
}

func TestAppendBytes(t *testing.T) {
	// Worked out by hand. The words of the message, checksum 0:
	// 3132 + 6401 + 000a + 0000 + c0a8 + 0f03 = 164e8 -> 64e9 -> ^ 9b16.
	// The pseudo-header: c0a8 + 0f0b + e000 + 0012 + 0070 + 000c = 1b041;
	// 164e8 + 1b041 = 31529 -> 152c -> ^ ead3.
	a, p := sample()
	tests := []struct {
		form Checksum
		want string
	}{
		{ChecksumPlain, "31326401000a9b16c0a80f03"},
		{ChecksumPseudo, "31326401000aead3c0a80f03"},
	}
	for _, tt := range tests {
		if got := hex.EncodeToString(a.Append(nil, p.Source, p.Destination, tt.form)); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.form, got, tt.want)
		}
	}
}

func TestParseAcceptsBothChecksums(t *testing.T) {
	a, p := sample()
	for _, form := range []Checksum{ChecksumPseudo, ChecksumPlain} {
		p.Payload = a.Append(nil, p.Source, p.Destination, form)
		got, gotForm, refusal := Parse(p, 3)
		if refusal != Accepted || gotForm != form || !reflect.DeepEqual(got, a) {
			t.Errorf("%s: got %+v, %s, %s", form, got, gotForm, refusal)
		}
	}
}

func TestParseIgnoresReservedBits(t *testing.T) {
	a, p := sample()
	p.Payload[4] |= 0xf0
	repair(p)
	if got, _, refusal := Parse(p, 3); refusal != Accepted || got.Interval != a.Interval {
		t.Errorf("got %+v, %s", got, refusal)
	}
}

// repair makes the checksum of p right again: message alone for IPv4.
func repair(p Packet) {
	p.Payload[6], p.Payload[7] = 0, 0
	pseudo := uint32(0)
	if p.Source.Is6() {
		pseudo = pseudoSum(p.Source, p.Destination, len(p.Payload))
	}
	sum := ^fold(pseudo + onesSum(p.Payload))
	p.Payload[6], p.Payload[7] = byte(sum>>8), byte(sum)
}

func TestRefusals(t *testing.T) {
	cfg := Config{VRID: 50, Version: 3, Source: addr("192.168.15.12"), Addresses: []netip.Prefix{prefix("192.168.15.3/24")}}
	tests := []struct {
		want  Refusal
		spoil func(p *Packet)
	}{
		{RefusedSource, func(p *Packet) { p.Source = netip.Addr{} }},
		{RefusedSource, func(p *Packet) { p.Source = addr("0.0.0.0") }},
		{RefusedSource, func(p *Packet) { p.Source = addr("224.0.0.18") }},
		{RefusedFamily, func(p *Packet) { p.Source = addr("fe80::1") }},
		{RefusedUnicast, func(p *Packet) { p.Destination = cfg.Source; repair(*p) }},
		{RefusedDestination, func(p *Packet) { p.Destination = addr("192.168.15.13"); repair(*p) }},
		{RefusedDestination, func(p *Packet) { p.Destination = netip.Addr{} }},
		{RefusedTTL, func(p *Packet) { p.TTL = 254 }},
		{RefusedShort, func(p *Packet) { p.Payload = nil }},
		{RefusedShort, func(p *Packet) { p.Payload = p.Payload[:7] }},
		{RefusedVersion, func(p *Packet) { p.Payload[0] = 0x21; repair(*p) }},
		{RefusedVersion, func(p *Packet) { p.Payload[0] = 0x41; repair(*p) }},
		{RefusedType, func(p *Packet) { p.Payload[0] = 0x32; repair(*p) }},
		{RefusedCount, func(p *Packet) { p.Payload[3] = 0; p.Payload = p.Payload[:8]; repair(*p) }},
		{RefusedLength, func(p *Packet) { p.Payload = append(p.Payload, 0) }},
		{RefusedLength, func(p *Packet) { p.Payload = p.Payload[:11] }},
		{RefusedLength, func(p *Packet) { p.Payload[3] = 2; repair(*p) }},
		{RefusedChecksum, func(p *Packet) { p.Payload[2]++ }},
		{RefusedInterval, func(p *Packet) { p.Payload[4], p.Payload[5] = 0xf0, 0; repair(*p) }},
		{RefusedVRID, func(p *Packet) { p.Payload[1] = 51; repair(*p) }},
		{RefusedOwn, func(p *Packet) { p.Source = cfg.Source; repair(*p) }},
		{Accepted, func(p *Packet) {}},
	}
	for _, tt := range tests {
		_, p := sample()
		tt.spoil(&p)
		if _, _, got := cfg.judge(p, cfg.Source); got != tt.want {
			t.Errorf("%+v: got %s, want %s", p, got, tt.want)
		}
	}
	covered := refusalsOf2(t)
	maps.Copy(covered, refusalsOf6(t))
	maps.Copy(covered, refusalsOfUnicast(t))
	for _, tt := range tests {
		covered[tt.want] = true
	}
	for r := range refusals {
		if !covered[r] {
			t.Errorf("no row for %s", r)
		}
	}
}

func TestRefusalNamesAreDistinct(t *testing.T) {
	seen := make(map[string]bool)
	for r := range refusals {
		if s := r.String(); s == "unknown" || seen[s] {
			t.Errorf("refusal %d is called %q", r, s)
		} else {
			seen[s] = true
		}
	}
}

func FuzzParse(f *testing.F) {
	a, p := sample()
	f.Add(p.Payload, uint8(255))
	f.Add(a.Append(nil, p.Source, p.Destination, ChecksumPlain), uint8(255))
	f.Add([]byte{0x31}, uint8(255))
	for _, auth := range []Authentication{{}, {AuthenticatePass, "1111"}, {AuthenticatePass, "12345678"}} {
		_, p := sample2(auth)
		f.Add(p.Payload, uint8(255))
	}
	_, p6 := sample6()
	f.Add(p6.Payload, uint8(255))
	f.Fuzz(func(t *testing.T, payload []byte, ttl uint8) {
		version := 3
		if len(payload) > 0 && payload[0]>>4 == 2 {
			version = 2
		}
		fuzzParse(t, version, Packet{Payload: bytes.Clone(payload), Source: p.Source, Destination: p.Destination, TTL: ttl})
		fuzzParse(t, version, Packet{Payload: bytes.Clone(payload), Source: p6.Source, Destination: p6.Destination, TTL: ttl})
	})
}

// fuzzParse fails the test unless in, where it is not refused, comes back as it is
// when it is sent again.
func fuzzParse(t *testing.T, version int, in Packet) {
	a, form, refusal := Parse(in, version)
	if refusal != Accepted {
		// A message that differs in its checksum alone is as good a seed.
		if refusal != RefusedChecksum {
			return
		}
		repair(in)
		if a, form, refusal = Parse(in, version); refusal == RefusedChecksum {
			t.Fatalf("a repaired checksum is refused: %x", in.Payload)
		} else if refusal != Accepted {
			return
		}
	}
	again := a.Append(nil, in.Source, in.Destination, form)
	want := bytes.Clone(in.Payload)
	switch {
	case version == 3:
		want[4] &= 0x0f // the reserved bits are not kept
	case a.Authentication.Type == AuthenticateNone:
		clear(want[len(want)-authLength:]) // nor is data that means nothing
	}
	if got, want := zeroSum(again), zeroSum(want); !bytes.Equal(got, want) {
		t.Fatalf("%x was sent again as %x", want, got)
	}
	in.Payload = again
	b, form2, refusal := Parse(in, version)
	if refusal != Accepted || form2 != form || !reflect.DeepEqual(a, b) {
		t.Fatalf("%+v came back as %+v, %s, %s", a, b, form2, refusal)
	}
}

// zeroSum returns msg without its checksum, which may be zero in two ways.
func zeroSum(msg []byte) []byte {
	msg = bytes.Clone(msg)
	msg[6], msg[7] = 0, 0
	return msg
}

func TestOtherVirtualRoutersAreKnownWhateverTheySpeak(t *testing.T) {
	cfg := Config{VRID: 50, Version: 3, Addresses: []netip.Prefix{prefix("192.168.15.3/24")}}
	for name, msg := range map[string][]byte{
		"version 2":        {0x21, 51, 100, 1, 0, 1, 0, 0},
		"version 3":        {0x31, 51, 100, 1, 0, 1, 0, 0},
		"another type":     {0x35, 51},
		"too short to say": {0x31},
		"another version":  {0x41, 51, 0, 0, 0, 0, 0, 0},
		"ours, version 2":  {0x21, 50, 100, 1, 0, 1, 0, 0},
	} {
		want := map[string]Refusal{"too short to say": RefusedShort, "another version": RefusedVersion, "ours, version 2": RefusedVersion}[name]
		if want == Accepted {
			want = RefusedVRID
		}
		_, p := sample()
		p.Payload = msg
		if _, _, got := cfg.judge(p, addr("192.168.15.12")); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
