package config

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

const ownerFile = `[node.lb01]
address = "192.168.15.11"
[node.lb02]
address = "192.168.15.12"
[[vrrp]]
name = "a"
virtual_router_id = 7
interface = "eth0"
addresses = ["192.168.15.11/24"]
priority = { lb01 = 255, lb02 = 100 }
`

func TestOwners(t *testing.T) {
	tests := []struct{ name, old, new, key, words string }{
		{"the owner's own address", "", "", "", ""},
		{"an address of the node that is not the owner", "192.168.15.11/24", "192.168.15.12/24",
			"vrrp[0].addresses[0]", "lb02's own address"},
		{"no owner", "255", "254", "vrrp[0].addresses[0]", "lb01's own address"},
		{"two owners", "lb02 = 100", "lb02 = 255", "vrrp[0].priority", "lb01 and lb02 both have 255"},
		{"no interface", "interface = \"eth0\"\n", "", "vrrp[0].interface", "name the interface"},
		{"something tracked", "priority =", "track = [{ interface = \"eth1\" }]\npriority =",
			"vrrp[0].track", "nothing can move 192.168.15.11"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(ownerFile, tt.old) {
				t.Fatal("nothing to replace")
			}
			wantJudgement(t, strings.Replace(ownerFile, tt.old, tt.new, 1), tt.key, tt.words)
		})
	}
}

func TestTheOwnAddressIsTheOwnersAlone(t *testing.T) {
	f, err := Parse("f", []byte(ownerFile))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]netip.Addr{"lb01": {netip.MustParseAddr("192.168.15.11")}, "lb02": nil} {
		n, err := f.ForNode(name)
		if err != nil || !slices.Equal(n.VRRP[0].Own, want) {
			t.Errorf("%s: %v, %v; want %v", name, n.VRRP[0].Own, err, want)
		}
	}
}

func TestPreemptDelay(t *testing.T) {
	text := nodes + "[[vrrp]]\nname = 'a'\nvirtual_router_id = 7\naddresses = ['192.168.15.3/24']\npreempt_delay = '30s'\n"
	f, err := Parse("f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := f.ForNode("lb01"); err != nil || n.VRRP[0].PreemptDelay != 30*time.Second {
		t.Errorf("%+v, %v", n, err)
	}
	wantJudgement(t, text+"preempt = false\n", "vrrp[0].preempt_delay", "preempt is false")
	wantJudgement(t, strings.Replace(text, "30s", "61m", 1), "vrrp[0].preempt_delay", "1h at most")
}
