package config

import (
	"strings"
	"testing"
)

// Who comes from keepalived, nginx or HAProxy is told what their words are called
// here, once, and not also that something is missing.
func TestForeignWords(t *testing.T) {
	const good = `
[node.lb01]
address  = "192.168.15.11"
priority = 100
[node.lb02]
address  = "192.168.15.12"
priority = 90
[[vrrp]]
name = "VI_1"
virtual_router_id = 50
addresses = ["192.168.15.3/24"]
[[l7]]
name = "web"
listen = ["192.168.15.3:443"]
pool = "django"
[pool.django]
servers = ["172.16.1.21:8000"]
`
	tests := []struct {
		old, new string
		want     string
	}{
		{`addresses = [`, `virtual_ipaddress = [`, `f.toml:11:1: vrrp[0].virtual_ipaddress: unknown key; write addresses = ["192.168.15.3/24"]`},
		{`virtual_router_id`, `router_id`, `f.toml:10:1: vrrp[0].router_id: unknown key; did you mean virtual_router_id?`},
		{`name = "VI_1"`, "name = \"VI_1\"\nnopreempt = true", `f.toml:10:1: vrrp[0].nopreempt: unknown key; write preempt = false`},
		{`name = "VI_1"`, "name = \"VI_1\"\nstate = \"MASTER\"", `f.toml:10:1: vrrp[0].state: unknown key; there is no first state: the priorities of the nodes decide; leave it out`},
		{`pool = "django"`, `proxy_pass = "http://django"`, `f.toml:15:1: l7[0].proxy_pass: unknown key; name a pool, pool = "NAME", whose table [pool.NAME] has the servers`},
		{`listen = [`, `bind = [`, `f.toml:14:1: l7[0].bind: unknown key; write listen = ["192.168.15.3:443"]`},
		{`servers = ["172.16.1.21:8000"]`, "servers = [\"172.16.1.21:8000\"]\nmax-fails = 3", `f.toml:18:1: pool.django.max-fails: unknown key; how often a check fails until a server is down: check = { fall = 3 }; connections of clients that fail: outlier = { consecutive_failures = 5 }`},
		{`pool = "django"`, `pool = "django";`, `f.toml:15:16: l7[0].pool: a line has no ; at its end`},
		{`pool = "django"`, "pool = \"django\"\nlocation / {", `f.toml:16:10: l7[0].location: a line must be NAME = VALUE, or begin a table such as [pool.web]; nginx's location is a table [[l7.route]] with paths`},
		{`name = "web"`, "name = \u201cweb\u201d", "f.toml:13:8: l7[0].name: expected value but found '\u201c' instead; texts stand in straight quotes, as in \"eth0\", and the others are numbers, true and false"},
		// What the pair is called is not what it lacks, if the table cannot be read.
		{"[pool.django]", "[[pool]]\nname = \"django\"", "f.toml:16:3: pool: want a table, got array"},
	}
	for _, tt := range tests {
		text := strings.Replace(good, tt.old, tt.new, 1)
		if text == good {
			t.Fatalf("the file has no %q", tt.old)
		}
		t.Run(tt.new, func(t *testing.T) { wantProblems(t, text, []string{tt.want}) })
	}
}

// The appliance must not ask itself, nor listen where it waits for the other node.
func TestOwnPlaces(t *testing.T) {
	wantProblems(t, `
[node.lb01]
address  = "192.168.15.11"
priority = 100
[node.lb02]
address  = "192.168.15.12"
priority = 90
[peer]
secret_file = "x"
[[vrrp]]
name = "VI_1"
virtual_router_id = 50
addresses = ["192.168.15.3/24"]
[[l4]]
name = "a"
listen = ["192.168.15.3:80", "0.0.0.0:7112"]
servers = ["172.16.1.1:1"]
check = { type = "tcp", address = "192.168.15.3", port = 80 }
`, []string{
		`f.toml:16:30: l4[0].listen[1]: 0.0.0.0:7112 overlaps 192.168.15.11:7112, where node lb01 listens for the other one; choose another port here or in [peer]`,
		`f.toml:18:25: l4[0].check.address: 192.168.15.3:80 is where the appliance itself listens (l4[0].listen[0], service a); a connection would come back to it`,
	})
}
