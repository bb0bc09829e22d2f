package ingress

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"appliance/internal/link"
)

// counter is a program that counts packets and leaves them to whatever comes next.
type counter struct {
	*ebpf.Program
	packets *ebpf.Map
}

func newCounter(t *testing.T) *counter {
	t.Helper()
	packets, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		missing(t, err)
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress, License: "GPL",
		Instructions: asm.Instructions{
			asm.LoadMapValue(asm.R1, packets.FD(), 0),
			asm.Mov.Imm(asm.R2, 1),
			asm.StoreXAdd(asm.R1, asm.R2, asm.DWord),
			asm.Mov.Imm(asm.R0, -1),
			asm.Return(),
		},
	})
	if err != nil {
		missing(t, err)
	}
	t.Cleanup(func() { p.Close(); packets.Close() })
	return &counter{p, packets}
}

// missing skips a test that this machine cannot run; where tests count, it fails.
func missing(t *testing.T, why error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// cable is two interfaces in a network of the test's own, whose thread it has.
type cable struct {
	t      *testing.T
	to     int // the index of the interface that packets come in by
	socket int
	from   unix.SockaddrLinklayer
}

func newCable(t *testing.T) *cable {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		missing(t, err)
	}
	for _, command := range []string{"link add v0 type veth peer name v1", "link set v0 up", "link set v1 up"} {
		if out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %s", command, out)
		}
	}
	c := &cable{t: t}
	v1, err := net.InterfaceByName("v1")
	if err != nil {
		t.Fatal(err)
	}
	c.from = unix.SockaddrLinklayer{Ifindex: v1.Index, Protocol: 0xb588, Halen: 6}
	v0, err := net.InterfaceByName("v0")
	if err != nil {
		t.Fatal(err)
	}
	c.to = v0.Index
	if c.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(c.socket) })
	for deadline := time.Now().Add(10 * time.Second); v0.Flags&net.FlagRunning == 0; time.Sleep(time.Millisecond) {
		if v0, err = net.InterfaceByName("v0"); err != nil || time.Now().After(deadline) {
			t.Fatal("v0 does not come up", err)
		}
	}
	return c
}

