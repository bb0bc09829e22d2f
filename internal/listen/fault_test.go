package listen

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// faults collects what a set reports, in order.
type faults chan error

func (f faults) report(_ netip.AddrPort, err error) { f <- err }

func (f faults) next(t *testing.T) error {
	t.Helper()
	select {
	case err := <-f:
		return err
	case <-time.After(patience):
		t.Fatal("no report")
		return nil
	}
}

// TestOutOfDescriptors runs itself in a process that may have few descriptors.
func TestOutOfDescriptors(t *testing.T) {
	const child = "LISTEN_TEST_FEW_DESCRIPTORS"
	if os.Getenv(child) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestOutOfDescriptors$", "-test.count=1")
		cmd.Env = append(os.Environ(), child+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 64}); err != nil {
		t.Fatal(err)
	}
	reports := make(faults, 10)
	s := NewSet(zerolog.Nop(), reports.report)
	addr := anyPort("127.0.0.1")
	stage(t, s, map[netip.AddrPort]Handler{addr: greeter("hello")}).Commit()
	dial(t, s.Addr(addr)).Close() // whatever is opened on first use is open now

	var hogs []*os.File
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			break
		}
		hogs = append(hogs, f)
	}
	hogs[0].Close() // for the client
	client := dial(t, s.Addr(addr))
	if err := reports.next(t); !errors.Is(err, unix.EMFILE) {
		t.Fatalf("fault %v, want EMFILE", err)
	}
	for _, f := range hogs[1:] {
		f.Close()
	}
	if err := reports.next(t); err != nil {
		t.Fatalf("fault %v, want the end of it", err)
	}
	expect(t, client, "hello")
	client.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.Wait()
	if len(reports) > 0 {
		t.Errorf("one more report: %v", <-reports)
	}
}

func startAcceptor(t *testing.T, reports faults) (*acceptor, *listener) {
	t.Helper()
	l, err := open(anyPort("127.0.0.1"), needs{alive: DefaultKeepAlive}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := NewSet(zerolog.Nop(), reports.report)
	var h Handler = greeter("hello")
	l.handler.Store(&h)
	return &acceptor{listener: l, log: s.log, fault: s.fault, conns: &s.conns}, l
}

func TestFaultEndsWithoutClients(t *testing.T) {
	reports := make(faults, 10)
	a, l := startAcceptor(t, reports)
	a.failed(syscall.EMFILE)
	a.failed(syscall.EMFILE)
	if err := reports.next(t); !errors.Is(err, unix.EMFILE) {
		t.Fatalf("fault %v, want EMFILE", err)
	}
	go a.run()
	if err := reports.next(t); err != nil {
		t.Fatalf("fault %v, want the end of it", err)
	}
	c := dial(t, l.local)
	expect(t, c, "hello")
	c.Close()
	l.close()
	l.wait()
	a.conns.wait()
	if len(reports) > 0 {
		t.Errorf("one more report: %v", <-reports)
	}
}

func TestFaultEndsWithItsListener(t *testing.T) {
	reports := make(faults, 10)
	a, l := startAcceptor(t, reports)
	l.close()
	a.failed(syscall.ENFILE)
	a.run()
	if err := reports.next(t); !errors.Is(err, unix.ENFILE) {
		t.Fatalf("fault %v, want ENFILE", err)
	}
	if err := reports.next(t); err != nil {
		t.Fatalf("fault %v, want the end of it", err)
	}
}

func TestClientsCauseNoFault(t *testing.T) {
	for err, want := range map[error]bool{
		&net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", unix.EPROTO)}: true,
		os.NewSyscallError("accept4", unix.EHOSTUNREACH):                            true,
		os.NewSyscallError("accept4", unix.EMFILE):                                  false,
		unix.ENOMEM:             false,
		net.ErrWriteToConnected: false,
	} {
		if got := clientFailed(err); got != want {
			t.Errorf("clientFailed(%v) = %v", err, got)
		}
	}
}
