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
