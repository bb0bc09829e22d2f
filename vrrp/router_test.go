package vrrp_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"appliance/vrrp"
	"appliance/vrrp/vrrptest"

	"github.com/rs/zerolog"
)

func TestRouterTakesNoPartBeforeItIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := new(vrrptest.LAN)
		cfg := config("192.168.15.11", 100)
		port := lan.Join(cfg.Source)
		r := vrrp.NewRouter(cfg, port.Open, vrrptest.NewHolder(), vrrp.Hooks{}, zerolog.Nop())
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- r.Run(ctx) }()
		wait(time.Minute)
		if s := r.Status(); s.State != vrrp.Fault || len(s.Faults) != 1 || s.Counters.Sent != 0 {
			t.Errorf("%+v", s)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestRouterHoldsItsAddressesOnlyWhileActive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := pair(t, vrrp.Hooks{}, 0)
		if got := a.holder.Held(); !reflect.DeepEqual(got, []netip.Prefix{vip}) {
			t.Errorf("a holds %s", got)
		}
		wait(time.Minute) // renewed all the time
		if len(a.holder.Held()) != 1 || len(b.holder.Held()) != 0 {
			t.Errorf("a holds %s, b %s", a.holder.Held(), b.holder.Held())
		}
		a.end()
		if got := a.holder.Held(); len(got) > 0 {
			t.Errorf("a holds %s after its end", got)
		}
		wait(70 * ms) // Skew_Time
		b.want(vrrp.Active)
		b.end()
	})
}

// watched is a Transport that looks at what its router says of itself when it sends.
type watched struct {
	vrrp.Transport
	look func()
}

func (w watched) Send(msg []byte, to netip.Addr) error {
	w.look()
	return w.Transport.Send(msg, to)
}

// Who hears the first advert of an active router and asks it finds it active.
func TestStatusIsNoOlderThanAdverts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := new(vrrptest.LAN)
		cfg := config("192.168.15.11", 100)
		port := lan.Join(cfg.Source)
		var r *vrrp.Router
		ctx, stop := context.WithCancel(context.Background())
		adverts := 0
		open := func() (vrrp.Transport, netip.Addr, error) {
			tr, source, err := port.Open()
			return watched{tr, func() {
				if s := r.Status(); s.State != vrrp.Active && ctx.Err() == nil {
					t.Errorf("advert %d of a router that says it is %s", adverts, s.State)
				}
				adverts++
			}}, source, err
		}
		r = vrrp.NewRouter(cfg, open, vrrptest.NewHolder(), vrrp.Hooks{}, zerolog.Nop())
		ended := make(chan error)
		go func() { ended <- r.Run(ctx) }()
		r.SetFault(vrrp.StartupFault, "")
		wait(time.Minute)
		if adverts == 0 {
			t.Error("no adverts")
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestRouterStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan, a, b := pair(t, vrrp.Hooks{}, 0)
		b.router.SetDemotion("web", 20, "no server")
		lan.Inject([]byte{0x31}, netip.MustParseAddr("192.168.15.66"), vrrp.Group(netip.MustParseAddr("192.168.15.66")), 255)
		other := vrrp.Advert{Version: 3, VRID: 50, Priority: 1, Interval: 100 * ms, Addresses: []netip.Addr{netip.MustParseAddr("192.168.15.4")}}
		src := netip.MustParseAddr("192.168.15.67")
		lan.Inject(other.Append(nil, src, vrrp.Group(src), vrrp.ChecksumPlain), src, vrrp.Group(src), 255)
		synctest.Wait()
		s := b.router.Status()
		if s.Base != 90 || s.Effective != 70 || len(s.Demotions) != 1 || s.Demotions[0].Reason != "no server" {
			t.Errorf("%+v", s)
		}
		c := s.Counters
		if c.Refused["short"] != 1 || c.Checksums["message"] != 1 || c.Checksums["pseudo_header"] == 0 || c.AddressMismatches != 1 {
			t.Errorf("%+v", c)
		}
		if c.Transitions != 1 {
			t.Errorf("%d transitions", c.Transitions)
		}
		if got := a.router.Status().Active; got.Address != a.router.Status().Source || got.Priority != 100 {
			t.Errorf("a says %+v is active", got)
		}
		a.end()
		b.end()
	})
}

func TestRefusedAdvertsChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan, a, b := pair(t, vrrp.Hooks{}, 0)
		src := netip.MustParseAddr("192.168.15.66")
		bad := vrrp.Advert{Version: 3, VRID: 50, Priority: 255, Interval: 100 * ms, Addresses: []netip.Addr{vip.Addr()}}.
			Append(nil, src, vrrp.Group(src), vrrp.ChecksumPseudo)
		bad[6]++
		sent := a.router.Status().Counters.Sent
		for range 200 {
			lan.Inject(bad, src, vrrp.Group(src), 255)
			wait(10 * ms)
		}
		a.want(vrrp.Active)
		b.want(vrrp.Backup)
		if got := a.router.Status().Counters; got.Sent-sent != 20 || got.Refused["checksum"] != 200 {
			t.Errorf("%d adverts in 2 s, %d refused", got.Sent-sent, got.Refused["checksum"])
		}
		if got := a.router.Status().Refused; got.Refusal != vrrp.RefusedChecksum || got.Source != src || time.Since(got.At) > time.Second {
			t.Errorf("the latest refused advert: %+v", got)
		}
		a.end()
		b.end()
	})
}

func TestRouterFailoverAndFailback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := pair(t, vrrp.Hooks{}, 0)
		if _, err := b.router.Failover(t.Context(), vrrp.Move{}); !errors.Is(err, vrrp.ErrRefused) {
			t.Errorf("failover on the backup: %v", err)
		}
		out, err := a.router.Failover(t.Context(), vrrp.Move{})
		if err != nil || out.Active != netip.MustParseAddr("192.168.15.12") {
			t.Fatalf("%+v, %v", out, err)
		}
		wait(time.Minute)
		b.want(vrrp.Active)
		if !a.router.Status().Yielded {
			t.Error("not yielded")
		}
		out, err = a.router.Failback(t.Context(), "")
		if err != nil || out.Active != netip.MustParseAddr("192.168.15.11") {
			t.Fatalf("%+v, %v", out, err)
		}
		if s := a.router.Status(); s.State != vrrp.Active || s.Yielded {
			t.Errorf("after the answer: %+v", s)
		}
		wait(ms)
		b.want(vrrp.Backup)
		if len(a.holder.Held()) != 1 || len(b.holder.Held()) != 0 {
			t.Errorf("a holds %s, b %s", a.holder.Held(), b.holder.Held())
		}
		a.end()
		b.end()
		if _, err := a.router.Failover(t.Context(), vrrp.Move{}); !errors.Is(err, vrrp.ErrStopped) {
			t.Errorf("after the end: %v", err)
		}
		a.router.SetDemotion("web", 20, "does not block")
	})
}

// traffic is a hook whose connections end after a time.
type traffic struct {
	length   time.Duration
	resumed  chan []netip.Prefix // what was held then
	holding  func() []netip.Prefix
	deadline time.Duration
}

func (f *traffic) Hold(ctx context.Context, _ vrrp.Drain) {
	d, _ := ctx.Deadline()
	f.deadline = time.Until(d)
	select {
	case <-time.After(f.length):
	case <-ctx.Done():
	}
}

func (f *traffic) Resume() { f.resumed <- f.holding() }

