package appliance

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// recorder is addresses that note what is done to them.
type recorder struct {
	events  []string
	lingers bool // whether connections go on without the addresses
}

func (r *recorder) begins([]netip.Prefix) bool { return r.lingers }
func (r *recorder) begin() bool                { r.events = append(r.events, "left"); return r.lingers }
func (r *recorder) back()                      { r.events = append(r.events, "back") }

func (r *recorder) Acquire([]netip.Prefix) ([]netip.Prefix, error) {
	r.events = append(r.events, "acquire")
	return nil, nil
}
func (r *recorder) Release([]netip.Prefix) error { r.events = append(r.events, "release"); return nil }
func (r *recorder) Announce([]netip.Prefix) error {
	r.events = append(r.events, "announce")
	return nil
}

func (r *recorder) Hold([]netip.Addr) (func() error, error) {
	r.events = append(r.events, "hold")
	return func() error { r.events = append(r.events, "let go"); return nil }, nil
}

func (r *recorder) Cut(vips []netip.Addr) int {
	r.events = append(r.events, "cut "+vips[0].String())
	return len(vips)
}

// The clients of an address are told while packets can still leave, and nobody
// becomes one meanwhile.
func TestConnectionsAreCutBeforeTheAddressGoes(t *testing.T) {
	var r recorder
	addresses := []netip.Prefix{netip.MustParsePrefix("192.168.15.3/24")}
	s := severing{&r, &r, &r, zerolog.Nop()}
	if _, err := s.Acquire(addresses); err != nil {
		t.Fatal(err)
	}
	for _, step := range []func([]netip.Prefix) error{s.Announce, s.Release} {
		if err := step(addresses); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"acquire", "back", "announce", "hold", "cut 192.168.15.3", "release", "cut 192.168.15.3", "let go"}
	if !slices.Equal(r.events, want) {
		t.Errorf("got %v, want %v", r.events, want)
	}
}

// What comes up while Hold waits for the last client makes it wait anew.
func TestLull(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l := lull{since: start}
	for _, tt := range []struct {
		at       time.Duration
		underWay int
		want     time.Duration
	}{
		{time.Second, 0, time.Second},
		{2 * time.Second, 1, 0},
		{3 * time.Second, 0, time.Second},
		{4 * time.Second, 3, 0},
		{4200 * time.Millisecond, 0, 200 * time.Millisecond},
	} {
		if got := l.lasts(start.Add(tt.at), tt.underWay); got != tt.want {
			t.Errorf("at %v with %d under way it has lasted %v, want %v", tt.at, tt.underWay, got, tt.want)
		}
	}
}

// Connections that are to go on are not cut when their addresses go.
func TestConnectionsThatLingerAreNotCut(t *testing.T) {
	r := recorder{lingers: true}
	addresses := []netip.Prefix{netip.MustParsePrefix("192.168.15.3/24")}
	s := severing{&r, &r, &r, zerolog.Nop()}
	if err := s.Release(addresses); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Acquire(addresses); err != nil {
		t.Fatal(err)
	}
	want := []string{"release", "left", "acquire", "back"}
	if !slices.Equal(r.events, want) {
		t.Errorf("got %v, want %v", r.events, want)
	}
}
