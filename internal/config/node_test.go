package config

import (
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"appliance/health"
	"appliance/internal/pool"
	"appliance/vrrp"
)

const pair = `
[node.lb01]
address = "192.168.15.11"
priority = 100
[node.lb02]
address = "192.168.15.12"
priority = 90

[handover]
drain = "3s"

[[vrrp]]
name = "VI_1"
virtual_router_id = 50
addresses = ["192.168.15.3/24", "192.168.15.4"]
interface = "eth0"
preempt = false
priority = { lb02 = 80 }
track = [ { service = "web" }, { service = "ssh", weight = 30 }, { interface = "eth1" }, { interface = "eth2", weight = 5 } ]

[[vrrp]]
name = "VI_2"
virtual_router_id = 51
addresses = ["192.168.15.5"]
advert_interval = "2s"
version = 2
authentication = { type = "pass", password = "12345678" }
track = [ { service = "ssh" } ]

[[l4]]
name = "ssh"
listen = ["192.168.15.3:1122"]
servers = ["172.16.1.5:22"]
check = { type = "tcp" }

[[l7]]
name = "web"
listen = ["192.168.15.3:80"]
pool = "django"
route = [ { paths = ["/forum"], pool = "forum" } ]

[pool.django]
servers = ["172.16.1.11:8000"]
[pool.forum]
servers = ["172.16.1.21:8000"]
check = { type = "tcp", interval = "5s", timeout = "2s", jitter = "1s" }
[pool.unused]
servers = ["172.16.1.21:8000"]
check = { type = "tcp", interval = "1h" }
`

func mustParse(t *testing.T, text string) *File {
	t.Helper()
	f, err := Parse("/etc/appliance/appliance.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestForNode(t *testing.T) {
	n, err := mustParse(t, pair).ForNode("lb02")
	if err != nil {
		t.Fatal(err)
	}
	first, second := netip.MustParseAddr("192.168.15.11"), netip.MustParseAddr("192.168.15.12")
	if n.Name != "lb02" || n.Address != second {
		t.Errorf("node %s, %s", n.Name, n.Address)
	}
	want := []VRRPNode{{
		Config: vrrp.Config{
			Name: "VI_1", VRID: 50, Interface: "eth0", Version: 3, AdvertInterval: time.Second,
			Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.15.3/24"), netip.MustParsePrefix("192.168.15.4/32")},
			Priority:  80,
			Peers:     []vrrp.Peer{{Name: "lb01", Address: first, Priority: 100}},
			Settle:    12100 * time.Millisecond, // the check of forum, one of web's pools
			Drain:     3 * time.Second,
		},
		// web weighs the gap of 20 and 1
		Track: []Track{{Service: "web", Weight: 21}, {Service: "ssh", Weight: 30}, {Interface: "eth1"}, {Interface: "eth2", Weight: 5}},
	}, {
		Config: vrrp.Config{
			Name: "VI_2", VRID: 51, Version: 2, AdvertInterval: 2 * time.Second, Preempt: true,
			Authentication: vrrp.Authentication{Type: vrrp.AuthenticatePass, Password: "12345678"},
			Addresses:      []netip.Prefix{netip.MustParsePrefix("192.168.15.5/32")},
			Priority:       90,
			Peers:          []vrrp.Peer{{Name: "lb01", Address: first, Priority: 100}},
			Settle:         health.Config{}.Skew(), // of ssh's own servers
			Drain:          3 * time.Second,
		},
		Track: []Track{{Service: "ssh", Weight: 11}},
	}}
	if !reflect.DeepEqual(n.VRRP, want) {
		t.Errorf("got  %+v\nwant %+v", n.VRRP, want)
	}
	if len(n.L4) != 1 || n.L4[0].Name != "ssh" || len(n.L7) != 1 || n.L7[0].Name != "web" {
		t.Errorf("services %+v %+v", n.L4, n.L7)
	}
	if got := n.Admin.Socket; got != "/run/appliance/control.sock" {
		t.Errorf("socket %s", got)
	}
}

// Every pool that a service names is there, under the name it carries itself.
func TestForNodePools(t *testing.T) {
	n, err := mustParse(t, pair).ForNode("lb01")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"django", "forum", "unused", "ssh"} {
		if n.Pools[name].Name != name {
			t.Errorf("pool %s is %+v", name, n.Pools[name])
		}
		if p := n.Pools[name]; p.Checked != (p.Check != nil) {
			t.Errorf("pool %s: checked is %v, its check %v", name, p.Checked, p.Check)
		}
	}
	if len(n.Pools) != 4 {
		t.Errorf("pools %v", n.Pools)
	}
	own := Pool{
		Config: pool.Config{Name: "ssh", Servers: []pool.ServerConfig{{Address: "172.16.1.5:22"}}, Checked: true},
		Check:  &health.Config{Type: health.TCP},
	}
	if !reflect.DeepEqual(n.Pools["ssh"], own) {
		t.Errorf("ssh's own pool is %+v", n.Pools["ssh"])
	}
}

func TestNodeName(t *testing.T) {
	_, err := mustParse(t, pair).ForNode("lb03")
	want := "/etc/appliance/appliance.toml has no node lb03; its nodes: lb01, lb02; choose one with --node"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}

	host, err := os.Hostname()
	if err != nil {
		t.Skip(err)
	}
	elsewhere := strings.NewReplacer("lb01", "some-other-host", "lb02", "not-this-host").Replace(pair)
	if _, err := mustParse(t, elsewhere).ForNode(""); err == nil || !strings.Contains(err.Error(), host) || !strings.Contains(err.Error(), "--node") {
		t.Errorf("a host of another name: %v", err)
	}
	label, _, _ := strings.Cut(host, ".")
	n, err := mustParse(t, strings.ReplaceAll(elsewhere, "not-this-host", `"`+label+`"`)).ForNode("")
	if err != nil || n.Name != label {
		t.Errorf("by host name: %v, %v", n, err)
	}
	n, err = mustParse(t, service1).ForNode("anything")
	if err != nil || n.Name != "anything" {
		t.Errorf("without nodes: %v, %v", n, err)
	}
}

func TestHash(t *testing.T) {
	a, again, other := mustParse(t, service1), mustParse(t, service1), mustParse(t, service1+"\n")
	if a.Hash != again.Hash || a.Hash == other.Hash || len(a.Hash) != 64 {
		t.Errorf("hashes %s, %s, %s", a.Hash, again.Hash, other.Hash)
	}
}

func TestANodeThatRunsKeepalived(t *testing.T) {
	f, err := Parse("f", []byte(strings.Replace(nodes, "priority = 90", "priority = 90\nkeepalived = true", 1)+
		"[[vrrp]]\nname = 'a'\nvirtual_router_id = 7\naddresses = ['192.168.15.3/24']\n"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := f.ForNode("lb01")
	if err != nil || !n.VRRP[0].Peers[0].Keepalived {
		t.Errorf("%+v, %v", n, err)
	}
	if _, err := f.ForNode("lb02"); err == nil || !strings.Contains(err.Error(), "take node.lb02.keepalived out") {
		t.Errorf("as the other node: %v", err)
	}
}
