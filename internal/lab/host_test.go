package lab_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"appliance/internal/lab"
)

func newHost(t *testing.T, name string) *lab.Host {
	t.Helper()
	h, err := lab.NewHost(name, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func output(t *testing.T, h *lab.Host, name string, args ...string) string {
	t.Helper()
	text, err := h.Output(t.Context(), name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(text)
}

// Two hosts have names, files below /run and networks of their own, and so has
// the program that made them.
func TestHostsAreApart(t *testing.T) {
	one, two := newHost(t, "one"), newHost(t, "two")
	for _, h := range []*lab.Host{one, two} {
		if got := output(t, h, "cat", "/proc/sys/kernel/hostname"); got != h.Name {
			t.Errorf("a command on %s finds the host name %q", h.Name, got)
		}
		if err := h.WriteFile("/run/appliance/who", []byte(h.Name)); err != nil {
			t.Fatal(err)
		}
		if err := h.Network.AddAddress("lo", netip.MustParsePrefix("10.0.0.1/32")); err != nil {
			t.Errorf("%s: %v", h.Name, err) // the second would find it taken in a common network
		}
	}
	for _, h := range []*lab.Host{one, two} {
		if got := output(t, h, "cat", "/run/appliance/who"); got != h.Name {
			t.Errorf("the file on %s says %q", h.Name, got)
		}
	}
	if name, err := os.Hostname(); err != nil || name == "one" || name == "two" {
		t.Errorf("the program's own host name is %q, %v", name, err)
	}
	if _, err := os.Stat("/run/appliance/who"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a host's file is in the program's own /run: %v", err)
	}
}

func TestSocketsBelongToTheirHost(t *testing.T) {
	one, two := newHost(t, "one"), newHost(t, "two")
	at := netip.MustParseAddrPort("127.0.0.1:80")
	l, err := one.Listen(at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := one.Dial(t.Context(), at)
	if err != nil {
		t.Fatalf("on the listener's host: %v", err)
	}
	c.Close()
	if c, err := two.Dial(t.Context(), at); err == nil {
		c.Close()
		t.Fatal("the other host's loopback reaches the listener")
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	h := newHost(t, "one")
	at := netip.MustParseAddrPort("127.0.0.1:80")
	l, err := h.Listen(at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c, err := h.Dial(ctx, at)
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

func TestProcessKilledByCloseOfItsHost(t *testing.T) {
	h, err := lab.NewHost("one", "")
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.Start(h.Command("sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	h.Close()
	if code := p.ExitCode(); code != 128+9 {
		t.Errorf("exit code %d, want that of SIGKILL", code)
	}
	if err := h.Do(func() error { return nil }); !errors.Is(err, lab.ErrHostClosed) {
		t.Errorf("Do after Close: %v", err)
	}
}

func TestCommandNotFound(t *testing.T) {
	h := newHost(t, "one")
	if _, err := h.Start(h.Command("no-such-program")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