func TestRouterDrainsBeforeItHandsOver(t *testing.T) {
	for _, tt := range []struct{ length, want time.Duration }{
		{2 * time.Second, 2 * time.Second},
		{time.Hour, 5 * time.Second}, // cut at the deadline
	} {
		synctest.Test(t, func(t *testing.T) {
			hook := &traffic{length: tt.length, resumed: make(chan []netip.Prefix, 1)}
			_, a, b := pair(t, vrrp.Hooks{Traffic: hook}, 5*time.Second)
			hook.holding = a.holder.Held
			start := time.Now()
			sent := a.router.Status().Counters.Sent
			if _, err := a.router.Failover(t.Context(), vrrp.Move{}); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took < tt.want || took > tt.want+100*ms {
				t.Errorf("took %s, want %s", took, tt.want)
			}
			if n := a.router.Status().Counters.Sent - sent; n < uint64(tt.want/(100*ms)) {
				t.Errorf("%d adverts while draining", n)
			}
			if held := <-hook.resumed; len(held) > 0 {
				t.Errorf("resumed while holding %s", held)
			}
			if hook.deadline != 5*time.Second {
				t.Errorf("deadline %s", hook.deadline)
			}
			a.end()
			b.end()
		})
	}
}

func TestRouterResumesOnlyWhenTheAddressesAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &traffic{resumed: make(chan []netip.Prefix, 1)}
		_, a, b := pair(t, vrrp.Hooks{Traffic: hook}, 5*time.Second)
		hook.holding = a.holder.Held
		unblock := a.holder.Block()
		if _, err := a.router.Failover(t.Context(), vrrp.Move{}); err != nil {
			t.Fatal(err)
		}
		wait(100 * ms)
		if len(hook.resumed) > 0 {
			t.Error("resumed before the release")
		}
		unblock()
		synctest.Wait()
		if len(hook.resumed) != 1 {
			t.Error("not resumed after the release")
		}
		a.end()
		b.end()
	})
}

func TestRouterDrainsBeforeItStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &traffic{length: 2 * time.Second, resumed: make(chan []netip.Prefix, 1)}
		_, a, b := pair(t, vrrp.Hooks{Traffic: hook}, 5*time.Second)
		hook.holding = a.holder.Held
		start := time.Now()
		a.end()
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("took %s", took)
		}
		wait(70 * ms)
		b.want(vrrp.Active)
		b.end()
	})
}

func TestRouterReconfigureMovesAddressesWhileActive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := pair(t, vrrp.Hooks{}, 0)
		a.holder.Announced()
		added := netip.MustParsePrefix("192.168.15.4/24")
		cfg := config("192.168.15.11", 100)
		cfg.Addresses = []netip.Prefix{added}
		a.router.Reconfigure(cfg)
		synctest.Wait()
		if got := a.holder.Held(); !reflect.DeepEqual(got, cfg.Addresses) {
			t.Errorf("a holds %s", got)
		}
		if got := a.holder.Announced(); !reflect.DeepEqual(got, cfg.Addresses) {
			t.Errorf("a announced %s", got)
		}
		if s := a.router.Status(); s.Counters.Transitions != 2 || s.State != vrrp.Active {
			t.Errorf("%+v", s)
		}
		// b still has the old list: a warning, and no second active router.
		wait(time.Second)
		b.want(vrrp.Backup)
		if b.router.Status().Counters.AddressMismatches == 0 {
			t.Error("no mismatch counted")
		}
		a.end()
		b.end()
	})
}

func TestRouterThatCannotAcquireLetsTheOtherOneHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := new(vrrptest.LAN)
		a := begin(t, lan, config("192.168.15.11", 100), vrrp.Hooks{})
		a.holder.Fail(errors.New("no such device"))
		b := begin(t, lan, config("192.168.15.12", 90), vrrp.Hooks{})
		wait(time.Second)
		a.want(vrrp.Backup)
		b.want(vrrp.Active)
		if a.router.Status().Counters.AddressErrors != 1 {
			t.Errorf("%+v", a.router.Status().Counters)
		}
		a.end()
		b.end()
	})
}

