package config

import "testing"

func TestSendProxyOfServicesThatSendNone(t *testing.T) {
	wantProblems(t, `[[l4]]
name = "told"
listen = ["10.0.0.1:1"]
pool = "told"
[[l4]]
name = "names"
protocol = "udp"
listen = ["10.0.0.1:53"]
servers = [{ address = "10.0.1.1:53", send_proxy = "v2" }, { address = "10.0.1.2:53", send_proxy = "none" }]
[[l7]]
name = "web"
listen = ["10.0.0.1:80"]
pool = "web"
forward_auth = { pool = "auth", path = "/auth" }
[[l7]]
name = "web2"
listen = ["10.0.0.1:81"]
pool = "web"
[pool.told]
send_proxy = "v1"
servers = ["10.0.1.1:1"]
[pool.web]
send_proxy = "v2"
servers = [{ address = "10.0.1.1:80", send_proxy = "none" }, "10.0.1.2:80"]
[pool.auth]
servers = [{ address = "10.0.1.3:80", send_proxy = "v1" }]
`, []string{
		`f.toml:9:39: l4[1].servers[0].send_proxy: service names uses this pool, and only TCP services of [[l4]] send a PROXY header; give it a pool without send_proxy`,
		`f.toml:23:1: pool.web.send_proxy: service web uses this pool, and only TCP services of [[l4]] send a PROXY header; give it a pool without send_proxy`,
		`f.toml:26:39: pool.auth.servers[0].send_proxy: service web uses this pool, and only TCP services of [[l4]] send a PROXY header; give it a pool without send_proxy`,
	})
}

func TestUnixSocketServers(t *testing.T) {
	wantProblems(t, `[[l4]]
name = "names"
protocol = "udp"
listen = ["10.0.0.1:53"]
servers = ["unix:/run/names.sock"]
[[l4]]
name = "a"
listen = ["10.0.0.1:1"]
pool = "a"
[[l4]]
name = "b"
listen = ["10.0.0.1:2"]
servers = ["unix:app.sock", "unix:/run/b.sock", "unix:/run//b.sock"]
check = { type = "icmp" }
[pool.a]
servers = ["unix:/run/a.sock"]
check = { type = "tcp", port = 80 }
[pool.c]
servers = ["unix:/run/a.sock"]
check = { type = "dns", query = "a.example", address = "10.0.0.9" }
[pool.d]
servers = ["unix:/run/a.sock"]
check = { type = "http", address = "10.0.0.9", port = 80 }
[pool.e]
servers = ["unix:/run/appliance/control.sock"]
`, []string{
		`f.toml:5:12: l4[0].servers[0].address: service names is a UDP service; servers on unix sockets take no datagrams`,
		`f.toml:13:12: l4[2].servers[0].address: "unix:app.sock" has no absolute path; write it as in unix:/run/app.sock`,
		`f.toml:14:11: l4[2].check.type: a server on a unix socket answers no echo; choose another type, or say with address which machine is meant`,
		`f.toml:17:1: pool.a.check: a server on a unix socket has neither address nor port; the check needs both of them or none`,
		`f.toml:20:11: pool.c.check.type: a server on a unix socket takes no datagrams; choose another type, or say with address and port where it does`,
		`f.toml:25:12: pool.e.servers[0].address: /run/appliance/control.sock is the socket by which the appliance itself is commanded`,
	})
}
