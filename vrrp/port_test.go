package vrrp_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"appliance/vrrp"
	"appliance/vrrp/vrrptest"
)

var errNoInterface = errors.New("adverts on eth0: the interface does not exist")

// faults returns the faults in force, each "source: reason".
func (r *rig) faults() string {
	synctest.Wait()
	var words []string
	for _, f := range r.router.Status().Faults {
		words = append(words, f.Source+": "+f.Reason)
	}
	return strings.Join(words, "; ")
}

func TestRouterWaitsForItsInterface(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := new(vrrptest.LAN)
		cfg := config("192.168.15.11", 100)
		cfg.Source = netip.Addr{} // not known before the interface is there
		port := lan.Join(netip.MustParseAddr("192.168.15.11"))
		port.Break(errNoInterface)
		a := beginAt(t, port, cfg, vrrp.Hooks{})
		wait(time.Minute)
		a.want(vrrp.Fault)
		if got, want := a.faults(), "adverts: "+errNoInterface.Error(); got != want {
			t.Errorf("faults %q, want %q", got, want)
		}
		a.port.Break(nil)
		wait(time.Second)
		a.want(vrrp.Active)
		if s := a.router.Status(); s.Source != netip.MustParseAddr("192.168.15.11") || len(s.Faults) > 0 {
			t.Errorf("%+v", s)
		}
		a.end()
	})
}

// An interface that is replaced at once costs no transition: what was on the
// old one is put on the new one and announced.
func TestRouterFollowsAReplacedInterface(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := pair(t, vrrp.Hooks{}, 0)
		wait(time.Minute)
		a.holder.Lose()
		a.holder.Announced()
		before := a.router.Status().Counters.Transitions
		a.port.Move(netip.MustParseAddr("192.168.15.13"))
		a.port.Break(errNoInterface)
		a.port.Break(nil)
		wait(time.Millisecond)
		if len(a.holder.Held()) != 1 || len(a.holder.Announced()) != 1 {
			t.Error("not acquired and announced anew")
		}
		wait(time.Minute)
		a.want(vrrp.Active)
		b.want(vrrp.Backup)
		if s := a.router.Status(); s.Counters.Transitions != before || s.Source.String() != "192.168.15.13" {
			t.Errorf("%+v", s)
		}
		if got := b.router.Status().Active.Address; got.String() != "192.168.15.13" {
			t.Errorf("b hears %s", got)
		}
		a.end()
		b.end()
	})
}

func TestRouterWithoutItsInterfaceResignsAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := pair(t, vrrp.Hooks{}, 0)
		wait(time.Minute)
		a.port.Break(errNoInterface)
		a.want(vrrp.Fault)
		wait(time.Second)
		b.want(vrrp.Active)
		a.port.Break(nil)
		wait(time.Second)
		a.want(vrrp.Active)
		b.want(vrrp.Backup)
		a.end()
		b.end()
	})
}

// A port that breaks again and again is given more and more time.
func TestRouterDoesNotFlapWithItsPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := pair(t, vrrp.Hooks{}, 0)
		wait(time.Minute)
		before := a.router.Status().Counters.Transitions
		for range 300 {
			a.port.Break(errNoInterface)
			a.port.Break(nil)
			wait(200 * ms)
		}
		if n := a.router.Status().Counters.Transitions - before; n > 30 {
			t.Errorf("%d transitions in a minute", n)
		}
		wait(20 * time.Second)
		a.want(vrrp.Active)
		b.want(vrrp.Backup)
		a.end()
		b.end()
	})
}

func TestRouterThatCannotSendIsInFault(t *testing.T) {
	for _, tt := range []struct{ interval, after time.Duration }{
		{10 * ms, time.Second}, {100 * ms, time.Second}, {time.Second, 3 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			lan := new(vrrptest.LAN)
			cfg := config("192.168.15.11", 100)
			cfg.AdvertInterval = tt.interval
			a := begin(t, lan, cfg, vrrp.Hooks{})
			wait(time.Minute)
			a.want(vrrp.Active)
			began := time.Now()
			a.port.Cut(true, true) // Send fails
			for a.router.Status().State == vrrp.Active {
				wait(10 * ms)
			}
			a.want(vrrp.Fault)
			if took := time.Since(began); took < tt.after || took > tt.after+tt.interval+20*ms {
				t.Errorf("interval %s: in fault after %s", tt.interval, took)
			}
			if got := a.faults(); !strings.HasPrefix(got, "adverts: no advert could be sent for ") || !strings.HasSuffix(got, ": unplugged") {
				t.Errorf("faults %q", got)
			}
			// It tries again, ever less often.
			before := a.router.Status().Counters.Transitions
			wait(5 * time.Minute)
			if n := a.router.Status().Counters.Transitions - before; n == 0 || n > 100 {
				t.Errorf("%d transitions in 5 minutes", n)
			}
			a.port.Cut(false, false)
			wait(30 * time.Second)
			a.want(vrrp.Active)
			a.end()
		})
	}
}
