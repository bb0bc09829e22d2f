package l4

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"appliance/internal/pool"
)

func TestValidate(t *testing.T) {
	good := Config{Name: "ssh", Listen: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:22")}, Pool: "ssh"}
	with := func(change func(*Config)) Config {
		c := good
		change(&c)
		return c
	}
	own := []pool.ServerConfig{{Address: "192.0.2.2:22"}}
	for _, tt := range []struct {
		name string
		cfg  Config
		want []string // keys with a problem
	}{
		{"good", good, nil},
		{"own servers", with(func(c *Config) { c.Pool, c.Servers = "", own }), nil},
		{"tcp", with(func(c *Config) { c.Protocol = "tcp" }), nil},
		{"empty", Config{}, []string{"name", "listen", "pool"}},
		{"port 0", with(func(c *Config) { c.Listen = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:0")} }), []string{"listen[0]"}},
		{"sctp", with(func(c *Config) { c.Protocol = "sctp" }), []string{"protocol"}},
		{"pool and servers", with(func(c *Config) { c.Servers = own }), []string{"servers"}},
		{"negative", with(func(c *Config) { c.Timeouts = Timeouts{Connect: -1, Idle: -1, HalfClose: -1} }),
			[]string{"timeouts.connect", "timeouts.idle", "timeouts.half_close"}},
		{"keep-alive", with(func(c *Config) { c.KeepAlive = KeepAlive{time.Second, 32767 * time.Second, 127, 24 * time.Hour} }), nil},
		{"keep-alive out of range", with(func(c *Config) { c.KeepAlive = KeepAlive{1500 * time.Millisecond, 32768 * time.Second, 128, 1} }),
			[]string{"keepalive.idle", "keepalive.interval", "keepalive.count", "keepalive.user_timeout"}},
		{"datagrams", with(func(c *Config) { c.Protocol, c.Responses, c.PerClient.Rate = "udp", 1, 5 }), nil},
		{"datagrams with what is TCP's", with(func(c *Config) {
			c.Protocol, c.KeepAlive.Count, c.Timeouts = "udp", 1, Timeouts{Connect: 1, HalfClose: 1}
		}), []string{"keepalive", "timeouts.connect", "timeouts.half_close"}},
	} {
		var got []string
		tt.cfg.Validate(func(key, _ string) { got = append(got, key) })
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: problems at %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestDefaults(t *testing.T) {
	var zero Timeouts
	if zero.EffectiveConnect() != 3*time.Second || zero.EffectiveIdle() != time.Hour || zero.EffectiveHalfClose() != 10*time.Second {
		t.Errorf("defaults are %v, %v, %v", zero.EffectiveConnect(), zero.EffectiveIdle(), zero.EffectiveHalfClose())
	}
	set := Timeouts{Connect: 1, Idle: 2, HalfClose: 3}
	if set.EffectiveConnect() != 1 || set.EffectiveIdle() != 2 || set.EffectiveHalfClose() != 3 {
		t.Error("a timeout that is set was replaced by its default")
	}
	if (Config{Name: "n"}).PoolName() != "n" || (Config{Name: "n", Pool: "p"}).PoolName() != "p" {
		t.Error("PoolName is neither the pool nor the service's own name")
	}
}
