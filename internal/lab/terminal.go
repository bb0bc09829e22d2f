package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// terminal is a terminal for a command, shown in the one that the person has. A
// terminal belongs to one session only, so the person's own will not do.
type terminal struct {
	in, out *os.File // the person's
	saved   *unix.Termios
	command *os.File // what the command gets
	master  *os.File // the other side of it
}

// openTerminal makes a terminal like the person's, and that one raw: every key
// is for the command. close undoes it.
func openTerminal(in, out *os.File) (*terminal, error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a terminal: %w", err)
	}
	t := &terminal{in: in, out: out, master: os.NewFile(uintptr(fd), "/dev/ptmx")}
	if err := t.setUp(fd); err != nil {
		t.close()
		return nil, fmt.Errorf("opening a terminal: %w", err)
	}
	return t, nil
}

func (t *terminal) setUp(master int) error {
	number, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		return err
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return err
	}
	path := fmt.Sprintf("/dev/pts/%d", number)
	if t.command, err = os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return err
	}
	if t.saved, err = unix.IoctlGetTermios(int(t.in.Fd()), unix.TCGETS); err != nil {
		return err
	}
	raw := *t.saved // as cfmakeraw(3)
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := t.resize(); err != nil {
		return err
	}
	return unix.IoctlSetTermios(int(t.in.Fd()), unix.TCSETS, &raw)
}

// resize gives the command's terminal the size of the person's. One without a
// size leaves it as it is.
func (t *terminal) resize() error {
	size, err := unix.IoctlGetWinsize(int(t.out.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return nil
	}
	raw, err := t.master.SyscallConn() // not Fd, which would make reads block
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) })
	return errors.Join(err, failed)
}

// relay shows the command's terminal in the person's until the returned
// function is called, which shows what is left first.
func (t *terminal) relay() (stop func()) {
	// A read of the person's terminal cannot be ended: this goroutine does not
	// outlive the process, which is about to exit.
	go io.Copy(t.master, t.in)
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		io.Copy(t.out, t.master) // until the command's side is closed, or the deadline
	}()
	sizes := make(chan os.Signal, 1)
	signal.Notify(sizes, syscall.SIGWINCH)
	resized := make(chan struct{})
	go func() {
		defer close(resized)
		for range sizes {
			t.resize() // the old size stays if it fails
		}
	}()
	return func() {
		signal.Stop(sizes)
		close(sizes)
		<-resized
		// A job left in the background may keep its side open.
		t.master.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		<-shown
	}
}

// close gives the person's terminal back as it was.
func (t *terminal) close() {
	if t.saved != nil {
		unix.IoctlSetTermios(int(t.in.Fd()), unix.TCSETS, t.saved) // it fails if the terminal is gone
	}
	if t.command != nil {
		t.command.Close()
	}
	t.master.Close()
}
