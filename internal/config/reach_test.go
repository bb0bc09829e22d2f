package config

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestReach(t *testing.T) {
	file := func(track string) string {
		return nodes + "[[vrrp]]\nname = 'a'\nvirtual_router_id = 7\naddresses = ['192.168.15.3/24']\ntrack = [ " + track + " ]\n"
	}
	tests := []struct{ track, key, words string }{
		{"{ reach = '192.168.15.1' }", "", ""},
		{"{ reach = '2001:db8::1', weight = 20 }", "", ""},
		{"{ reach = '192.168.15.12' }", "vrrp[0].track[0].reach", "one of the pair's own addresses"},
		{"{ reach = '192.168.15.3' }", "vrrp[0].track[0].reach", "one of the pair's own addresses"},
		{"{ reach = '127.0.0.1' }", "vrrp[0].track[0].reach", "one of the pair's own addresses"},
		{"{ reach = '0.0.0.0' }", "vrrp[0].track[0].reach", "no address of a host"},
		{"{ reach = '224.0.0.18' }", "vrrp[0].track[0].reach", "many machines"},
		{"{ reach = '192.168.15.1', interface = 'eth1' }", "vrrp[0].track[0]", "one of service, interface and reach"},
		{"{ reach = '192.168.15.1' }, { reach = '192.168.15.1' }", "vrrp[0].track[1]", "the same as track[0]"},
		{"{ reach = '192.168.15.1', weight = 5 }", "vrrp[0].track", "can never move the addresses"},
	}
	for _, tt := range tests {
		t.Run(tt.track, func(t *testing.T) { wantJudgement(t, file(tt.track), tt.key, tt.words) })
	}

	f, err := Parse("f", []byte(file("{ reach = '192.168.15.1' }")))
	if err != nil {
		t.Fatal(err)
	}
	n, err := f.ForNode("lb01")
	if err != nil {
		t.Fatal(err)
	}
	v := n.VRRP[0]
	if want := (Track{Reach: netip.MustParseAddr("192.168.15.1"), Weight: 11}); len(v.Track) != 1 || v.Track[0] != want {
		t.Errorf("tracks %+v", v.Track)
	}
	if !slices.Equal(v.Reach, []netip.Addr{v.Track[0].Reach}) {
		t.Errorf("must reach %v", v.Reach)
	}
	if v.Settle != ReachCheck().Skew() {
		t.Errorf("settles for %v", v.Settle)
	}
	ReachCheck().Validate(func(key, message string) { t.Errorf("%s: %s", key, message) })
	if strings.Contains(judge(file("{ reach = 'gateway' }")), "panic") {
		t.Error("a name")
	}
}
