package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
)

// marker tells a process of the sandbox which part it plays.
const (
	marker        = "APPLIANCTL_LAB_PART"
	partInit      = "init"
	partProgram   = "program"
	sandboxedName = "lab" // the sandbox's host name, where no Host is meant
)

// Inside reports whether this process is already in a sandbox, so that a call
// of Sandbox will not start one.
func Inside() bool { return os.Getenv(marker) != "" }

// Sandbox starts this program again, with the same arguments, in network,
// mount, process, UTS and IPC namespaces of its own, and without root also in a
// user namespace in which it is root. It must be called before the program does
// anything else. It returns twice: inside the sandbox at once, with inside
// true; outside when the program inside has ended, with its exit code, or with
// an error that says what to do when the kernel refuses namespaces.
//
// The files are open inside as descriptors 3, 4, ...; they are ignored in calls
// from inside. SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on. When the outer
// process dies, by SIGKILL too, the kernel ends all that runs inside, and with
// that go the interfaces and mounts.
func Sandbox(files ...*os.File) (inside bool, exitCode int, err error) {
	switch os.Getenv(marker) {
	case partInit:
		os.Exit(runInit())
	case partProgram:
		// Whatever the program starts is no part of this any more.
		return true, 0, os.Unsetenv(marker)
	}
	// The signal that ends the child comes when the thread that made it dies,
	// not the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)

	child, err := startSandbox(files)
	if err != nil {
		return false, 1, err
	}
	ended := make(chan struct{})
	passed := make(chan struct{})
	go func() {
		defer close(passed)
		for {
			select {
			case s := <-signals:
				child.Process.Signal(s) // it fails only once the child has ended
			case <-ended:
				return
			}
		}
	}()
	err = child.Wait()
	close(ended)
	<-passed
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return false, exitCodeOf(exit.Sys().(syscall.WaitStatus)), nil
	}
	if err != nil {
		return false, 1, fmt.Errorf("sandbox: %w", err)
	}
	return false, 0, nil
}

// startSandbox starts the init process. Root tries without a user namespace
// first: it needs none, unless it is the root of a container.
func startSandbox(files []*os.File) (*exec.Cmd, error) {
	if os.Geteuid() == 0 {
		c := sandboxCommand(files, false)
		err := c.Start()
		if err == nil || !errors.Is(err, syscall.EPERM) {
			return c, explainRefusal(err)
		}
	}
	c := sandboxCommand(files, true)
	return c, explainRefusal(c.Start())
}

func sandboxCommand(files []*os.File, userNamespace bool) *exec.Cmd {
	c := &exec.Cmd{
		Path:       "/proc/self/exe", // the same program, even if its file is gone
		Args:       os.Args,
		Env:        append(os.Environ(), marker+"="+partInit),
		Stdin:      os.Stdin,
		Stdout:     os.Stdout,
		Stderr:     os.Stderr,
		ExtraFiles: files,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID |
				syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
			Pdeathsig: syscall.SIGKILL,
			// In a session of its own: a Ctrl-C of the terminal reaches it once,
			// by way of the outer process.
			Setsid: true,
		},
	}
	if userNamespace {
		c.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return c
}

// explainRefusal says what to do about a kernel that refuses namespaces.
func explainRefusal(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return fmt.Errorf("the kernel does not let this user make namespaces: %w; run this as root, or allow it with "+
			"sysctl kernel.unprivileged_userns_clone=1 (Debian), sysctl kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu); "+
			"in a container, --privileged or --cap-add SYS_ADMIN is missing", err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EUSERS):
		return fmt.Errorf("no more namespaces are allowed: %w; raise sysctl user.max_user_namespaces "+
			"and user.max_net_namespaces, which must not be 0", err)
	}
	return fmt.Errorf("sandbox: %w", err)
}

// exitCodeOf returns a process's exit code in the way of shells: 128 and the
// signal if one ended it.
func exitCodeOf(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}
