package kernel

import (
	"testing"
	"time"
)

// TestRoundHoldsNothingUp looks at all flows while others have the lock: a router
// that becomes active needs it.
func TestRoundHoldsNothingUp(t *testing.T) {
	t.Parallel()
	f := families[0]
	r := newRig(t, Options{}, f.service())
	r.connect(f.client, f.vip, f.server)
	round := r.path.beginRound(tick(), ticks(RefreshInterval))
	r.path.mu.Lock()
	err := round.look(r.path)
	r.path.mu.Unlock()
	if err != nil || round.census.flows != 1 || len(round.told) != 1 {
		t.Errorf("%v, %d flows, told %+v; want one flow, which is refreshed", err, round.census.flows, round.told)
	}
}

// TestRoundWhileServersGo has a server get its first flows, and leave, after a round
// has looked at the place where they are.
func TestRoundWhileServersGo(t *testing.T) {
	t.Parallel()
	f := families[0]
	other := f.service()
	other.Servers[0].Addr = f.second
	taken := Flow{Protocol: TCP, Client: f.client, Listen: f.vip, Server: f.server, Port: f.client.Port()}
	data := packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 101, ack: 501}
	for what, meanwhile := range map[string]func(*rig){
		"it begins one, and is taken out of the file": func(r *rig) {
			r.connect(f.client, f.vip, f.server)
			if err := r.path.Set([]Service{other}); err != nil {
				t.Fatal(err)
			}
		},
		"it is taken out of the file, and the other node tells one": func(r *rig) {
			if err := r.path.Set([]Service{other}); err != nil {
				t.Fatal(err)
			}
			r.path.sweepOnce(tick(), 0) // it is forgotten
			round := r.path.beginRound(tick(), 0)
			if err := round.look(r.path); err != nil {
				t.Fatal(err)
			}
			r.path.Install([]Flow{taken})
			r.path.conclude(round, nil)
		},
		"the whole service goes": func(r *rig) {
			r.connect(f.client, f.vip, f.server)
			if err := r.path.Set(nil); err != nil {
				t.Fatal(err)
			}
		},
	} {
		r := newRig(t, Options{}, f.service())
		round := r.path.beginRound(tick(), 0)
		if err := round.look(r.path); err != nil {
			t.Fatal(err)
		}
		meanwhile(r)
		r.path.conclude(round, nil)
		if len(r.flows()) != 1 {
			t.Errorf("%s: the flow's server is forgotten", what)
		}
		if got := r.client(data); got.to != f.server {
			t.Errorf("%s: data goes to %s", what, got.to)
		}
		r.path.sweepOnce(tick(), 0)
		if len(r.flows()) != 1 {
			t.Errorf("%s: the flow's server is forgotten by the next round", what)
		}
	}
}

// TestCopiesOutliveTheirNews has flows in use on the other node, which says so every
// RefreshInterval only: until then they must not time out here.
func TestCopiesOutliveTheirNews(t *testing.T) {
	t.Parallel()
	f := families[0]
	s := f.service()
	s.Timeouts = Timeouts{Idle: 20 * time.Second, HalfClose: 10 * time.Second}
	r := newRig(t, Options{}, s)
	flows := []Flow{
		{Protocol: TCP, Client: f.client, Listen: f.vip, Server: f.server, Port: 1},
		{Protocol: TCP, Client: f.nobody, Listen: f.vip, Server: f.server, Port: 2, ClientEnded: true},
	}
	if n := r.path.Install(flows); n != 0 {
		t.Fatalf("%d refused", n)
	}
	now := tick()
	if r.path.sweepOnce(now+ticks(RefreshInterval+SweepInterval), 0); len(r.flows()) != 2 {
		t.Errorf("%+v; want both flows until the other node tells them again", r.flows())
	}
	if r.path.sweepOnce(now+ticks(20*time.Second+newsAfter)+1, 0); len(r.flows()) != 0 {
		t.Errorf("%+v; want none, for the other node tells them no more", r.flows())
	}
}

// TestRoundAndAPortUsedAgain has a connection begin in the place of one that a round
// has read before, as having ended.
func TestRoundAndAPortUsedAgain(t *testing.T) {
	t.Parallel()
	f := families[0]
	r := newRig(t, Options{}, f.service())
	r.connect(f.client, f.vip, f.server)
	r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: rst, seq: 101})
	k := flowKey(TCP, f.client, f.vip)
	var read programFlow
	if err := r.path.objects.Flows.Lookup(&k, &read); err != nil {
		t.Fatal(err)
	}
	r.connect(f.client, f.vip, f.server)
	round := r.path.beginRound(tick()+ticks(linger)+2, 0)
	round.visit(r.path, &k, &read)
	if len(r.flows()) != 1 {
		t.Error("the connection ends with the one before")
	}
	round = r.path.beginRound(tick()+ticks(time.Hour)+2, 0)
	round.visit(r.path, &k, &read)
	if len(r.flows()) != 0 {
		t.Error("it does not end when its own time is over")
	}
}
