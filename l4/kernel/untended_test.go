package kernel

import "testing"

// TestUntended has nobody look at the flows any more: after a minute the program leaves
// everything to the stack, whether or not it is shut, until somebody looks again.
func TestUntended(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, f family) {
		r := newRig(t, Options{}, f.service())
		c := newNumbered(r, f.client, f.vip, f.server)
		data := packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 1101, ack: 1501, payload: "data"}
		answer := packet{proto: TCP, from: f.server, to: c.seen, flags: ack, seq: 1501, ack: 1101}
		request := packet{proto: TCP, from: f.nobody, to: f.vip, flags: syn}
		tended := func(ago uint32) {
			r.path.setSettings(func(s *programSettings) { s.Tended = tick() - ago })
			c.age() // what has passed in this second passes still
		}
		tended(55)
		if got := r.client(data); got.to != f.server {
			t.Errorf("within a minute it goes to %s", got.to)
		}
		for _, shut := range []uint32{0, 1} {
			if err := r.path.objects.Door.Put(uint32(0), shut); err != nil {
				t.Fatal(err)
			}
			tended(62)
			r.leftByClient("a segment of a flow", data)
			r.left("its server's", r.toServer, r.fromServer(answer))
			r.leftByClient("a request for a connection", request)
		}
		if err := r.path.objects.Door.Put(uint32(0), uint32(0)); err != nil {
			t.Fatal(err)
		}
		tended(0)
		if got := r.client(data); got.to != f.server {
			t.Errorf("when somebody looks again it goes to %s", got.to)
		}
		r.client(request)
	})
}
