package lab

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Process is a program that runs on a Host. Its methods may be called from any
// goroutine, at any time.
type Process struct {
	host *Host
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait; set before done is closed
}

// Command prepares a command on the host. A name without a slash is looked for
// in the host's PATH. The caller may set its input and output, directory and
// environment, and hands it to Start, Run or Output of the same host.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	return &exec.Cmd{Path: name, Args: append([]string{name}, args...), Env: h.environment(), Dir: "/"}
}

// path returns the host's PATH.
func (h *Host) path() string { return hostBin + ":" + os.Getenv("PATH") }

func (h *Host) environment() []string {
	env := slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "PATH=") })
	return append(env, "PATH="+h.path())
}

// Start starts a command made by Command. The host's Close kills it if nobody
// has before.
func (h *Host) Start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{host: h, cmd: cmd, done: make(chan struct{})}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	// A group of its own, so that Close finds its children too.
	if !cmd.SysProcAttr.Setsid {
		cmd.SysProcAttr.Setpgid = true
	}
	err := h.Do(func() error {
		path, err := h.lookPath(cmd.Path)
		if err != nil {
			return err
		}
		cmd.Path = path
		return cmd.Start()
	})
	if err != nil {
		return nil, fmt.Errorf("host %s: starting %s: %w", h.Name, cmd.Args[0], err)
	}
	h.mu.Lock()
	h.processes[p] = struct{}{}
	h.mu.Unlock()
	go p.wait()
	return p, nil
}

// wait owns cmd.Wait. It ends with the process, which Host.Close sees to.
func (p *Process) wait() {
	p.err = p.cmd.Wait()
	p.host.mu.Lock()
	delete(p.host.processes, p)
	p.host.mu.Unlock()
	close(p.done)
}

// Run runs a command made by Command and waits for its end. When ctx ends first
// the command is killed.
func (h *Host) Run(ctx context.Context, cmd *exec.Cmd) error {
	p, err := h.Start(cmd)
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
		return p.Err()
	case <-ctx.Done():
		p.killGroup()
		<-p.Done()
		return ctx.Err()
	}
}

// Output runs a command on the host and returns what it wrote to standard
// output and standard error together.
func (h *Host) Output(ctx context.Context, name string, args ...string) (string, error) {
	var text strings.Builder
	cmd := h.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &text, &text
	if err := h.Run(ctx, cmd); err != nil {
		return text.String(), fmt.Errorf("%s on %s: %w: %s", name, h.Name, err, strings.TrimSpace(text.String()))
	}
	return text.String(), nil
}

// lookPath finds a program on the host; it runs on the host's thread.
func (h *Host) lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, dir := range filepath.SplitList(h.path()) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", &exec.Error{Name: name, Err: fs.ErrNotExist}
}

// PID returns the process's id in the sandbox.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended and its output is complete.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the process ended, as exec.Cmd.Wait does; it waits for that.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// ExitCode waits for the end and returns the exit code, in the way of shells:
// 128 and the signal if one ended it.
func (p *Process) ExitCode() int {
	<-p.done
	return exitCodeOf(p.cmd.ProcessState.Sys().(syscall.WaitStatus))
}

// Signal sends the process a signal; one that has ended already gives
// os.ErrProcessDone.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// Kill ends the process by SIGKILL and waits until it is gone. Its children
// live on.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}

// Stop freezes the process by SIGSTOP until Continue.
func (p *Process) Stop() error { return p.Signal(syscall.SIGSTOP) }

// Continue lets a frozen process go on.
func (p *Process) Continue() error { return p.Signal(syscall.SIGCONT) }

// killGroup kills the process and the children that stayed in its group. It
// fails only if there are none any more.
func (p *Process) killGroup() { syscall.Kill(-p.PID(), syscall.SIGKILL) }
