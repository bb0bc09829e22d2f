package kernel

import (
	"net/netip"
	"testing"
	"time"
)

func here(netip.Addr) bool { return true }

// A flow that was here, and has ended on the other node since its address moved
// there, is forgotten; one whose packets come here is not.
func TestRemoveWhatHasMovedAway(t *testing.T) {
	t.Parallel()
	f := families[0]
	r := newRig(t, Options{}, f.service())
	r.connect(f.client, f.vip, f.server)
	ended := []Flow{{Protocol: TCP, Client: f.client, Listen: f.vip}}
	if r.path.Remove(ended, here); len(r.flows()) != 1 {
		t.Fatal("a flow whose packets come here is removed")
	}
	// As if the latest packet had come some seconds ago.
	k := flowKey(TCP, f.client, f.vip)
	for range 2 {
		var entry programFlow
		if err := r.path.objects.Flows.Lookup(&k, &entry); err != nil {
			t.Fatal(err)
		}
		entry.Seen -= lately + 1
		if err := r.path.objects.Flows.Put(&k, &entry); err != nil {
			t.Fatal(err)
		}
		k = otherKey(&k, &entry)
	}
	if r.path.Remove(ended, here); len(r.flows()) != 0 {
		t.Error("a flow that has ended on the other node is here still")
	}
	// It ends there as soon as the address has moved.
	r.connect(f.client, f.vip, f.server)
	if r.path.Remove(ended, func(netip.Addr) bool { return false }); len(r.flows()) != 0 {
		t.Error("a flow of an address that is not here, and that has ended, stays until it times out")
	}
}

// A connection that begins where one is still known that has ended elsewhere is
// told as a new one.
func TestConnectionInThePlaceOfAnother(t *testing.T) {
	t.Parallel()
	for _, f := range families {
		r := newRig(t, Options{}, f.service())
		r.connect(f.client, f.vip, f.server)
		told := make(chan Change, 10)
		r.path.OnChanges(func(changes []Change) {
			for _, c := range changes {
				told <- c
			}
		})
		r.connect(f.client, f.vip, f.server)
		select {
		case c := <-told:
			if c.Kind != Established || c.Flow.Client != f.client || c.Flow.Server != f.server {
				t.Errorf("%s: told %+v", f.name, c)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: nothing is told of a connection that began", f.name)
		}
		r.path.OnChanges(nil)
	}
}

// A flow that was this node's ages like one of the other node when its address is there:
// that one need not have told yet that it is in use.
func TestFlowsOfAnAddressThatHasMovedAway(t *testing.T) {
	t.Parallel()
	f := families[0]
	away := false
	s := f.service()
	s.Timeouts.Idle = time.Minute
	r := newRig(t, Options{Here: func(a netip.Addr) bool { return a != f.vip.Addr() || !away }}, s)
	r.connect(f.client, f.vip, f.server)
	now := tick()
	away = true
	if r.path.sweepOnce(now+ticks(90*time.Second), 0); len(r.flows()) != 1 {
		t.Error("it ended before the other node had to tell that it is in use")
	}
	away = false
	if r.path.sweepOnce(now+ticks(90*time.Second), 0); len(r.flows()) != 0 {
		t.Error("it lives longer than it may where its address is")
	}
}
