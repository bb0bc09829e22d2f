package steer

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"appliance/internal/ingress"
)

// Options say which packets are handed over, and to whom. All is needed.
type Options struct {
	// Interface is the index of the interface on the LAN that both nodes share,
	// in the network namespace of the calling thread. Under a virtual MAC address
	// it is the one that has this address's interface on it.
	Interface int
	// Addresses are the virtual addresses, 1024 at most.
	Addresses []netip.Addr
	// At is the hardware address at which the LAN finds them, Own the one of
	// Interface, Peer the one of the other node's interface on this LAN. Each has
	// 6 bytes.
	At, Own, Peer net.HardwareAddr
	// Way is how the program is attached; default ingress.Best.
	Way ingress.Way
}

// Program is one that runs. Its methods are safe for concurrent use. It goes with
// the process at the latest.
type Program struct {
	objects steerObjects
	hook    *ingress.Hook
}

// Attach begins to hand over. The caller calls Close. It needs CAP_BPF, CAP_PERFMON
// (the program calculates with addresses in packets) and CAP_NET_ADMIN; without
// them, or on a kernel that is too old, the error says so.
func Attach(o Options) (*Program, error) {
	p := &Program{}
	if err := load(&p.objects, o); err != nil {
		return nil, err
	}
	var err error
	if o.Way == "" {
		o.Way, err = ingress.Best(p.objects.Steer)
	}
	if err == nil { // after the kernel path: what that carries is carried
		p.hook, err = ingress.Attach(o.Way, o.Interface, ingress.Handover, p.objects.Steer)
	}
	if err != nil {
		p.objects.Close()
		return nil, fmt.Errorf("attach the program: %w", explain(err))
	}
	return p, nil
}

// Filter returns what has to be removed when this process is dead, and whether there
// is such a thing.
func (p *Program) Filter() (ingress.Filter, bool) { return p.hook.Filter() }

// Supported returns nil if this machine can run the program, or what it lacks. It loads
// it, and with it what is kept of the kernel's types, so that Attach is quicker.
func Supported() error {
	var objects steerObjects
	none := make(net.HardwareAddr, 6)
	if err := load(&objects, Options{At: none, Own: none, Peer: none}); err != nil {
		return err
	}
	return objects.Close()
}

// load loads the program and fills its maps.
func load(objects *steerObjects, o Options) error {
	spec, err := loadSteer()
	if err != nil {
		return err
	}
	for name, mac := range map[string]net.HardwareAddr{steerVarAt: o.At, steerVarOwn: o.Own, steerVarPeer: o.Peer} {
		if len(mac) != 6 {
			return fmt.Errorf("%q is no hardware address of Ethernet", mac)
		}
		if err := spec.Variables[name].Set([6]byte(mac)); err != nil {
			return err
		}
	}
	if err := spec.LoadAndAssign(objects, nil); err != nil {
		return fmt.Errorf("load the program: %w", explain(err))
	}
	for _, a := range o.Addresses {
		if err := objects.Addresses.Put(a.As16(), uint8(1)); err != nil {
			objects.Close()
			return fmt.Errorf("%s: %w", a, err)
		}
	}
	return nil
}

// explain says what is missing on this machine.
func explain(err error) error {
	switch {
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("this kernel cannot; Linux 5.10 or later, with BPF and BTF, can: %w", err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES): // the latter without CAP_PERFMON alone
		return fmt.Errorf("CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are needed: %w", err)
	}
	return err
}

// Handed returns how many packets have been handed over.
func (p *Program) Handed() (packets uint64) {
	var each []uint64 // by CPU
	if err := p.objects.Handed.Lookup(uint32(0), &each); err != nil {
		return 0 // it is closed
	}
	for _, n := range each {
		packets += n
	}
	return packets
}

// Forget ends the handing over of packets to some of the addresses.
func (p *Program) Forget(addresses []netip.Addr) error {
	var failed []error
	for _, a := range addresses {
		if err := p.objects.Addresses.Delete(a.As16()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			failed = append(failed, fmt.Errorf("%s: %w", a, err))
		}
	}
	return errors.Join(failed...)
}

// Gone says that the addresses have gone to the other node: from now on requests for
// connections are handed over, too.
func (p *Program) Gone() error { return p.objects.Gone.Set(uint8(1)) }

// Close ends the handing over.
func (p *Program) Close() error { return errors.Join(p.hook.Close(), p.objects.Close()) }
