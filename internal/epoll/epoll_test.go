package epoll

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Timers come in the order in which they are due, however they were set, moved and
// removed.
func TestTimers(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		var h Timers[int]
		all := make([]Timer[int], 50)
		want := make(map[int]time.Duration)
		for range 200 {
			i := random.IntN(len(all))
			all[i].Owner = i
			if random.IntN(3) == 0 {
				h.Remove(&all[i])
				delete(want, i)
			} else {
				want[i] = time.Duration(1 + random.IntN(100))
				h.Set(&all[i], want[i])
			}
			if _, set := want[i]; all[i].IsSet() != set {
				t.Fatalf("timer %d is set: %v", i, all[i].IsSet())
			}
		}
		var due []time.Duration
		for _, d := range want {
			due = append(due, d)
		}
		slices.Sort(due)
		for _, d := range due {
			if h.First() != d {
				t.Fatalf("the first one is due at %d, want %d", h.First(), d)
			}
			if early := h.Pop(d - 1); early != nil {
				t.Fatalf("timer %d comes before it is due", early.Owner)
			}
			got := h.Pop(d)
			if got == nil || want[got.Owner] != d || got.IsSet() {
				t.Fatalf("%+v is due at %d", got, d)
			}
			delete(want, got.Owner)
		}
		if h.First() != 0 || h.Pop(1000) != nil || len(want) > 0 {
			t.Fatalf("left: %v", want)
		}
	}
}

// newPoller returns a poller and its epoch.
func newPoller(t *testing.T) (*Poller, time.Time) {
	t.Helper()
	epoch := time.Now()
	p, err := New(epoch)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p, epoch
}

// pair returns the two ends of a connection.
func pair(t *testing.T) [2]int {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds
}

func TestWaitForEvents(t *testing.T) {
	p, _ := newPoller(t)
	fds := pair(t)
	watch := &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(fds[0])}
	if err := p.Watch(watch); err != nil {
		t.Fatal(err)
	}
	if got := p.Look(); len(got) > 0 {
		t.Fatalf("%v, and nothing has happened", got)
	}
	go unix.Write(fds[1], []byte("x"))
	if got := p.Wait(0); len(got) != 1 || got[0].Fd != int32(fds[0]) || got[0].Events != unix.EPOLLIN {
		t.Errorf("%v", got)
	}
	// What is there already is reported to who asks again.
	p.Forget(fds[0])
	if err := p.Watch(watch); err != nil {
		t.Fatal(err)
	}
	if got := p.Wait(0); len(got) != 1 {
		t.Errorf("%v", got)
	}
	p.Forget(fds[0])
	unix.Write(fds[1], []byte("x"))
	if got := p.Look(); len(got) > 0 {
		t.Errorf("%v of what is forgotten", got)
	}
}

func TestWaitEnds(t *testing.T) {
	p, epoch := newPoller(t)
	// wait waits until due as a user does: Wait may end too early.
	wait := func(due time.Duration) {
		for time.Since(epoch) < due {
			if got := p.Wait(due); len(got) > 0 {
				t.Fatalf("%v, and nothing has happened", got)
			}
		}
	}
	wait(time.Since(epoch) + 20*time.Millisecond)
	wait(time.Since(epoch) + 5*time.Millisecond)
	if p.Woken() {
		t.Error("woken by nobody")
	}
	p.Wake()
	p.Wait(0) // or it would never end
	if !p.Woken() || p.Woken() {
		t.Error("one Wake is not seen once")
	}
	go func() {
		time.Sleep(time.Millisecond)
		p.Wake()
	}()
	for !p.Woken() {
		p.Wait(0)
	}
	// A deadline that was used to wake up does not end later waits.
	began := time.Since(epoch)
	wait(began + 10*time.Millisecond)
}
