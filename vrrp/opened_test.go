package vrrp

import "testing"

func TestOpenedAnewAcquiresAndAnnouncesAnew(t *testing.T) {
	b := newActive(t)
	b.run(50 * ms)
	renewal := b.m.holding.term
	wantKinds(t, b.do(Opened{Source: addr("192.168.15.13")}), "acquire, send 100")
	wantKinds(t, b.do(Acquired{Term: renewal, At: b.now}), "")
	wantKinds(t, b.acquired(), "announce")
	b.want(Active)
	// The new address breaks the tie.
	b.hear(100)
	b.want(Active)
}

func TestOpenedEndsTheFaultOfTheAdverts(t *testing.T) {
	b := newActive(t)
	wantKinds(t, b.do(SetFault{Source: AdvertsFault, Reason: "no such device"}), "send 0, release, to fault")
	wantKinds(t, b.do(Opened{Source: addr("192.168.15.11")}), "send 0, to backup")
	b.wantDown(downA)
}
