package config

import (
	"slices"
	"testing"
)

// virtual has a virtual router with two addresses, 4 lines after nodes.
const virtual = nodes + `[[vrrp]]
name = "VI_1"
virtual_router_id = 50
addresses = ["192.168.15.3/24", "192.168.15.4/24"]
`

func TestWhatTheKernelPathCannotDoIsRefused(t *testing.T) {
	wantProblems(t, virtual+`[kernel]
flows = 100
[[l4]]
name = "a"
mode = "kernel"
listen = ["192.168.15.3:1", "192.168.15.9:1"]
pool = "a"
max_connections = 5
accept_proxy = { from = ["10.0.0.0/8"] }
per_client = { rate = 5 }
[[l4]]
name = "b"
mode = "kernel"
forward = "direct"
protocol = "udp"
listen = ["192.168.15.4:53"]
responses = 1
servers = ["172.16.1.5:53", { name = "again", address = "172.16.1.5:53" }, "172.16.1.5:54", "[2001:db8::1]:53", "127.0.0.1:53", "name.example:53"]
[[l4]]
name = "c"
mode = "kernel"
listen = ["0.0.0.0:7"]
servers = ["172.16.1.5:53"]
[[l4]]
name = "d"
forward = "nat"
listen = ["192.168.15.3:9"]
servers = ["172.16.1.5:53"]
[[l4]]
name = "e"
mode = "bpf"
forward = "tunnel"
listen = ["192.168.15.3:10"]
servers = ["172.16.1.5:53"]
[pool.a]
balance = "least_conn"
queue = 5
send_proxy = "v2"
outlier = {}
servers = [{ address = "172.16.1.5:1", max_connections = 7 }, { address = "unix:/run/a.sock", send_proxy = "none" }]
`, []string{
		`f.toml:12:1: kernel.flows: 100 is out of range; 1024 to 4194304 are allowed`,
		`f.toml:16:29: l4[0].listen[1]: service a has mode = "kernel": the kernel path serves virtual addresses, and no [[vrrp]] has 192.168.15.9` + suffix,
		`f.toml:18:1: l4[0].max_connections: service a has mode = "kernel": the kernel path does not bound the connections of a service` + suffix,
		`f.toml:19:1: l4[0].accept_proxy: service a has mode = "kernel": the kernel path does not read what clients send, so it knows no PROXY header` + suffix,
		`f.toml:20:1: l4[0].per_client: service a has mode = "kernel": the kernel path does not bound what one client gets` + suffix,
		`f.toml:28:47: l4[1].servers[1].address: service b has mode = "kernel": the kernel path tells servers apart by their addresses, and another one of the pool has this one` + suffix,
		`f.toml:28:76: l4[1].servers[2].address: service b has mode = "kernel": with forward = "direct" packets are not changed; the server's port must be that of 192.168.15.4:53` + suffix,
		`f.toml:28:93: l4[1].servers[3].address: service b has mode = "kernel": the kernel path does not turn IPv4 into IPv6, or back; 192.168.15.4 is of the other family` + suffix,
		`f.toml:28:113: l4[1].servers[4].address: service b has mode = "kernel": the kernel path carries packets to other machines, not to this one` + suffix,
		`f.toml:32:11: l4[2].listen[0]: service c has mode = "kernel": the kernel path serves virtual addresses one by one, not all addresses of the machine` + suffix,
		`f.toml:36:1: l4[3].forward: the proxy makes connections of its own; forward goes with mode = "kernel" or "auto"`,
		`f.toml:41:1: l4[4].mode: unknown mode "bpf"; known: proxy, kernel, auto`,
		`f.toml:42:1: l4[4].forward: unknown word "tunnel"; known: nat, dnat, direct`,
		`f.toml:46:1: pool.a.balance: service a has mode = "kernel": the kernel path chooses by a hash, as round_robin and source_hash allow; it does not know what least_conn asks for` + suffix,
		`f.toml:47:1: pool.a.queue: service a has mode = "kernel": the kernel path has no connections wait` + suffix,
		`f.toml:48:1: pool.a.send_proxy: service a has mode = "kernel": the kernel path adds nothing to what clients send, so no PROXY header` + suffix,
		`f.toml:49:1: pool.a.outlier: service a has mode = "kernel": the kernel path does not see which connections fail` + suffix,
		`f.toml:50:40: pool.a.servers[0].max_connections: service a has mode = "kernel": the kernel path does not bound the connections of a server` + suffix,
		`f.toml:50:65: pool.a.servers[1].address: service a has mode = "kernel": the kernel path carries packets; a unix socket takes none` + suffix,
	})
}

const suffix = `; take that out, or give the service mode = "auto", which runs it on the proxy`

func TestAutoSaysWhatKeepsAServiceOnTheProxy(t *testing.T) {
	f, err := Parse("f.toml", []byte(virtual+`[[l4]]
name = "bounded"
mode = "auto"
listen = ["192.168.15.3:1"]
max_connections = 5
pool = "a"
[[l4]]
name = "free"
mode = "auto"
forward = "dnat"
listen = ["192.168.15.4:1"]
servers = ["172.16.1.5:53"]
[pool.a]
balance = "first"
servers = ["172.16.1.5:53"]
`))
	if err != nil {
		t.Fatal(err)
	}
	n, err := f.ForNode("lb01")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"l4[0].max_connections: the kernel path does not bound the connections of a service",
		"pool.a.balance: the kernel path chooses by a hash, as round_robin and source_hash allow; it does not know what first asks for",
	}
	if got := n.OnProxy["bounded"]; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if len(n.OnProxy) != 1 {
		t.Errorf("%q", n.OnProxy)
	}
}
