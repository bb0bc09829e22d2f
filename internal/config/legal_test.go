package config

import (
	"strings"
	"testing"
)

func TestWeightsThatMoveNothing(t *testing.T) {
	tests := []struct {
		name       string
		priorities string
		track      string
		want       string // the message about vrrp[0].track, if any
	}{
		{"enough", "{ lb01 = 100, lb02 = 90 }", "{ service = 'mysql', weight = 11 }", ""},
		{"a tie is not below", "{ lb01 = 100, lb02 = 90 }", "{ service = 'mysql', weight = 10 }",
			"can never move the addresses: all weights together take 10 off lb01's 100, which must fall below lb02's 90; more than 10 is needed"},
		{"enough only together", "{ lb01 = 100, lb02 = 90 }", "{ service = 'mysql', weight = 6 }, { interface = 'eth1', weight = 5 }", ""},
		{"a fault is no weight", "{ lb01 = 100, lb02 = 90 }", "{ service = 'mysql', weight = 6 }, { interface = 'eth1' }",
			"can never move the addresses: all weights together take 6 off lb01's 100, which must fall below lb02's 90; more than 10 is needed"},
		{"a fault alone", "{ lb01 = 100, lb02 = 1 }", "{ interface = 'eth1' }", ""},
		{"the default crosses any gap", "{ lb01 = 254, lb02 = 2 }", "{ service = 'mysql' }", ""},
		{"nothing is below 1", "{ lb01 = 100, lb02 = 1 }", "{ service = 'mysql' }",
			"can never move the addresses: nothing falls below lb02, which has priority 1; give it more"},
		{"equal nodes", "100", "{ service = 'mysql', weight = 1 }", ""},
		{"the larger node is the second", "{ lb01 = 50, lb02 = 200 }", "{ service = 'mysql', weight = 100 }",
			"can never move the addresses: all weights together take 100 off lb02's 200, which must fall below lb01's 50; more than 150 is needed"},
		{"the nodes' own priorities", "{}", "{ service = 'mysql', weight = 5 }",
			"can never move the addresses: all weights together take 5 off lb01's 100, which must fall below lb02's 90; more than 10 is needed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := nodes + "[[vrrp]]\nname = 'a'\nvirtual_router_id = 7\naddresses = ['192.168.15.3/24']\n" +
				"priority = " + tt.priorities + "\ntrack = [ " + tt.track + " ]\n" + service1
			if tt.want != "" {
				wantProblems(t, text, []string{"f.toml:12:1: vrrp[0].track: " + tt.want})
				return
			}
			if _, err := Parse("f.toml", []byte(text)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLegalFiles(t *testing.T) {
	router := "[[vrrp]]\nname = 'a'\nvirtual_router_id = 7\naddresses = ['192.168.15.3/24']\n"
	tests := []struct{ name, text string }{
		{"an election alone", nodes + router},
		{"services alone", service1},
		{"one node", "[node.lb01]\naddress = '1.1.1.1'\npriority = 100\n" + router + "track = [{ service = 'mysql', weight = 1 }]\n" + service1},
		{"priorities only where they are used", "[node.lb01]\naddress = '1.1.1.1'\n[node.lb02]\naddress = '1.1.1.2'\n" + router + "priority = 100\n"},
		{"version 2 without authentication", nodes + router + "version = 2\nadvert_interval = '255s'\n"},
		{"version 2 that says it has none", nodes + router + "version = 2\nauthentication = { type = 'none' }\n"},
		{"version 3 that says it has none", nodes + router + "authentication = { type = 'none' }\n"},
		{"one identifier on two interfaces", nodes + router + "interface = 'eth0'\n" +
			"[[vrrp]]\nname = 'b'\nvirtual_router_id = 7\naddresses = ['10.0.0.3/24']\ninterface = 'eth1'\n"},
		{"one port on two addresses", service1 + "[[l4]]\nname = 'b'\nlisten = ['192.168.15.4:3306', '[::]:3306']\nservers = ['172.16.1.5:22']\n"},
		{"a byte order mark", "\xef\xbb\xbf" + service1},
		{"carriage returns", strings.ReplaceAll(service1, "\n", "\r\n")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Parse("f.toml", []byte(tt.text)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTypeNames(t *testing.T) {
	wantProblems(t, service1+`protocol = 1.5
pool = true
timeouts = 2026-01-02
[pool.""]
[[pool.a.servers]]
address = [1]
weight = "two"
[[pool.a.servers]]
address = "172.16.1.1:1"
backup = {}
`, []string{
		`f.toml:6:1: l4[0].protocol: want a string, got float`,
		`f.toml:7:1: l4[0].pool: want a string, got boolean`,
		`f.toml:8:1: l4[0].timeouts: want a table, got date or time`,
		`f.toml:9:2: pool."": the name is empty`,
		`f.toml:11:1: pool.a.servers[0].address: want a string, got array`,
		`f.toml:12:1: pool.a.servers[0].weight: want an integer, got string`,
		`f.toml:15:1: pool.a.servers[1].backup: want true or false, got table`,
	})
}