// sees reports whether a packet that comes in is seen by p. Others may come in too, so
// it is no more than one of them that does not see any.
func (c *cable) sees(p *counter) bool {
	c.t.Helper()
	count := func() (n uint64) {
		if err := p.packets.Lookup(uint32(0), &n); err != nil {
			c.t.Fatal(err)
		}
		return n
	}
	before := count()
	for range 3 {
		if err := unix.Sendto(c.socket, make([]byte, 60), 0, &c.from); err != nil {
			c.t.Fatal(err)
		}
	}
	// What is sent is taken in by the same processor, before long.
	for range 100 {
		if count() >= before+3 {
			return true
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

func eachWay(t *testing.T, f func(*testing.T, Way)) {
	for _, way := range []Way{TCX, Clsact} {
		t.Run(string(way), func(t *testing.T) {
			if way == TCX {
				if best, err := Best(newCounter(t).Program); err != nil {
					t.Fatal(err)
				} else if best != TCX {
					t.Skip("this kernel has no tcx")
				}
			}
			f(t, way)
		})
	}
}

func TestHook(t *testing.T) {
	eachWay(t, func(t *testing.T, way Way) {
		c := newCable(t)
		first, second := newCounter(t), newCounter(t)
		h, err := Attach(way, c.to, KernelPath, first.Program)
		if err != nil {
			t.Fatal(err)
		}
		if !c.sees(first) || h.Gone() || h.Interface() != c.to || h.Way() != way {
			t.Error("it is not attached")
		}
		other, err := Attach(way, c.to, Handover, second.Program)
		if err != nil {
			t.Fatal(err)
		}
		if !c.sees(first) || !c.sees(second) {
			t.Error("two programs do not see the same packets")
		}
		if err := other.Close(); err != nil {
			t.Error(err)
		}
		if !c.sees(first) || c.sees(second) {
			t.Error("the second one does not go alone")
		}
		if err := h.Update(second.Program); err != nil {
			t.Fatal(err)
		}
		if c.sees(first) || !c.sees(second) {
			t.Error("the second one does not look in the place of the first")
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		if c.sees(second) {
			t.Error("it looks at packets after its end")
		}
		nothingLeft(t)

		// Its interface goes, and comes again.
		if h, err = Attach(way, c.to, KernelPath, first.Program); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("ip", "link", "del", "v0").CombinedOutput(); err != nil {
			t.Fatalf("%s", out)
		}
		if !h.Gone() {
			t.Error("it is there without the interface")
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
}

// nothingLeft wants no filter and no discipline at v0.
func nothingLeft(t *testing.T) {
	t.Helper()
	if all, err := link.OurFilters(); err != nil || len(all) > 0 {
		t.Errorf("filters %v, %v", all, err)
	}
	if out, err := exec.Command("tc", "qdisc", "show", "dev", "v0", "ingress").CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("tc: %s, %v", out, err)
	}
}

// With its last descriptor an attachment ends, whoever had that: nobody can detach it
// who is dead.
func TestHookGoesWithItsDescriptors(t *testing.T) {
	eachWay(t, func(t *testing.T, way Way) {
		c := newCable(t)
		p := newCounter(t)
		h, err := Attach(way, c.to, KernelPath, p.Program)
		if err != nil {
			t.Fatal(err)
		}
		kept, err := h.File()
		if err != nil {
			t.Fatal(err)
		}
		left, remains := h.Filter()
		if remains != (way == Clsact) {
			t.Errorf("what remains: %v", remains)
		}
		// The process is dead.
		if way == TCX {
			h.Close()
		} else {
			h.closeParts()
		}
		if !c.sees(p) {
			t.Error("it does not outlive the process, though its descriptor is kept")
		}
		kept.Close()
		// The kernel empties the array a moment later.
		for deadline := time.Now().Add(10 * time.Second); c.sees(p); {
			if time.Now().After(deadline) {
				t.Fatal("it looks at packets that nobody is responsible for")
			}
		}
		if remains {
			if all, err := link.OurFilters(); err != nil || len(all) != 1 || all[0] != left {
				t.Errorf("%v, %v; want %v", all, err, left)
			}
			if err := link.RemoveFilters([]link.Filter{left}); err != nil {
				t.Error(err)
			}
		}
		nothingLeft(t)
	})
}

// A filter that somebody removes is missed.
func TestHookThatSomebodyRemoved(t *testing.T) {
	c := newCable(t)
	h, err := Attach(Clsact, c.to, KernelPath, newCounter(t).Program)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tc", "qdisc", "del", "dev", "v0", "clsact").CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	if !h.Gone() {
		t.Error("it is there without the discipline")
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}

// A filter of somebody else that has a smaller preference decides before ours do, but
// not before a program that is attached by tcx.
func TestOrder(t *testing.T) {
	eachWay(t, func(t *testing.T, way Way) {
		c := newCable(t)
		drop, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}, // TC_ACT_SHOT
		})
		if err != nil {
			t.Fatal(err)
		}
		defer drop.Close()
		filters, err := link.OpenFilters()
		if err != nil {
			t.Fatal(err)
		}
		defer filters.Close()
		if err := filters.Put(link.Filter{Interface: c.to}, KernelPath.Preference()-1, "firewall", drop.FD()); err != nil {
			t.Fatal(err)
		}
		p := newCounter(t)
		h, err := Attach(way, c.to, KernelPath, p.Program)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		if sees := c.sees(p); sees != (way == TCX) {
			t.Errorf("packets that are dropped by a filter: seen %v", sees)
		}
	})
}

func TestTake(t *testing.T) {
	c := newCable(t)
	p, next := newCounter(t), newCounter(t)
	if best, err := Best(p.Program); err != nil {
		t.Fatal(err)
	} else if best != TCX {
		t.Skip("this kernel has no tcx")
	}
	h, err := Attach(TCX, c.to, KernelPath, p.Program)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := h.File()
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	h.Close()
	taken, err := Take(kept)
	if err != nil || taken.Interface() != c.to || taken.Way() != TCX {
		t.Fatal(taken, err)
	}
	if err := errors.Join(taken.Update(next.Program), kept.Close()); err != nil || !c.sees(next) {
		t.Error("the taken one does not go on", err)
	}
	if err := taken.Close(); err != nil || c.sees(next) {
		t.Error("the taken one does not end", err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if _, err := Take(null); err == nil {
		t.Error("something else is taken for an attachment")
	}
}