func TestSlowKernelHoldsUpNoAdvert(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := pair(t, vrrp.Hooks{}, 0)
		unblock := a.holder.Block()
		sent := a.router.Status().Counters.Sent
		wait(1500 * ms) // less than the lease
		if n := a.router.Status().Counters.Sent - sent; n != 15 {
			t.Errorf("%d adverts in 1.5 s", n)
		}
		b.want(vrrp.Backup)
		// The lease ends without a renewal: somebody else must have it.
		wait(1500 * ms)
		b.want(vrrp.Active)
		a.want(vrrp.Backup)
		unblock()
		a.end()
		b.end()
	})
}

func TestSplitAndHeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := pair(t, vrrp.Hooks{}, 0)
		b.port.Cut(true, true)
		wait(time.Second)
		b.want(vrrp.Active)
		if b.router.Status().Counters.SendErrors == 0 {
			t.Error("no error of sending counted")
		}
		b.port.Cut(false, false)
		wait(200 * ms)
		a.want(vrrp.Active)
		b.want(vrrp.Backup)
		a.end()
		b.end()
	})
}

// frameError is an error of a transport with a name of its own.
type frameError struct{}

func (frameError) Error() string { return "refused frame: fragment" }
func (frameError) Label() string { return "fragment" }

// broken is a transport whose Receive fails.
type broken struct {
	errs chan error
	done chan struct{}
}

func (b broken) Send([]byte, netip.Addr) error { return nil }
func (b broken) Close() error                  { close(b.done); return nil }

// open opens a transport whose Receive returns errs.
func open(errs chan error) (vrrp.Transport, netip.Addr, error) {
	return broken{errs, make(chan struct{})}, netip.MustParseAddr("192.168.15.11"), nil
}
func (b broken) Receive([]byte) (int, netip.Addr, netip.Addr, uint8, error) {
	select {
	case err := <-b.errs:
		return 0, netip.Addr{}, netip.Addr{}, 0, err
	case <-b.done:
		return 0, netip.Addr{}, netip.Addr{}, 0, net.ErrClosed
	}
}

func TestErrorsOfTheTransportAreNamedAndTheElectionGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errs := make(chan error, 10)
		r := vrrp.NewRouter(config("192.168.15.11", 100), func() (vrrp.Transport, netip.Addr, error) { return open(errs) }, vrrptest.NewHolder(), vrrp.Hooks{}, zerolog.Nop())
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- r.Run(ctx) }()
		r.SetFault(vrrp.StartupFault, "")
		errs <- frameError{}
		errs <- frameError{}
		errs <- errors.New("network is down")
		wait(time.Second)
		s := r.Status()
		if want := map[string]uint64{"fragment": 2, "socket": 1}; !reflect.DeepEqual(s.Counters.ReceiveErrors, want) {
			t.Errorf("%v", s.Counters.ReceiveErrors)
		}
		if s.State != vrrp.Active {
			t.Errorf("%+v", s)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestCommandsEndWithTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &traffic{length: time.Hour, resumed: make(chan []netip.Prefix, 1), holding: func() []netip.Prefix { return nil }}
		_, a, b := pair(t, vrrp.Hooks{Traffic: hook}, 5*time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.router.Failover(ctx, vrrp.Move{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		wait(10 * time.Second) // it goes on without a listener
		b.want(vrrp.Active)
		a.end()
		b.end()
	})
}

// A backup whose reader gets no CPU has heard nothing for long, and yet knows
// that something is there to be heard.
func TestRouterThatReadsLateDoesNotTakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := pair(t, vrrp.Hooks{}, 0)
		resume := b.port.Stall()
		wait(500 * ms) // three adverts and the skew are 365 ms
		b.want(vrrp.Backup)
		if s := b.router.Status(); s.Counters.Late == 0 {
			t.Errorf("%+v", s.Counters)
		}
		resume()
		wait(10 * time.Second)
		a.want(vrrp.Active)
		b.want(vrrp.Backup)
		if s := a.router.Status(); s.Lateness.Count < 100 || s.Lateness.Max != 0 {
			t.Errorf("where time passes for nothing but timers, adverts are never late: %+v", s.Lateness)
		}
		a.end()
		b.end()
	})
}
