package config

import (
	"slices"
	"strings"
	"testing"
)

const groupFile = `[node.lb01]
address = "192.168.15.11"
priority = 100
[node.lb02]
address = "192.168.15.12"
priority = 90
[[vrrp]]
name = "a"
virtual_router_id = 7
interface = "eth0"
addresses = ["192.168.15.3/24"]
group = "edge"
track = [ { interface = "eth2", weight = 20 }, { interface = "eth3" } ]
[[vrrp]]
name = "b"
virtual_router_id = 8
interface = "eth1"
addresses = ["172.16.1.3/24"]
group = "edge"
priority = { lb01 = 200, lb02 = 100 }
track = [ { interface = "eth2", weight = 101 } ]
`

func TestGroups(t *testing.T) {
	tests := []struct{ name, old, new, key, words string }{
		{"two members", "", "", "", ""},
		{"one alone", "group = \"edge\"\npriority", "priority", "vrrp[0].group", "vrrp[0] is alone in group edge"},
		{"ranked another way", "lb02 = 100", "lb02 = 250", "vrrp[1].group", "would have its addresses on lb02, and vrrp[0] of the same group on lb01"},
		{"the same priorities", "lb02 = 100", "lb02 = 200", "vrrp[1].group", "lb01 and lb02 have the same priority 200"},
		{"another preempt", "priority = {", "preempt = false\npriority = {", "vrrp[1].preempt", "vrrp[0], which is in the same group: true"},
		{"another delay", "priority = {", "preempt_delay = \"1s\"\npriority = {", "vrrp[1].preempt_delay", "vrrp[0], which is in the same group"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(groupFile, tt.old) {
				t.Fatal("nothing to replace")
			}
			wantJudgement(t, strings.Replace(groupFile, tt.old, tt.new, 1), tt.key, tt.words)
		})
	}
}

func TestAGroupTracksTogether(t *testing.T) {
	f, err := Parse("f", []byte(groupFile))
	if err != nil {
		t.Fatal(err)
	}
	n, err := f.ForNode("lb01")
	if err != nil {
		t.Fatal(err)
	}
	want := []Track{{Interface: "eth2", Weight: 101}, {Interface: "eth3"}}
	for _, v := range n.VRRP {
		if v.Group != "edge" || !slices.Equal(v.Track, want) {
			t.Errorf("%s of group %s tracks %+v", v.Name, v.Group, v.Track)
		}
	}
}

func TestAnOwnAddressJoinsNoGroup(t *testing.T) {
	text := strings.Replace(ownerFile, "priority =", "group = \"edge\"\npriority =", 1) + `[[vrrp]]
name = "b"
virtual_router_id = 8
interface = "eth1"
addresses = ["172.16.1.3/24"]
group = "edge"
priority = { lb01 = 200, lb02 = 100 }
`
	wantJudgement(t, text, "vrrp[0].group", "192.168.15.11, which is lb01's own address")
}
