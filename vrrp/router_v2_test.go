package vrrp_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"appliance/vrrp"
	"appliance/vrrp/vrrptest"
)

// config2 is config for version 2 with a password.
func config2(source string, priority int, password vrrp.Password) vrrp.Config {
	cfg := config(source, priority)
	cfg.Version, cfg.AdvertInterval = 2, time.Second
	cfg.Authentication = vrrp.Authentication{Type: vrrp.AuthenticatePass, Password: password}
	return cfg
}

func TestRoutersOfVersion2Elect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := new(vrrptest.LAN)
		a := begin(t, lan, config2("192.168.15.11", 100, "1111"), vrrp.Hooks{})
		b := begin(t, lan, config2("192.168.15.12", 90, "1111"), vrrp.Hooks{})
		wait(time.Minute)
		a.want(vrrp.Active)
		b.want(vrrp.Backup)
		if c := b.router.Status().Counters; c.Checksums["message"] == 0 || c.Checksums["pseudo_header"] != 0 {
			t.Errorf("%+v", c.Checksums)
		}
		a.end()
		wait(700 * ms) // Skew_Time is 166/256 s
		b.want(vrrp.Active)
		b.end()
	})
}

// Whoever speaks another version, or has another password or interval, is not
// believed, and its adverts are counted by what is wrong with them.
func TestRouterDoesNotBelieveWhatDisagrees(t *testing.T) {
	src := netip.MustParseAddr("192.168.15.66")
	for counter, change := range map[string]func(*vrrp.Advert){
		"version":                 func(a *vrrp.Advert) { a.Version = 3 },
		"interval_mismatch":       func(a *vrrp.Advert) { a.Interval = 2 * time.Second },
		"authentication_type":     func(a *vrrp.Advert) { a.Authentication = vrrp.Authentication{} },
		"authentication_password": func(a *vrrp.Advert) { a.Authentication.Password = "2222" },
	} {
		synctest.Test(t, func(t *testing.T) {
			lan := new(vrrptest.LAN)
			cfg := config2("192.168.15.11", 100, "1111")
			a := begin(t, lan, cfg, vrrp.Hooks{})
			wait(time.Minute)
			advert := vrrp.Advert{Version: 2, VRID: 50, Priority: 255, Interval: time.Second,
				Addresses: []netip.Addr{vip.Addr()}, Authentication: cfg.Authentication}
			change(&advert)
			lan.Inject(advert.Append(nil, src, vrrp.Group(src), vrrp.ChecksumPseudo), src, vrrp.Group(src), 255)
			wait(ms)
			a.want(vrrp.Active)
			if n := a.router.Status().Counters.Refused[counter]; n != 1 {
				t.Errorf("%s: %d", counter, n)
			}
			a.end()
		})
	}
}

// A reload changes what is believed, and the farewell that others send for it.
func TestReconfiguredPasswordIsInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := new(vrrptest.LAN)
		a := begin(t, lan, config2("192.168.15.11", 100, "1111"), vrrp.Hooks{})
		b := begin(t, lan, config2("192.168.15.12", 90, "1111"), vrrp.Hooks{})
		wait(time.Minute)
		a.router.Reconfigure(config2("192.168.15.11", 100, "2222"))
		b.router.Reconfigure(config2("192.168.15.12", 90, "2222"))
		wait(time.Minute)
		a.want(vrrp.Active)
		b.want(vrrp.Backup)
		src := netip.MustParseAddr("192.168.15.11")
		bye := a.router.Farewells()
		if len(bye) != 1 || bye[0].To != vrrp.Group(src) {
			t.Fatalf("farewells %+v", bye)
		}
		farewell, _, refusal := vrrp.Parse(vrrp.Packet{Payload: bye[0].Payload, Source: src, Destination: bye[0].To, TTL: 255}, 2)
		if refusal != vrrp.Accepted || farewell.Priority != 0 || farewell.VRID != 50 || farewell.Authentication.Password != "2222" {
			t.Errorf("farewell %+v, %s", farewell, refusal)
		}
		lan.Inject(bye[0].Payload, src, bye[0].To, 255)
		synctest.Wait()
		if b.router.Status().Active.Address.IsValid() {
			t.Error("b does not believe the farewell")
		}
		a.end()
		b.end()
	})
}
