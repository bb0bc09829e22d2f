package appliance

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// niceness is what the process runs at: when the CPUs are busy its threads come
// before those of others, and an advert does not wait for them. It is less than
// real time, so what goes wrong in here cannot keep the machine from its owner.
// See docs/timing.md.
const niceness = -10

// beLessNice gives every thread of the process that runs at niceness 0 the one
// above; another value is somebody's choice and stays. Threads inherit it from
// those that start them, and the guard does, which is in a hurry after a crash.
// It takes CAP_SYS_NICE, or a limit that allows it.
func beLessNice() error {
	if err := raiseThreads(); err != nil {
		return err
	}
	return raiseSession()
}

func raiseThreads() error {
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
			if now, err := nicenessOf(thread); err != nil || now != 0 {
				continue
			}
			if err := unix.Setpriority(unix.PRIO_PROCESS, thread, niceness); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("set niceness %d: %w", niceness, err)
			}
		}
		if !fresh {
			return nil
		}
	}
}

// autogroup is where the kernel shows and takes the niceness of a session.
const autogroup = "/proc/self/autogroup"

// raiseSession gives the session what its leader has. Where the kernel shares the
// CPUs between sessions (autogroup, sched(7)), the niceness of a process counts
// among those of its own session only. A session that this process does not lead
// is somebody else's, and so is a niceness that it has already.
func raiseSession() error {
	own, err := nicenessOf(0)
	if err != nil || own >= 0 {
		return err
	}
	if leader, err := unix.Getsid(0); err != nil || leader != os.Getpid() {
		return err
	}
	text, err := os.ReadFile(autogroup)
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(text)), " nice 0") {
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
