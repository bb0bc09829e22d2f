package vrrp

import (
	"net/netip"
	"testing"
	"time"
)

// RFC 9568 section 6.4.3, on giving way: set Active_Adver_Interval to the Max
// Advertise Interval of the ADVERTISEMENT, recompute Skew_Time, recompute
// Active_Down_Interval, and set the Active_Down_Timer to that.
func TestGivingWayLearnsTheInterval(t *testing.T) {
	b := newActive(t)
	b.do(Heard{Source: addr("192.168.15.12"), Priority: 101, Interval: 300 * ms})
	b.wantDown(activeDownInterval(3, 100, 300*ms))
}

// Section 6.4.2: when the Active_Down_Timer fires, the Adver_Timer is set to
// Advertisement_Interval: the own one, whatever was learnt.
func TestPromotionGoesOnWithItsOwnInterval(t *testing.T) {
	b := newBench(t)
	b.do(Heard{Source: addr("192.168.15.12"), Priority: 101, Interval: 300 * ms})
	b.run(activeDownInterval(3, 100, 300*ms))
	b.want(Active)
	b.acquired()
	wantKinds(t, b.run(100*ms), "send 100")
}

// Section 6.4.1: a router that is not the owner sets Active_Adver_Interval to
// Advertisement_Interval, whatever it heard in an earlier life.
func TestAfterAFaultTheIntervalIsTheConfiguredOne(t *testing.T) {
	b := newBench(t)
	b.do(Heard{Source: addr("192.168.15.12"), Priority: 101, Interval: 300 * ms})
	b.do(SetFault{Source: "test", Reason: "no carrier"})
	b.do(SetFault{Source: "test"})
	b.wantDown(downA)
}

// Section 6.4.1 to 6.4.3: in Initialize nothing is sent and nothing fires.
func TestInInitializeNothingIsSent(t *testing.T) {
	b := newBench(t)
	b.do(SetFault{Source: "test", Reason: "no carrier"})
	for _, priority := range []int{0, 1, 100, 255} {
		wantKinds(t, b.hear(priority), "")
	}
	wantKinds(t, b.run(time.Minute), "")
	b.want(Fault)
}

// Section 6.4.3: an equal priority is decided by the primary addresses as
// unsigned numbers, in IPv6 too.
func TestEqualPrioritiesAreDecidedByUnsignedAddresses(t *testing.T) {
	for _, tt := range []struct {
		own, other string
		stays      bool
	}{
		{"10.0.0.1", "200.0.0.1", false}, // negative as a signed number
		{"200.0.0.1", "10.0.0.1", true},
		{"fe80::1", "fe80::2", false},
		{"fe80::a", "fe80::9", true},
	} {
		b := newActive(t, func(c *Config) {
			c.Source = addr(tt.own)
			if c.Source.Is6() {
				c.Addresses = []netip.Prefix{netip.MustParsePrefix("fe80::50/64")}
			}
		})
		b.hearFrom(tt.other, 100)
		if got := b.m.State() == Active; got != tt.stays {
			t.Errorf("%s against %s: %s", tt.own, tt.other, b.m.State())
		}
	}
}

// Section 6.4.2: a resignation that comes while the timer is nearly over sets it
// to Skew_Time all the same.
func TestPriorityZeroSetsTheTimerWhateverIsLeftOfIt(t *testing.T) {
	b := newBench(t)
	b.hear(110)
	b.run(downA - ms)
	b.hear(0)
	b.wantDown(skewA)
}
