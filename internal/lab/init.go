package lab

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// runInit is process 1 of the sandbox, and nothing else: it prepares the
// namespaces, starts the program, passes signals on, and reaps what others
// leave to it until the program ends; when it returns, the kernel kills the
// rest. The program itself is an ordinary process: it can be killed by signals,
// and its os/exec never meets a stranger's child.
func runInit() (exitCode int) {
	if os.Getpid() != 1 {
		fmt.Fprintf(os.Stderr, "sandbox: %s is set, but this is no sandbox; unset it\n", marker)
		return 1
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	program, err := startProgram()
	if err != nil {
		fmt.Fprintf(os.Stderr, "sandbox: %v\n", err)
		return 1
	}
	// The goroutine needs no end but that of the process, which is at hand once
	// the program has ended.
	go func() {
		for s := range signals {
			syscall.Kill(program, s.(syscall.Signal))
		}
	}()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			fmt.Fprintf(os.Stderr, "sandbox: waiting: %v\n", err)
			return 1
		case pid == program:
			return exitCodeOf(status)
		}
	}
}

// startProgram prepares the sandbox and starts the program in it.
func startProgram() (pid int, err error) {
	// Mounts made here must not reach the machine outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return 0, fmt.Errorf("making the mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return 0, fmt.Errorf("mounting /proc: %w; a container hides parts of it, run it with --privileged", err)
	}
	if err := unix.Sethostname([]byte(sandboxedName)); err != nil {
		return 0, fmt.Errorf("setting the host name: %w", err)
	}
	if err := loopbackUp(); err != nil {
		return 0, err
	}
	if err := os.Setenv(marker, partProgram); err != nil {
		return 0, err
	}
	attr := &syscall.ProcAttr{Env: os.Environ(), Files: inheritedFiles()}
	pid, err = syscall.ForkExec("/proc/self/exe", os.Args, attr)
	if err != nil {
		return 0, fmt.Errorf("starting the program: %w", err)
	}
	return pid, nil
}

// inheritedFiles returns the descriptors that were handed to this process:
// those without close-on-exec, which Go sets on whatever it opens itself.
func inheritedFiles() []uintptr {
	var files []uintptr
	for fd := uintptr(0); ; fd++ {
		flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			return files
		}
		files = append(files, fd)
	}
}
