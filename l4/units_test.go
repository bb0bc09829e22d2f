package l4

import (
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Slow readers have no more of the machine's memory than that of so many pipes, and
// nothing of it stays behind.
func TestPipesAreBounded(t *testing.T) {
	var p pipes
	defer p.close()
	lent := make([]*pipe, mostPipes)
	for i := range lent {
		if lent[i] = p.get(); lent[i] == nil {
			t.Fatalf("no pipe after %d", i)
		}
	}
	if p.get() != nil {
		t.Error("one more is lent")
	}
	lent[0].held = 1 // closed, as it is not empty
	for _, b := range lent {
		p.put(b)
	}
	if p.lent != 0 || len(p.spare) != sparePipes {
		t.Errorf("%d are lent and %d kept", p.lent, len(p.spare))
	}
	l := new(loop)
	for range 2 * spareBuffers {
		f := flow{src: new(side), kept: new(buffer)}
		f.drop(l)
	}
	if len(l.spare) != spareBuffers {
		t.Errorf("%d buffers are kept, want %d", len(l.spare), spareBuffers)
	}
}

// A process without privileges gets tiny pipes once there are many: they are not used,
// and nothing of them stays behind.
func TestTinyPipesAreNotUsed(t *testing.T) {
	runtime.LockOSThread() // which ends with the test, and its capabilities with it
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&head, &have[0]); err != nil {
		t.Fatal(err)
	}
	have[0].Effective &^= 1<<unix.CAP_SYS_RESOURCE | 1<<unix.CAP_SYS_ADMIN
	if err := unix.Capset(&head, &have[0]); err != nil {
		t.Fatal(err)
	}
	descriptors := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before, loops := descriptors(), make([]pipes, 2)
	for i := range loops {
		p := &loops[i]
		var all []*pipe
		for b := p.get(); b != nil; b = p.get() {
			all = append(all, b)
			if size, err := unix.FcntlInt(uintptr(b.r), unix.F_GETPIPE_SZ, 0); err != nil || size < leastPipe {
				t.Errorf("pipe %d of %d holds %d, %v", len(all), i, size, err)
			}
		}
		t.Logf("%d pipes", len(all))
		if i == 0 {
			defer func() {
				for _, b := range all {
					p.put(b)
				}
				p.close()
				if after := descriptors(); after != before {
					t.Errorf("%d descriptors are left of %d", after, before)
				}
			}()
			continue
		}
		for _, b := range all {
			p.put(b)
		}
		p.close()
	}
}

func TestPatience(t *testing.T) {
	const start = time.Hour
	p := patience{limit: 10 * time.Second, since: start}
	for _, tt := range []struct {
		name  string
		after time.Duration // since start
		quiet time.Duration
		over  bool
		wait  time.Duration
	}{
		{"silent all the time", 10 * time.Second, 10 * time.Second, true, 0},
		{"looked too early", 9 * time.Second, 9 * time.Second, false, time.Second},
		{"moved since", 10 * time.Second, 4 * time.Second, false, 6 * time.Second},
		{"moved just now", 3 * time.Hour, 0, false, 10 * time.Second},
		{"silence before the start does not count", 2 * time.Second, time.Hour, false, 8 * time.Second},
		{"looked too late", 15 * time.Second, 12 * time.Second, true, 0},
	} {
		over, wait := p.expired(start+tt.after, tt.quiet)
		if over != tt.over || wait != tt.wait {
			t.Errorf("%s: got %v, %v; want %v, %v", tt.name, over, wait, tt.over, tt.wait)
		}
	}
}

func TestLimiter(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l := newLimiter(time.Second)
	for _, tt := range []struct {
		at         time.Duration
		ok         bool
		suppressed int64
	}{
		{0, true, 0},
		{time.Millisecond, false, 0},
		{999 * time.Millisecond, false, 0},
		{time.Second, true, 2},
		{1500 * time.Millisecond, false, 0},
		{time.Minute, true, 1},
		{2 * time.Minute, true, 0},
	} {
		ok, suppressed := l.allow(start.Add(tt.at))
		if ok != tt.ok || suppressed != tt.suppressed {
			t.Errorf("at %v: got %v, %d; want %v, %d", tt.at, ok, suppressed, tt.ok, tt.suppressed)
		}
	}
}

// Only a shortage of this machine's own excuses a server.
func TestExhausted(t *testing.T) {
	for errno, want := range map[syscall.Errno]bool{
		syscall.EMFILE:        true,
		syscall.ENFILE:        true,
		syscall.ENOMEM:        true,
		syscall.ENOBUFS:       true,
		syscall.ENOSPC:        true,
		syscall.EADDRNOTAVAIL: true,
		syscall.ECONNREFUSED:  false,
		syscall.EHOSTUNREACH:  false,
		syscall.ETIMEDOUT:     false,
	} {
		err := &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", errno)}
		if got := exhausted(err); got != want {
			t.Errorf("exhausted(%v) = %v", err, got)
		}
	}
}
