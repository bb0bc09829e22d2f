package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The door is how commands get into a running laboratory from outside: an
// abstract unix socket, which is no file and is gone with its last descriptor.
// It is opened in the outer network and served inside. What passes through it,
// one message each way at a time:
//
//	in   doorRequest, with the command's three standard files
//	in   doorSignal, any number
//	out  doorReply, when the command has ended
//
// The command dies with the connection.

// doorRequest asks for a command on a host.
type doorRequest struct {
	Host string   `json:"host"`
	Args []string `json:"args"`
	// Terminal makes the standard files the command's controlling terminal.
	Terminal bool   `json:"terminal"`
	Term     string `json:"term"` // the variable TERM
}

// doorSignal passes a signal on.
type doorSignal struct {
	Signal int `json:"signal"`
}

// doorReply tells how the command ended, or why it could not start.
type doorReply struct {
	ExitCode int    `json:"exit_code"`
	Error    string `json:"error,omitempty"`
}

const (
	doorMessage = 64 << 10        // bounds a message in bytes
	requestTime = 5 * time.Second // within which a visitor says what is wanted
)

// doorAddress returns the address of the door of a user's laboratory.
func doorAddress() *net.UnixAddr {
	return &net.UnixAddr{Net: "unixpacket", Name: fmt.Sprintf("@applianctl-lab-%d", os.Geteuid())}
}

// OpenDoor opens the door of this user's laboratory, of which there is one at a
// time, for Options.Door. It is called outside; the caller closes the file.
func OpenDoor() (*os.File, error) {
	l, err := net.ListenUnix("unixpacket", doorAddress())
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("you already have a laboratory running with --keep; end it first")
	}
	if err != nil {
		return nil, fmt.Errorf("opening the door: %w", err)
	}
	defer l.Close()
	return l.File()
}

// serveDoor lets commands in until ctx ends, and then ends them. It closes file.
func serveDoor(ctx context.Context, file *os.File, hosts func(name string) (*Host, error)) error {
	l, err := net.FileListener(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("door: %w", err)
	}
	defer l.Close()
	var visitors sync.WaitGroup
	defer visitors.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// On this ctx and not the one it comes from, which may end a moment earlier:
	// below, an Accept that fails must find it ended.
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("door: %w", err)
		}
		visitors.Go(func() {
			defer c.Close()
			serveVisitor(ctx, c.(*net.UnixConn), hosts)
		})
	}
}

// serveVisitor serves one connection to the door. What goes wrong is told to
// the visitor; one who does not listen has left.
func serveVisitor(ctx context.Context, c *net.UnixConn, hosts func(name string) (*Host, error)) {
	defer context.AfterFunc(ctx, func() { c.Close() })()
	var reply doorReply
	code, err := runVisitor(c, hosts)
	reply.ExitCode = code
	if err != nil {
		reply.Error = err.Error()
	}
	text, err := json.Marshal(reply)
	if err == nil {
		c.Write(text)
	}
}

// runVisitor reads a request and runs its command to the end.
func runVisitor(c *net.UnixConn, hosts func(name string) (*Host, error)) (exitCode int, err error) {
	// It is read before it is judged: closing a connection with something left
	// unread would take the answer away from the visitor.
	c.SetReadDeadline(time.Now().Add(requestTime))
	request, files, err := readRequest(c)
	defer closeAll(files)
	if err != nil {
		return 0, err
	}
	c.SetReadDeadline(time.Time{})
	peer, err := peerUser(c)
	if err != nil {
		return 0, err
	}
	// A user who is not known in the sandbox's user namespace shows as another.
	if peer != os.Geteuid() {
		return 0, errors.New("this laboratory is another user's")
	}
	h, err := hosts(request.Host)
	if err != nil {
		return 0, err
	}
	cmd := h.Command(request.Args[0], request.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
	if request.Term != "" {
		cmd.Env = append(cmd.Env, "TERM="+request.Term)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: request.Terminal}
	p, err := h.Start(cmd)
	if err != nil {
		return 0, err
	}
	signals := make(chan struct{})
	go func() {
		defer close(signals)
		passSignals(c, p)
	}()
	code := p.ExitCode()
	c.CloseRead() // ends passSignals; it fails if the visitor has left, which does the same
	<-signals
	return code, nil
}

// passSignals passes signals on to the command and its children until the
// visitor leaves or nothing more is read from it; in the end it kills them.
func passSignals(c *net.UnixConn, p *Process) {
	defer p.killGroup()
	buf := make([]byte, doorMessage)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		var s doorSignal
		if json.Unmarshal(buf[:n], &s) != nil {
			return
		}
		syscall.Kill(-p.PID(), syscall.Signal(s.Signal)) // it fails if they have ended
	}
}

// readRequest reads the first message and its files, which the caller closes,
// after an error too.
func readRequest(c *net.UnixConn) (r doorRequest, files []*os.File, err error) {
	buf, oob := make([]byte, doorMessage), make([]byte, unix.CmsgSpace(3*4))
	n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return r, nil, fmt.Errorf("reading the request: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return r, nil, fmt.Errorf("reading the request's files: %w", err)
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return r, files, fmt.Errorf("reading the request's files: %w", err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "visitor"))
		}
	}
	if err := json.Unmarshal(buf[:n], &r); err != nil {
		return r, files, fmt.Errorf("reading the request: %w", err)
	}
	if len(files) != 3 || len(r.Args) == 0 || strings.Contains(r.Term, "\x00") {
		return r, files, errors.New("the request is not that of this applianctl; use the same version inside and outside")
	}
	return r, files, nil
}

func closeAll[T io.Closer](files []T) {
	for _, f := range files {
		f.Close()
	}
}

// peerUser returns the user at the other end of a connection: the one who
// connected, or the one who opened the listener.
func peerUser(c *net.UnixConn) (uid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, failed); err != nil {
		return 0, fmt.Errorf("asking who is there: %w", err)
	}
	return int(cred.Uid), nil
}
