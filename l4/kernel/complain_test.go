package kernel

import (
	"testing"
	"time"
)

// TestFloodOfComplaints sends more packets that cannot go on than anybody is told
// of: the rest must not keep a processor busy, and waits in the ring until that is
// full and takes no more.
func TestFloodOfComplaints(t *testing.T) {
	t.Parallel()
	f := families[0]
	r := newRig(t, Options{}, f.service())
	r.connect(f.client, f.vip, f.server)
	over := r.fromClient(packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 101, ack: 501, ttl: 1})
	for range 8 * complainRate {
		if verdict, _ := r.in(r.toClient, over); verdict != dropped {
			t.Fatalf("verdict %#x; want it dropped", verdict)
		}
	}
	time.Sleep(200 * time.Millisecond) // time enough to read them all
	if r.path.complaints.reader.AvailableBytes() == 0 {
		t.Error("all were read, though not all may be told")
	}
}
