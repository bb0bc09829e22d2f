package config

import (
	"strings"
	"testing"
)

// judge returns the problems of a file without the name of the file.
func judge(text string) string {
	_, err := Parse("f", []byte(text))
	if err == nil {
		return ""
	}
	return err.Error()
}

// wantJudgement fails the test unless text has exactly one problem, with key and
// words, or none when key is empty.
func wantJudgement(t *testing.T, text, key, words string) {
	t.Helper()
	got := judge(text)
	switch {
	case key == "" && got != "":
		t.Errorf("refused: %s", got)
	case key != "" && (strings.Count(got, "\n") > 0 || !strings.Contains(got, ": "+key+": ") || !strings.Contains(got, words)):
		t.Errorf("got %q, want one problem of %s: %s", got, key, words)
	}
}

func TestUsableAddresses(t *testing.T) {
	const many, zone, which = "many machines", "write fe80::1%eth0", "say which machine"
	tests := []struct{ address, listen, server string }{ // why it cannot be one
		{"10.0.0.1:80", "", ""},
		{"[2001:db8::1]:80", "", ""},
		{"127.0.0.1:80", "", ""},
		{"169.254.1.1:80", "", ""},
		{"[fe80::1%eth0]:80", "", ""},
		{"0.0.0.0:80", "", which},
		{"[::]:80", "", which},
		{"[::ffff:0.0.0.0]:80", "", which},
		{"[fe80::1]:80", zone, zone},
		{"224.0.0.18:80", many, many},
		{"239.255.255.255:80", many, many},
		{"[::ffff:224.0.0.1]:80", many, many},
		{"[ff02::1]:80", many, many},
		{"[ff02::1%eth0]:80", many, many},
		{"255.255.255.255:80", many, many},
	}
	keyIf := func(why, key string) string {
		if why == "" {
			return ""
		}
		return key
	}
	for _, tt := range tests {
		t.Run(tt.address, func(t *testing.T) {
			wantJudgement(t, "[[l4]]\nname = 'a'\nlisten = ['"+tt.address+"']\nservers = ['10.1.1.1:81']\n",
				keyIf(tt.listen, "l4[0].listen[0]"), tt.listen)
			wantJudgement(t, "[[l7]]\nname = 'a'\nlisten = ['10.1.1.1:81']\nservers = ['"+tt.address+"']\n",
				keyIf(tt.server, "l7[0].servers[0].address"), tt.server)
			wantJudgement(t, service1+"[pool.x]\nservers = ['"+tt.address+"']\n",
				keyIf(tt.server, "pool.x.servers[0].address"), tt.server)
		})
	}
}

func TestServersThatAreTheAppliance(t *testing.T) {
	const router = "[[vrrp]]\nname = 'v'\nvirtual_router_id = 7\naddresses = ['192.168.15.3/24', '192.168.15.4/24']\n"
	tests := []struct {
		name, listen, server string
		own                  bool
	}{
		{"the same address", "192.168.15.3:80", "192.168.15.3:80", true},
		{"the same address, mapped", "192.168.15.3:80", "[::ffff:192.168.15.3]:80", true},
		{"another port", "192.168.15.3:80", "192.168.15.3:81", false},
		{"another machine", "0.0.0.0:80", "192.168.15.5:80", false},
		{"the loopback", "0.0.0.0:80", "127.0.0.1:80", true},
		{"any loopback", "0.0.0.0:80", "127.8.8.8:80", true},
		{"the loopback of the other family", "0.0.0.0:80", "[::1]:80", false},
		{"the loopback of IPv6", "[::]:80", "[::1]:80", true},
		{"this node", "0.0.0.0:80", "192.168.15.11:80", true},
		{"the other node", "0.0.0.0:80", "192.168.15.12:80", true},
		{"a server on a node", "0.0.0.0:80", "192.168.15.12:8000", false},
		{"a server on a node beside a listener", "192.168.15.3:80", "192.168.15.12:80", false},
		{"a virtual address", "0.0.0.0:80", "192.168.15.4:80", true},
		{"a virtual address that the service does not listen on", "192.168.15.3:80", "192.168.15.4:80", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			key := ""
			if tt.own {
				key = "pool.web.servers[1].address"
			}
			// The service that listens is not the one that uses the pool.
			wantJudgement(t, nodes+router+"[[l7]]\nname = 'front'\nlisten = ['"+tt.listen+"']\nredirect = { scheme = 'https' }\n"+
				"[[l7]]\nname = 'web'\nlisten = ['192.168.15.3:443']\npool = 'web'\n"+
				"[pool.web]\nservers = ['172.16.1.1:80', '"+tt.server+"']\n",
				key, "where the appliance itself listens (l7[0].listen[0], service front)")
		})
	}
}

