package kernel

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"appliance/internal/ingress"
)

func TestSupported(t *testing.T) {
	t.Parallel()
	if _, err := Supported(""); err != nil {
		missing(t, err.Error())
	}
	// Every kernel with eBPF has it.
	if way, err := Supported(ingress.Clsact); way != ingress.Clsact || err != nil {
		t.Errorf("%q, %v", way, err)
	}
}

func TestWhyNot(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"CAP_BPF":                    unix.EPERM,
		"without eBPF":               unix.ENOSYS,
		"Linux 5.12":                 ebpf.ErrNotSupported,
		"refuses the program: R1 !x": &ebpf.VerifierError{Cause: unix.EACCES, Log: []string{"0: r1", "R1 !x", "processed 3 insns"}},
		"device or resource busy":    unix.EBUSY,
	} {
		got := explain(fmt.Errorf("loading: %w", err))
		if !errors.Is(got, ErrUnsupported) || !strings.Contains(got.Error(), want) {
			t.Errorf("%v becomes %q; want it to say %q", err, got, want)
		}
	}
}

// TestAttach attaches to what there is, and says what there is not.
func TestAttach(t *testing.T) {
	t.Parallel()
	w := newNetwork(t)
	p := w.open(t, Options{})
	attach := func(interfaces ...Interface) (err error) {
		// A child of a test beside has what is closed here until it executes its program.
		for range 100 {
			w.balancer.do(func() { err = p.Attach(interfaces) })
			if err == nil || !strings.Contains(err.Error(), unix.EEXIST.Error()) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		return err
	}
	if err := attach(Interface{Index: w.toClient.Index}, Interface{Index: w.toServer.Index}); err != nil {
		t.Fatal(err)
	}
	err := attach(Interface{Index: w.toServer.Index}, Interface{Index: 1}, Interface{Index: 12345})
	if err == nil || !strings.Contains(err.Error(), "lo carries no Ethernet") || !strings.Contains(err.Error(), "12345") {
		t.Errorf("error %v; want one about lo and one about 12345", err)
	}
	if len(p.hooks) != 1 || p.hooks[w.toServer.Index] == nil {
		t.Errorf("attached to %v; want s0 alone", p.hooks)
	}
	// Whoever sets services in the meantime holds nobody up.
	p.mu.Lock()
	err = attach(Interface{Index: w.toClient.Index}, Interface{Index: w.toServer.Index})
	p.mu.Unlock()
	if err != nil {
		t.Error(err)
	}
	if some, ok := errors.AsType[AttachError](attach(Interface{Index: w.toClient.Index}, Interface{Index: w.toServer.Index}, Interface{Index: 1})); !ok || len(some) != 1 || some[1] == nil {
		t.Errorf("%v; want an error of interface 1", some)
	}
	if err := attach(Interface{Index: w.toClient.Index}, Interface{Index: w.toServer.Index}); err != nil || p.Detached() {
		t.Errorf("something is detached, %v", err)
	}
	// An interface that is gone takes its link along, also where another one has its
	// index by now.
	w.balancer.ip("link del s0")
	if err := attach(Interface{Index: w.toClient.Index}); err != nil {
		t.Error(err)
	}
	w.balancer.ip(fmt.Sprintf("link add s0 index %d type veth peer name s1", w.toServer.Index))
	if err := attach(Interface{Index: w.toClient.Index}, Interface{Index: w.toServer.Index}); err != nil {
		t.Error(err)
	}
	w.balancer.ip("link del s0")
	w.balancer.ip(fmt.Sprintf("link add s0 index %d type veth peer name s1", w.toServer.Index))
	if !p.Detached() || p.Detached() {
		t.Error("another interface of that index passes for the former one")
	}
	if err := attach(Interface{Index: w.toClient.Index}, Interface{Index: w.toServer.Index}); err != nil || len(p.hooks) != 2 || p.Detached() {
		t.Errorf("attached to %v, %v", p.hooks, err)
	}
}
