package appliance

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"appliance/internal/config"
)

const (
	// niceness is what the process runs at while adverts are short: when the CPUs
	// are busy its threads come before those of others, and an advert does not
	// wait for them. It is less than real time, so what goes wrong in here cannot
	// keep the machine from its owner.
	niceness = -10
	// shortAdverts is the interval from which on adverts can wait for a CPU as all
	// else does. The niceness has a price where clients or servers are on the same
	// CPUs: whatever comes for the engines interrupts them, one message at a time.
	// See docs/timing.md.
	shortAdverts = 100 * time.Millisecond
)

// urgency is whether the process runs at its niceness. The zero value is for one
// that has just started. Its methods are for one goroutine.
type urgency struct{ raised bool }

// urgent reports whether a router of the node has short adverts.
func urgent(node *config.Node) bool {
	return slices.ContainsFunc(node.VRRP, func(r config.VRRPNode) bool { return r.AdvertInterval < shortAdverts })
}

// set gives every thread of the process the niceness, or takes it away again.
// Threads that run at another one than expected have it from somebody else and
// keep it. Threads inherit it from those that start them, and the guard does, which
// is in a hurry after a crash. To raise takes CAP_SYS_NICE, or a limit that allows
// it.
func (u *urgency) set(raised bool) error {
	from, to := 0, niceness
	if u.raised {
		from, to = niceness, 0
	}
	if raised != u.raised {
		if err := reniceThreads(from, to); err != nil {
			return err
		}
		u.raised = raised
	}
	return reniceSession(from)
}

// reniceThreads moves the threads of the process that run at one niceness to
// another.
func reniceThreads(from, to int) error {
	done := make(map[int]bool)
	// A thread may start another one meanwhile, with or without it.
	for {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("list the threads: %w", err)
		}
		fresh := false
		for _, task := range tasks {
			thread, err := strconv.Atoi(task.Name())
			if err != nil || done[thread] {
				continue
			}
			done[thread], fresh = true, true
			if now, err := nicenessOf(thread); err != nil || now != from {
				continue
			}
			if err := unix.Setpriority(unix.PRIO_PROCESS, thread, to); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("set niceness %d: %w", to, err)
			}
		}
		if !fresh {
			return nil
		}
	}
}

// autogroup is where the kernel shows and takes the niceness of a session.
const autogroup = "/proc/self/autogroup"

// reniceSession gives a session that is still at one niceness what its leader has
// by now. Where the kernel shares the CPUs between sessions (autogroup, sched(7)),
// the niceness of a process counts among those of its own session only. A session
// that this process does not lead is somebody else's, and so is a niceness that it
// has already.
func reniceSession(from int) error {
	own, err := nicenessOf(0)
	if err != nil || own == from || own > 0 {
		return err
	}
	if leader, err := unix.Getsid(0); err != nil || leader != os.Getpid() {
		return err
	}
	text, err := os.ReadFile(autogroup)
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(text)), " nice "+strconv.Itoa(from)) {
		return nil // a kernel without it says so by the missing file
	}
	if err := os.WriteFile(autogroup, []byte(strconv.Itoa(own)), 0); err != nil {
		return fmt.Errorf("set the niceness of the session: %w", err)
	}
	return nil
}

// nicenessOf returns the niceness of a thread.
func nicenessOf(thread int) (int, error) {
	// The system call adds what keeps it from being negative.
	n, err := unix.Getpriority(unix.PRIO_PROCESS, thread)
	return 20 - n, err
}
