package appliance

import (
	"errors"
	"fmt"
	"os"
	"strconv"

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

// nicenessOf returns the niceness of a thread.
func nicenessOf(thread int) (int, error) {
	// The system call adds what keeps it from being negative.
	n, err := unix.Getpriority(unix.PRIO_PROCESS, thread)
	return 20 - n, err
}
