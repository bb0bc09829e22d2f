package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNoLab is the error of Exec when the user has no laboratory to go into.
var ErrNoLab = errors.New("no laboratory of yours is running; start one with applianctl lab --keep")

// Exec runs a command on a host of the laboratory that this user keeps running,
// with this process's standard input, output and error, and returns its exit
// code. Signals are passed on. If standard input and output are terminals the
// command gets one of its own, so that shells work as they always do.
func Exec(host string, args []string) (exitCode int, err error) {
	addr := doorAddress()
	c, err := net.DialUnix(addr.Net, nil, addr)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return 0, ErrNoLab
	}
	if err != nil {
		return 0, fmt.Errorf("going to the laboratory: %w", err)
	}
	defer c.Close()
	// Anybody can take the name: do not hand a terminal to a stranger.
	owner, err := peerUser(c)
	if err != nil {
		return 0, err
	}
	if owner != os.Geteuid() {
		return 0, fmt.Errorf("the laboratory at %s belongs to another user", addr.Name)
	}

	// From before the command starts: it may be signalled at once.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)

	request := doorRequest{Host: host, Args: args, Term: os.Getenv("TERM")}
	if !isTerminal(os.Stdin) || !isTerminal(os.Stdout) {
		if err := sendRequest(c, request, os.Stdin, os.Stdout, os.Stderr); err != nil {
			return 0, err
		}
		defer forwardSignals(signals, c)()
		return readReply(c)
	}
	t, err := openTerminal(os.Stdin, os.Stdout)
	if err != nil {
		return 0, err
	}
	defer t.close()
	defer t.relay()()
	request.Terminal = true
	if err := sendRequest(c, request, t.command, t.command, t.command); err != nil {
		return 0, err
	}
	t.command.Close() // the command has its own; without this one, its end shows
	defer forwardSignals(signals, c)()
	return readReply(c)
}

// sendRequest sends a request with the command's standard files.
func sendRequest(c *net.UnixConn, r doorRequest, files ...*os.File) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	if _, _, err := c.WriteMsgUnix(text, unix.UnixRights(fds...), nil); err != nil {
		return fmt.Errorf("asking the laboratory: %w", err)
	}
	return nil
}

// forwardSignals sends signals to the door until the returned function is
// called.
func forwardSignals(signals <-chan os.Signal, c *net.UnixConn) (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case s := <-signals:
				if text, err := json.Marshal(doorSignal{Signal: int(s.(syscall.Signal))}); err == nil {
					c.Write(text) // it fails if the command has ended
				}
			case <-quit:
				return
			}
		}
	}()
	return func() {
		close(quit)
		<-ended
	}
}

func readReply(c *net.UnixConn) (exitCode int, err error) {
	buf := make([]byte, doorMessage)
	n, err := c.Read(buf)
	if err != nil {
		return 0, fmt.Errorf("the laboratory has ended: %w", err)
	}
	var r doorReply
	if err := json.Unmarshal(buf[:n], &r); err != nil {
		return 0, fmt.Errorf("reading the laboratory's answer: %w", err)
	}
	if r.Error != "" {
		return 0, errors.New(r.Error)
	}
	return r.ExitCode, nil
}
