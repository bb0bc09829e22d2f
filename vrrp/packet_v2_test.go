package vrrp

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

var pass1111 = Authentication{Type: AuthenticatePass, Password: "1111"}

// sample2 is an advert of version 2.
func sample2(auth Authentication) (Advert, Packet) {
	a := Advert{Version: 2, VRID: 50, Priority: 100, Interval: time.Second,
		Addresses: []netip.Addr{addr("192.168.15.3")}, Authentication: auth}
	src := addr("192.168.15.11")
	return a, Packet{Payload: a.Append(nil, src, Group(src), ChecksumPseudo), Source: src, Destination: Group(src), TTL: 255}
}

func TestAppendBytesOfVersion2(t *testing.T) {
	// Worked out by hand. The words without authentication, checksum 0:
	// 2132 + 6401 + 0001 + 0000 + c0a8 + 0f03 = 154df -> 54e0 -> ^ ab1f.
	// With the type in the third word and the password behind, 0101 + c0a8 and
	// so on: 154df + 0100 + 3131 + 3131 = 1b841 -> b842 -> ^ 47bd.
	tests := []struct {
		name string
		auth Authentication
		want string
	}{
		{"none", Authentication{}, "213264010001ab1fc0a80f03" + "0000000000000000"},
		{"pass", pass1111, "21326401010147bdc0a80f03" + "3131313100000000"},
	}
	for _, tt := range tests {
		a, p := sample2(tt.auth)
		if got := hex.EncodeToString(p.Payload); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
		got, form, refusal := Parse(p, 2)
		if refusal != Accepted || form != ChecksumPlain || !reflect.DeepEqual(got, a) {
			t.Errorf("%s: came back as %+v, %s, %s", tt.name, got, form, refusal)
		}
	}
}

func TestPasswordIsCutOrFilledUp(t *testing.T) {
	for password, want := range map[Password]string{"1": "3100000000000000", "12345678": "3132333435363738", "123456789": "3132333435363738"} {
		_, p := sample2(Authentication{Type: AuthenticatePass, Password: password})
		if got := hex.EncodeToString(p.Payload[len(p.Payload)-8:]); got != want {
			t.Errorf("%d bytes: got %s, want %s", len(password), got, want)
		}
	}
}

// Without authentication the data means nothing.
func TestAuthenticationDataIsIgnoredWithoutAuthentication(t *testing.T) {
	a, p := sample2(Authentication{})
	p.Payload[len(p.Payload)-1] = 7
	repair(p)
	if got, _, refusal := Parse(p, 2); refusal != Accepted || !reflect.DeepEqual(got, a) {
		t.Errorf("got %+v, %s", got, refusal)
	}
}

// refusalsOf2 is the table of refusals of a router of version 2; it returns
// which ones the table has.
func refusalsOf2(t *testing.T) map[Refusal]bool {
	cfg := Config{VRID: 50, Version: 2, Source: addr("192.168.15.12"), AdvertInterval: time.Second, Authentication: pass1111,
		Addresses: []netip.Prefix{prefix("192.168.15.3/24")}}
	tests := []struct {
		want  Refusal
		spoil func(p *Packet)
	}{
		{RefusedFamily, func(p *Packet) { p.Source = addr("fe80::1") }},
		{RefusedUnicast, func(p *Packet) { p.Destination = cfg.Source }},
		{RefusedDestination, func(p *Packet) { p.Destination = addr("192.168.15.13") }},
		{RefusedTTL, func(p *Packet) { p.TTL = 254 }},
		{RefusedShort, func(p *Packet) { p.Payload = p.Payload[:7] }},
		{RefusedVersion, func(p *Packet) { _, *p = sample() }},
		{RefusedVersion, func(p *Packet) { p.Payload[0] = 0x31; repair(*p) }},
		{RefusedVersion, func(p *Packet) { p.Payload[0] = 0x11; repair(*p) }},
		{RefusedType, func(p *Packet) { p.Payload[0] = 0x22; repair(*p) }},
		{RefusedCount, func(p *Packet) {
			p.Payload[3] = 0
			p.Payload = append(p.Payload[:8], make([]byte, 8)...)
			repair(*p)
		}},
		{RefusedLength, func(p *Packet) { p.Payload = append(p.Payload, 0) }},
		{RefusedLength, func(p *Packet) { p.Payload = p.Payload[:19] }},
		{RefusedLength, func(p *Packet) { p.Payload = p.Payload[:12]; repair(*p) }}, // no authentication data
		{RefusedLength, func(p *Packet) { p.Payload[3] = 2; repair(*p) }},
		{RefusedChecksum, func(p *Packet) { p.Payload[2]++ }},
		{RefusedChecksum, func(p *Packet) { p.Payload[len(p.Payload)-1]++ }}, // it covers the password
		{RefusedChecksum, func(p *Packet) { pseudo(p) }},
		{RefusedInterval, func(p *Packet) { p.Payload[5] = 0; repair(*p) }},
		{RefusedIntervalMismatch, func(p *Packet) { p.Payload[5] = 2; repair(*p) }},
		{RefusedVRID, func(p *Packet) { p.Payload[1] = 51; repair(*p) }},
		{RefusedOwn, func(p *Packet) { p.Source = cfg.Source }},
		{RefusedAuthenticationType, func(p *Packet) { _, *p = sample2(Authentication{}) }},
		{RefusedAuthenticationType, func(p *Packet) { p.Payload[4] = 2; repair(*p) }}, // AH
		{RefusedPassword, func(p *Packet) { _, *p = sample2(Authentication{AuthenticatePass, "1112"}) }},
		{RefusedPassword, func(p *Packet) { _, *p = sample2(Authentication{AuthenticatePass, "11110"}) }},
		{RefusedPassword, func(p *Packet) { _, *p = sample2(Authentication{AuthenticatePass, "111"}) }},
		{Accepted, func(p *Packet) {}},
	}
	covered := make(map[Refusal]bool)
	for i, tt := range tests {
		covered[tt.want] = true
		_, p := sample2(pass1111)
		tt.spoil(&p)
		if _, _, got := cfg.judge(p, cfg.Source); got != tt.want {
			t.Errorf("version 2, row %d: got %s, want %s", i, got, tt.want)
		}
	}
	cfg.Authentication = Authentication{}
	_, p := sample2(pass1111)
	if _, _, got := cfg.judge(p, cfg.Source); got != RefusedAuthenticationType {
		t.Errorf("a password where none is configured: %s", got)
	}
	return covered
}

// pseudo gives p the checksum with the pseudo-header, which version 2 has not.
func pseudo(p *Packet) {
	p.Payload[6], p.Payload[7] = 0, 0
	sum := ^fold(pseudoSum(p.Source, p.Destination, len(p.Payload)) + onesSum(p.Payload))
	p.Payload[6], p.Payload[7] = byte(sum>>8), byte(sum)
}

func TestPasswordIsNeverShown(t *testing.T) {
	cfg := Config{Authentication: Authentication{Type: AuthenticatePass, Password: "sesame"}}
	shown, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	text := string(shown)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		text += fmt.Sprintf(verb, cfg) + fmt.Sprintf(verb, cfg.Authentication.Password)
	}
	if strings.Contains(text, "sesame") || strings.Contains(text, hex.EncodeToString([]byte("sesame"))) {
		t.Errorf("shown: %s", text)
	}
}
