package contest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// Apart runs this program again in a network namespace of its own, with -inside
// before its other arguments, and returns when that has ended. It takes root.
func Apart() error {
	cmd := exec.Command("unshare", append([]string{"--net", os.Args[0], "-inside"}, os.Args[1:]...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// Prepare makes the new namespace fit for many connections over loopback, and
// takes the congestion control out of what is measured: BBR, where it is the
// machine's, paces by timers that cost the load more than the data do, and most
// when the proxy is quick. Reno is the one that every namespace may choose;
// where no segment is lost all but BBR are alike. Prepare also lets this process
// and its children have 60,000 descriptors, or as many as they may, and returns
// how many.
func Prepare() (descriptors int, err error) {
	if runtime.NumCPU() < 2 {
		return 0, errors.New("two processors are needed")
	}
	for _, args := range [][]string{
		{"ip", "link", "set", "lo", "up"},
		{"sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65000", "net.ipv4.tcp_congestion_control=reno"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return 0, fmt.Errorf("%v: %w: %s", args, err, out)
		}
	}
	limit := unix.Rlimit{Cur: 60000, Max: 60000}
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		return int(limit.Cur), nil
	}
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("descriptors: %w", err)
	}
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("descriptors: %w", err)
	}
	return int(limit.Cur), nil
}

// PinLoad keeps the calling goroutine, and the processes that it starts from now
// on, on processor 1. The contestants are on processor 0, and are started
// before, or they would inherit it.
func PinLoad() error {
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(1)
	return unix.SchedSetaffinity(0, &set)
}