func TestVirtualAddresses(t *testing.T) {
	const network, last = "the address of the network", "the broadcast address of the network"
	for _, tt := range []struct{ address, why string }{
		{"192.168.15.3/24", ""},
		{"192.168.15.3", ""},
		{"192.168.15.0/24", network},
		{"192.168.15.255/24", last},
		{"192.168.14.255/23", ""},
		{"192.168.15.0/23", ""},
		{"192.168.15.255/23", last + " 192.168.14.0/23"},
		{"192.168.14.0/23", network},
		{"10.0.0.4/30", network},
		{"10.0.0.7/30", last + " 10.0.0.4/30"},
		{"10.0.0.4/31", ""},
		{"10.0.0.5/31", ""},
		{"10.0.0.0/32", ""},
		{"10.0.0.255/32", ""},
		{"10.255.255.255/8", last},
		{"10.0.0.1/0", "such as 10.0.0.1/24"},
		{"255.255.255.255", "cannot be a virtual address"},
	} {
		t.Run(tt.address, func(t *testing.T) {
			key := ""
			if tt.why != "" {
				key = "vrrp[0].addresses[0]"
			}
			wantJudgement(t, nodes+"[[vrrp]]\nname = 'v'\nvirtual_router_id = 7\naddresses = ['"+tt.address+"']\n", key, tt.why)
		})
	}
}

// A tracked service must be able to fail.
func TestTrackedServiceWithoutCheck(t *testing.T) {
	const head = nodes + "[[vrrp]]\nname = 'v'\nvirtual_router_id = 7\naddresses = ['192.168.15.3/24']\ntrack = [{ service = 'web' }]\n" +
		"[[l7]]\nname = 'web'\nlisten = ['192.168.15.3:80']\n"
	const pools = "[pool.a]\nservers = ['172.16.1.1:80']\n[pool.b]\nservers = ['172.16.1.2:80']\n"
	const routes = "route = [{ paths = ['/a'], pool = 'a' }]\npool = 'b'\n"
	const at = "vrrp[0].track[0].service"
	for name, tt := range map[string]struct{ text, key, words string }{
		"one pool":                {"pool = 'a'\n" + pools, at, "add a check to pool a"},
		"one pool with a check":   {"pool = 'b'\n" + pools + "check = { type = 'tcp' }\n", "", ""},
		"two pools":               {routes + pools, at, "service web cannot fail"},
		"one check of two":        {routes + pools + "check = { type = 'tcp' }\n", "", ""},
		"own servers":             {"servers = ['172.16.1.1:80']\n", at, "add a check to the service"},
		"own servers and a check": {"servers = ['172.16.1.1:80']\ncheck = { type = 'tcp' }\n", "", ""},
		"own servers and a route": {"servers = ['172.16.1.1:80']\nroute = [{ paths = ['/a'], pool = 'a' }]\n" + pools, at, "add a check to pool a"},
		"a pool that is missing":  {"pool = 'c'\n" + pools, "l7[0].pool", "there is no pool c"},
		"a check that is misspelt": {"pool = 'b'\n" + pools + "chek = { type = 'tcp' }\n",
			"pool.b.chek", "did you mean check?"},
		"a check that is none": {"pool = 'b'\n" + pools + "check = 7\n", "pool.b.check", "want a table"},
		"a line before it that is none": {"pool = 'b'\n" + pools + "balance = = 'x'\ncheck = { type = 'tcp' }\n",
			"pool.b.balance", "expected"},
	} {
		t.Run(name, func(t *testing.T) { wantJudgement(t, head+tt.text, tt.key, tt.words) })
	}
}
