package appliance

import (
	"net/netip"
	"testing"

	"appliance/internal/config"
	"appliance/internal/pool"
	"appliance/internal/resolve"
)

func TestLocatedServers(t *testing.T) {
	hosts := map[string]resolve.Answer{
		"app1.internal": {Address: netip.MustParseAddr("10.0.0.1")},
		"app6.internal": {Address: netip.MustParseAddr("2001:db8::1")},
		"app9.internal": {Reason: "app9.internal: the name has no address"},
	}
	for _, tt := range []struct{ before, want pool.ServerConfig }{
		{pool.ServerConfig{Address: "10.0.0.9:80"}, pool.ServerConfig{Address: "10.0.0.9:80"}},
		{pool.ServerConfig{Address: "unix:/run/a"}, pool.ServerConfig{Address: "unix:/run/a"}},
		{pool.ServerConfig{Address: "App1.internal:80"}, pool.ServerConfig{Name: "App1.internal:80", Address: "10.0.0.1:80", Host: "app1.internal"}},
		{pool.ServerConfig{Name: "six", Address: "app6.internal:80", Weight: 2}, pool.ServerConfig{Name: "six", Address: "[2001:db8::1]:80", Weight: 2, Host: "app6.internal"}},
		{pool.ServerConfig{Address: "app9.internal:80"},
			pool.ServerConfig{Name: "app9.internal:80", Address: "app9.internal:80", Host: "app9.internal", Down: "app9.internal: the name has no address"}},
	} {
		pools := map[string]config.Pool{"p": {Config: pool.Config{Servers: []pool.ServerConfig{tt.before}}}}
		before := pools["p"].Servers[0]
		if got := located(pools, hosts)["p"].Servers[0]; got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.before.Address, got, tt.want)
		}
		if pools["p"].Servers[0] != before {
			t.Errorf("%s: the configuration was changed", tt.before.Address)
		}
	}
}

// A server without an address is down, in pools with and without a check.
func TestServersWithoutAddressAreDown(t *testing.T) {
	for _, checked := range []bool{false, true} {
		cfg := pool.Config{Name: "p", Checked: checked, Servers: []pool.ServerConfig{{Name: "a", Address: "a.internal:80", Down: "why"}}}
		p := pool.New(cfg)
		if h := p.Servers()[0].Stats().Health; h.State != pool.Down || h.Reason != "why" || p.Usable() != 0 {
			t.Errorf("checked %t: %+v", checked, h)
		}
		cfg.Servers = []pool.ServerConfig{{Name: "a", Address: "10.0.0.1:80"}}
		p.Update(cfg, nil)
		if usable := p.Usable(); usable == 1 == checked {
			t.Errorf("checked %t: %d usable servers once there is an address", checked, usable)
		}
	}
}
