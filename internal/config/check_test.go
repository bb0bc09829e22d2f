package config

import (
	"errors"
	"strings"
	"testing"
)

// nodes is the beginning of many test files, 6 lines.
const nodes = `[node.lb01]
address = "192.168.15.11"
priority = 100
[node.lb02]
address = "192.168.15.12"
priority = 90
`

// a pool and a service on it, 5 lines.
const service1 = `[[l4]]
name = "mysql"
listen = ["192.168.15.3:3306"]
servers = ["172.16.1.51:3306"]
check = { type = "mysql" }
`

func TestProblems(t *testing.T) {
	tests := []struct {
		name string
		text string
		want []string // the lines of the error, all of them
	}{
		{
			name: "everything at once",
			text: `peer = { port = 7112 }

[node.lb01]
address = "192.168.15.11"
priority = 100
[node.lb02]
address = "192.168.15.11"
priority = 256
weight = 1

[admin]
listen = "0.0.0.0:9112"
soket = "x"

[handover]
drain = 5

[[vrrp]]
name = "VI_1"
virtual_router_id = 50
addresses = ["192.168.15.3/24", "bad", 7]
advert_interval = "15ms"
priority = { lb01 = 100, lb03 = 80 }
track = [ { service = "web" }, { interface = "eth1", service = "mysql" } ]

[[l4]]
name = "mysql"
listen = "192.168.15.3:3306"
pool = "mysqll"
timeouts = { conect = "3s", idle = "8 hours", half_close = "0s" }

[[l7]]
name = "mysql"
listen = ["0.0.0.0:80", "192.168.15.3:81"]
redirect = { scheme = "https" }
max_header_size = "64k"

[[l7]]
name = "plain"
listen = ["192.168.15.3:81", "192.168.15.3:80"]
pool = "mysql"

[pool.mysql]
servers = [
  "172.16.1.51:3306",
  { address = "172.16.1.52", backup = "yes" },
]
check = { type = "tcp", path = "/", interval = "1d" }
`,
			want: []string{
				`f.toml:1:1: peer.secret_file: the link between the nodes needs a secret; let applianctl secret print one into a file, and name that file here`,
				`f.toml:7:1: node.lb02.address: 192.168.15.11 is node lb01's already`,
				`f.toml:8:1: node.lb02.priority: priority 256 is out of range; 1 to 254 are allowed, and 255 for the owner of the addresses`,
				`f.toml:9:1: node.lb02.weight: unknown key; known here: address, priority, keepalived`,
				`f.toml:12:1: admin.listen: whoever reaches 0.0.0.0:9112 would learn of all servers, clients and events; say in allow which networks may, such as ["192.168.15.0/24"], or listen on 127.0.0.1`,
				`f.toml:13:1: admin.soket: unknown key; did you mean socket?`,
				`f.toml:16:1: handover.drain: want a string such as "250ms", got integer`,
				`f.toml:21:33: vrrp[0].addresses[1]: "bad" is not an address such as "192.168.15.3/24"`,
				`f.toml:21:40: vrrp[0].addresses[2]: want a string such as "192.168.15.3/24", got integer`,
				`f.toml:22:1: vrrp[0].advert_interval: the interval must be a multiple of 10ms between 10ms and 40.95s`,
				`f.toml:23:26: vrrp[0].priority.lb03: there is no node lb03; did you mean lb01?`,
				`f.toml:24:13: vrrp[0].track[0].service: there is no service web; known: mysql, plain`,
				`f.toml:24:32: vrrp[0].track[1]: needs one of service, interface and reach`,
				`f.toml:28:1: l4[0].listen: want an array, got string; write ["192.168.15.3:3306"]`,
				`f.toml:29:1: l4[0].pool: there is no pool mysqll; did you mean mysql?`,
				`f.toml:30:14: l4[0].timeouts.conect: unknown key; did you mean connect?`,
				`f.toml:30:29: l4[0].timeouts.idle: "8 hours" is not a duration such as "250ms", "3s" or "1h30m"`,
				`f.toml:30:47: l4[0].timeouts.half_close: must not be 0; leave the key out for its default`,
				`f.toml:33:1: l7[0].name: "mysql" is the name of l4[0] already; no two services share one, l4 or l7`,
				`f.toml:36:1: l7[0].max_header_size: "64k" is not a size such as "512B", "64KiB", "1MiB" or "2GiB"`,
				`f.toml:40:11: l7[1].listen[0]: 192.168.15.3:81 is taken by l7[0].listen[1], service mysql`,
				`f.toml:40:30: l7[1].listen[1]: 192.168.15.3:80 overlaps 0.0.0.0:80, which is taken by l7[0].listen[0], service mysql`,
				`f.toml:46:5: pool.mysql.servers[1].address: "172.16.1.52" is not an address with a port, such as 172.16.1.51:3306`,
				`f.toml:46:30: pool.mysql.servers[1].backup: want true or false, got string`,
				`f.toml:48:25: pool.mysql.check.path: path belongs to checks of type http or https, not tcp`,
				`f.toml:48:37: pool.mysql.check.interval: "1d" is not a duration such as "250ms", "3s" or "1h30m"`,
			},
		},
		{
			name: "syntax errors and what else is wrong",
			text: `[node.lb01]
address = "1.2.3.4
priority = 100
[node.lb02
address = "1.2.3.5"
[[vrrp]]
name = "a" "b"
virtual_router_id = 5
addresses = [
  "1.2.3.9/24"
  "1.2.3.8/24",
]
preemt = true
version = 3.x
[pool.a]
servers = [ "1.2.3.4:80"
balance = "least_conn"
[pool.b]
balance = 1
[[l4]]
pool = tru
listen = ["1.1.1.1:80", "1.1.1.1:80"]
`,
			want: []string{
				`f.toml:2:19: node.lb01.address: strings cannot contain newlines; the quote that ends it is missing`,
				`f.toml:4:11: node.lb02: expected '.' or ']' to end table name, but got '\n' instead`,
				`f.toml:7:11: vrrp[0].name: something follows the value; only a comment may`,
				`f.toml:11:3: vrrp[0].addresses[1]: expected a comma (',') or array terminator (']'), but got '"'`,
				`f.toml:13:1: vrrp[0].preemt: unknown key; did you mean preempt?`,
				`f.toml:14:11: vrrp[0].version: Invalid float "3.": '.' must be followed by one or more digits`,
				`f.toml:17:1: pool.a.servers[1]: expected a comma (',') or array terminator (']'), but got 'b'`,
				`f.toml:19:1: pool.b.balance: want a string, got integer`,
				`f.toml:21:8: l4[0].pool: expected value but found "tru" instead; texts stand in straight quotes, as in "eth0", and the others are numbers, true and false`,
				`f.toml:22:25: l4[0].listen[1]: 1.1.1.1:80 is taken by l4[0].listen[0]`,
			},
		},
		{
			name: "duplicate keys and tables",
			text: service1 + `
name = "mysql2"
[pool.a]
servers = ["1.1.1.1:1"]
[pool.a]
servers = ["1.1.1.1:2"]
balanc = "least_conn"
[pool.b]
servers = [{ address = "1.1.1.1:1", weight = 1, weight = 2 }]
`,
			want: []string{
				`f.toml:7:1: l4[0].name: defined a second time; the first is in line 2`,
				`f.toml:10:2: pool.a: defined a second time; the first is in line 8`,
				`f.toml:14:49: pool.b.servers[0].weight: defined a second time; the first is in line 14`,
			},
		},
		{
			name: "wrong shapes",
			text: "node = 3\nvrrp = {}\n[[pool]]\n[l4]\n[[l7]]\ntls = []\nroute = ['x']\n",
			want: []string{
				`f.toml:1:1: node: want a table, got integer`,
				`f.toml:2:1: vrrp: want an array of tables, got table; write [[vrrp]] for each`,
				`f.toml:3:3: pool: want a table, got array`,
				`f.toml:4:2: l4: want an array of tables, got table; write [[l4]] for each`,
				`f.toml:5:3: l7[0].name: a service needs a name`,
				`f.toml:5:3: l7[0].listen: a service needs an address to listen on, such as ["192.168.15.3:443"]`,
				`f.toml:6:1: l7[0].tls: want a table, got array`,
				`f.toml:7:10: l7[0].route[0]: want a table, got string`,
			},
		},
		{
			name: "an empty file",
			text: "# nothing\n",
			want: []string{`f.toml:1:1: there is nothing to do: the file has neither [[vrrp]] nor a service in [[l4]] or [[l7]]`},
		},
		{
			name: "a virtual router without nodes",
			text: "[[vrrp]]\nname = 'a'\nvirtual_router_id = 1\naddresses = ['192.168.15.3']\n",
			want: []string{`f.toml:1:1: node: the nodes are missing; give each a table such as [node.lb01] with address and priority`},
		},
		{
			name: "virtual routers in each other's way",
			text: nodes + `[[vrrp]]
name = "a"
virtual_router_id = 7
interface = "eth0"
addresses = ["192.168.15.3/24", "224.0.0.1"]
[[vrrp]]
name = "a"
virtual_router_id = 7
interface = "eth0"
addresses = ["192.168.15.3", "192.168.15.12"]
[[vrrp]]
name = "c"
virtual_router_id = 7
addresses = ["192.168.15.5"]
[[vrrp]]
name = "d"
virtual_router_id = 0
interface = "eth0/1"
addresses = ["2001:db8::1"]
[[vrrp]]
name = "e"
virtual_router_id = 7
interface = "eth1"
addresses = ["192.168.15.6"]
`,
			want: []string{
				`f.toml:11:33: vrrp[0].addresses[1]: 224.0.0.1 cannot be a virtual address`,
				`f.toml:13:1: vrrp[1].name: "a" is the name of vrrp[0] already`,
				`f.toml:14:1: vrrp[1].virtual_router_id: 7 is vrrp[0]'s already, on the same interface eth0`,
				`f.toml:16:14: vrrp[1].addresses[0]: 192.168.15.3 is an address of vrrp[0] already`,
				`f.toml:16:30: vrrp[1].addresses[1]: 192.168.15.12 is node lb02's own address; a virtual address belongs to none, unless that node is its owner, with priority 255 in vrrp[1]`,
				`f.toml:19:1: vrrp[2].virtual_router_id: 7 is vrrp[0]'s already; if they are on different interfaces, name both with the key interface`,
				`f.toml:19:1: vrrp[2].virtual_router_id: 7 is vrrp[1]'s already; if they are on different interfaces, name both with the key interface`,
				`f.toml:23:1: vrrp[3].virtual_router_id: virtual router id 0 is out of range; 1 to 255 are allowed`,
				`f.toml:24:1: vrrp[3].interface: "eth0/1" cannot be the name of an interface: at most 15 bytes, no blanks or slashes`,
				`f.toml:25:14: vrrp[3].addresses[0]: the first IPv6 address must be a link-local one that no node has, such as "fe80::0/64"; put it before 2001:db8::1`,
				`f.toml:28:1: vrrp[4].virtual_router_id: 7 is vrrp[2]'s already; if they are on different interfaces, name both with the key interface`,
			},
		},
		{
			name: "peer link",
			text: nodes + `[[vrrp]]
name = "a"
virtual_router_id = 7
addresses = ["192.168.15.3/24"]
[peer]
port = 70000
heartbeat = "20ms"
`,
			want: []string{
				`f.toml:11:2: peer.secret_file: the link between the nodes needs a secret; let applianctl secret print one into a file, and name that file here`,
				`f.toml:12:1: peer.port: 70000 is no port; 1 to 65535 are`,
				`f.toml:13:1: peer.heartbeat: the heartbeat may be 50ms to 10s`,
			},
		},
		{
			name: "peer link without another node",
			text: `[node.lb01]
address = "192.168.15.11"
[peer]
secret_file = "s"
[[l4]]
name = "a"
listen = ["192.168.15.3:1"]
servers = ["10.0.0.1:1"]
`,
			want: []string{
				`f.toml:3:2: peer: there is no other node to have a link with; the file needs two [node.NAME] that run no keepalived`,
			},
		},
		{
			name: "families, unicast and checksums",
			text: `
[node.lb01]
address = "192.168.15.11"
priority = 100
[node.lb02]
address = "2001:db8::12"
priority = 90
[[vrrp]]
name = "a"
virtual_router_id = 1
version = 2
addresses = ["fe80::1", "2001:db8::3/64"]
[[vrrp]]
name = "b"
virtual_router_id = 1
addresses = ["192.168.15.3", "2001:db8::4"]
unicast = true
[[vrrp]]
name = "c"
virtual_router_id = 3
interface = "eth0"
addresses = ["fe80::5"]
checksum = "message"
[[vrrp]]
name = "d"
virtual_router_id = 4
addresses = ["fe80::6"]
checksum = "rfc"
[[vrrp]]
name = "e"
virtual_router_id = 5
addresses = ["192.168.15.6"]
version = 2
checksum = "message"
[[vrrp]]
name = "f"
virtual_router_id = 6
addresses = ["192.168.15.7", "192.168.15.11"]
interface = "eth0"
priority = { lb01 = 255 }
virtual_mac = true
[[vrrp]]
name = "g"
virtual_router_id = 7
addresses = ["fe80::8"]
interface = "eth0"
unicast = true
virtual_mac = true
[[l4]]
name = "s"
listen = ["[fe80::8%eth0]:22"]
servers = ["10.0.0.1:22"]
`,
			want: []string{
				`f.toml:11:1: vrrp[0].version: version 2 has no IPv6; leave it out, or use version = 3`,
				`f.toml:16:30: vrrp[1].addresses[1]: 2001:db8::4 is of another family than 192.168.15.3; give it a [[vrrp]] of its own, which may have the same virtual_router_id`,
				`f.toml:17:1: vrrp[1].unicast: adverts are of the family of the virtual addresses, and node lb02 has the address 2001:db8::12`,
				`f.toml:23:1: vrrp[2].checksum: there is a choice in version 3 over IPv4 alone; leave it out`,
				`f.toml:24:3: vrrp[3].interface: the interface is missing: link-local addresses do not tell it, for their subnet is on all of them`,
				`f.toml:28:1: vrrp[3].checksum: "rfc" is not a form of the checksum; "pseudo_header" and "message" are`,
				`f.toml:34:1: vrrp[4].checksum: there is a choice in version 3 over IPv4 alone; leave it out`,
				`f.toml:41:1: vrrp[5].virtual_mac: 192.168.15.11 is lb01's own address and has the hardware address of its interface; leave virtual_mac out`,
				`f.toml:47:1: vrrp[6].unicast: adverts are of the family of the virtual addresses, and node lb01 has the address 192.168.15.11`,
				`f.toml:48:1: vrrp[6].virtual_mac: a virtual MAC address needs adverts to the group, from which the switches learn where it is; leave it out, or unicast`,
				`f.toml:51:11: l4[0].listen[0]: fe80::8 has a virtual MAC address (vrrp[6]): no service can listen there; use an address of it that is not link-local`,
			},
		},
		{
			name: "versions and authentication",
			text: nodes + `[[vrrp]]
name = "a"
virtual_router_id = 7
addresses = ["192.168.15.3/24"]
authentication = { type = "pass", password = "1111" }
[[vrrp]]
name = "b"
virtual_router_id = 8
addresses = ["192.168.15.4/24"]
version = 2
advert_interval = "100ms"
authentication = { type = "pass" }
[[vrrp]]
name = "c"
virtual_router_id = 9
addresses = ["192.168.15.5/24"]
version = 2
advert_interval = "256s"
authentication = { type = "pass", password = "123456789" }
[[vrrp]]
name = "d"
virtual_router_id = 10
addresses = ["192.168.15.6/24"]
version = 2
advert_interval = "1500ms"
authentication = { password = "1111" }
[[vrrp]]
name = "e"
virtual_router_id = 11
addresses = ["192.168.15.7/24"]
version = 2
authentication = { type = "AH", password = 1111 }
[[vrrp]]
name = "f"
virtual_router_id = 12
addresses = ["192.168.15.8/24"]
version = 1
authentication = { type = "pass", password = "" }
`,
			want: []string{
				`f.toml:11:1: vrrp[0].authentication: version 3 has no authentication; leave it out, or use version = 2`,
				`f.toml:17:1: vrrp[1].advert_interval: the interval of version 2 must be whole seconds, 1s to 255s`,
				`f.toml:18:1: vrrp[1].authentication.password: type = "pass" needs a password of 1 to 8 bytes`,
				`f.toml:24:1: vrrp[2].advert_interval: the interval of version 2 must be whole seconds, 1s to 255s`,
				`f.toml:25:35: vrrp[2].authentication.password: the password has 9 bytes and an advert has room for 8; give its first 8, which is what keepalived sends of a longer one`,
				`f.toml:31:1: vrrp[3].advert_interval: the interval of version 2 must be whole seconds, 1s to 255s`,
				`f.toml:32:20: vrrp[3].authentication.password: without authentication there is no password; write type = "pass"`,
				`f.toml:38:20: vrrp[4].authentication.type: "AH" is not a type of authentication; "none" and "pass" are`,
				`f.toml:38:33: vrrp[4].authentication.password: want a string, got integer`,
				`f.toml:43:1: vrrp[5].version: there is no version 1; 2 and 3 are supported`,
				`f.toml:44:35: vrrp[5].authentication.password: must not be empty`,
			},
		},
		{
			name: "priorities",
			text: `[node.lb01]
address = "192.168.15.11"
[node.lb02]
priority = 0
address = "not one"
[node.lb03]
[[vrrp]]
name = "a"
virtual_router_id = 7
addresses = ["192.168.15.3/24"]
priority = { lb01 = 100, lb02 = 300, lb03 = "x" }
[[vrrp]]
name = "b"
virtual_router_id = 8
addresses = ["192.168.15.4/24"]
priority = "high"
[[vrrp]]
name = "c"
virtual_router_id = 9
addresses = ["192.168.15.5/24"]
`,
			want: []string{
				`f.toml:1:2: node.lb01.priority: a priority is missing, 1 to 254, as vrrp[1] has none for this node either`,
				`f.toml:1:2: node.lb01.priority: a priority is missing, 1 to 254, as vrrp[2] has none for this node either`,
				`f.toml:4:1: node.lb02.priority: must not be 0; leave the key out for its default`,
				`f.toml:5:1: node.lb02.address: "not one" is not an IP address such as "192.168.15.11"`,
				`f.toml:6:2: node.lb03.address: a node needs an address, such as "192.168.15.11"`,
				`f.toml:6:2: node.lb03.priority: a priority is missing, 1 to 254, as vrrp[0] has none for this node either`,
				`f.toml:6:2: node.lb03.priority: a priority is missing, 1 to 254, as vrrp[1] has none for this node either`,
				`f.toml:6:2: node.lb03.priority: a priority is missing, 1 to 254, as vrrp[2] has none for this node either`,
				`f.toml:11:26: vrrp[0].priority.lb02: priority 300 is out of range; 1 to 254 are allowed, and 255 for the owner of the addresses`,
				`f.toml:11:38: vrrp[0].priority.lb03: want an integer, got string`,
				`f.toml:16:1: vrrp[1].priority: want an integer, or a table such as { lb01 = 100, lb02 = 90 }, got string`,
			},
		},
		{
			name: "tracks",
			text: nodes + `[[vrrp]]
name = "a"
virtual_router_id = 7
addresses = ["192.168.15.3/24"]
track = [
  { service = "mysql", weight = 300 },
  { service = "plain" },
  { interface = "a very long interface" },
  { service = "mysql" },
  { weight = 0 },
]
` + service1 + `[[l7]]
name = "plain"
listen = ["192.168.15.3:80"]
redirect = { scheme = "https" }
`,
			want: []string{
				`f.toml:12:24: vrrp[0].track[0].weight: weight 300 is out of range; 1 to 253 are allowed, to be taken off the priority`,
				`f.toml:13:5: vrrp[0].track[1].service: service plain forwards to no servers; there is nothing to track`,
				`f.toml:14:5: vrrp[0].track[2].interface: "a very long interface" cannot be the name of an interface: at most 15 bytes, no blanks or slashes`,
				`f.toml:15:3: vrrp[0].track[3]: is the same as track[0]`,
				`f.toml:16:5: vrrp[0].track[4].weight: must not be 0; leave the key out for its default`,
			},
		},
		{
			name: "pools and servers",
			text: service1 + `[[l4]]
name = "a"
listen = ["10.0.0.1:1"]
pool = "a"
check = { type = "tcp" }
[[l4]]
name = "b"
listen = [":2", "10.0.0.1:0"]
servers = ["one", { addres = "10.0.0.1:2" }, { address = "10.0.0.1:3", name = "s" }, { address = "10.0.0.1:4", name = "s" }]
check = { type = "ping" }
[[l4]]
name = "c"
listen = ["10.0.0.1:3"]
servers = ["10.0.0.1:3"]
[[l7]]
name = "d"
listen = ["10.0.0.1:4"]
route = [{ pool = "b" }, { paths = ["x"], pool = "a" }, {}]
[pool.a]
balance = ""
servers = ["10.0.0.1:4"]
check = {}
[pool.c]
servers = []
`,
			want: []string{
				`f.toml:10:1: l4[1].check: a check goes with servers of the service's own; the check of a pool stands in the pool's table`,
				`f.toml:13:11: l4[2].listen[0]: ":2" is not an address with a port such as "192.168.15.3:3306"; for all addresses write "0.0.0.0:2" or "[::]:2"`,
				`f.toml:13:17: l4[2].listen[1]: the port must be between 1 and 65535`,
				`f.toml:14:12: l4[2].servers[0].address: "one" is not an address with a port, such as 172.16.1.51:3306`,
				`f.toml:14:21: l4[2].servers[1].addres: unknown key; did you mean address?`,
				`f.toml:14:48: l4[2].servers[2].address: 10.0.0.1:3 is where the appliance itself listens (l4[3].listen[0], service c); a connection would come back to it`,
				`f.toml:14:88: l4[2].servers[3].address: 10.0.0.1:4 is where the appliance itself listens (l7[0].listen[0], service d); a connection would come back to it`,
				`f.toml:14:112: l4[2].servers[3].name: server "s" is already servers[2]; names in a pool must differ`,
				`f.toml:15:11: l4[2].check.type: unknown check type "ping"; known: tcp, tls, http, https, grpc, mysql, postgres, redis, smtp, ssh, dns, udp, icmp`,
				`f.toml:19:1: l4[3].servers: the service's own servers make a pool of its name, but there is a [pool.c] too`,
				`f.toml:19:12: l4[3].servers[0].address: 10.0.0.1:3 is where the appliance itself listens (l4[3].listen[0], service c); a connection would come back to it`,
				`f.toml:23:12: l7[0].route[0].pool: there is no pool b; known: a, c`,
				`f.toml:23:37: l7[0].route[1].paths[0]: "x" does not begin with a slash; "= /x" is one path alone, "~ ^/x" a regular expression`,
				`f.toml:23:57: l7[0].route[2].pool: a route needs one of pool, redirect, respond and files`,
				`f.toml:25:1: pool.a.balance: must not be empty`,
				`f.toml:26:12: pool.a.servers[0].address: 10.0.0.1:4 is where the appliance itself listens (l7[0].listen[0], service d); a connection would come back to it`,
				`f.toml:27:1: pool.a.check.type: a check needs a type: tcp, tls, http, https, grpc, mysql, postgres, redis, smtp, ssh, dns, udp or icmp`,
				`f.toml:29:1: pool.c.servers: a pool needs at least one server`,
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantProblems(t, tt.text, tt.want) })
	}
}

func wantProblems(t *testing.T, text string, want []string) {
	t.Helper()
	_, err := Parse("f.toml", []byte(text))
	var problems Problems
	if !errors.As(err, &problems) {
		t.Fatalf("got %v instead of problems", err)
	}
	got := strings.Split(problems.Error(), "\n")
	for i := range max(len(got), len(want)) {
		var g, w string
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Fatalf("problem %d\n got %s\nwant %s\nof all\n%s", i, g, w, problems)
		}
	}
}
