package kernel

import (
	"errors"
	"net"
	"net/netip"
)

// Options are what a Path is opened with.
type Options struct {
	// Flows is how many flows fit, at most MaxFlows; default 262,144. A flow takes
	// about 400 bytes of the kernel's memory while it is there.
	Flows int
	// HalfOpen is how many flows may be in their handshake at a time; default a
	// quarter of Flows. Beyond it, new connections go to the proxy.
	HalfOpen int
	// Ports are the first and the last port that stand for clients whose own port
	// is taken. The nodes of a pair need disjoint ranges.
	Ports [2]uint16
	// Route returns the index of the interface by which an address is reached, or
	// 0. It is asked for each server, at Set and every few seconds. It is what
	// packets are sent by where the kernel does not forward (ip_forward, or
	// forwarding of the interface, is 0); nil if it does.
	Route func(netip.Addr) int
}

// MaxFlows bounds Options.Flows.
const MaxFlows = 1 << 22

// Path is a loaded program with its services and flows. Its methods may be called
// from any goroutine. Close ends it.
type Path struct{}

// Interface is one that packets of services, or answers of their servers, come
// in by.
type Interface struct {
	// Index is the interface's. With a virtual MAC it is that of the interface
	// below the macvlan, where frames are seen first.
	Index int
	// VirtualMACs are the MAC addresses for which frames are taken besides the
	// interface's own: those of the virtual routers that are active here.
	VirtualMACs []net.HardwareAddr
}

// ErrUnsupported is what the errors of Open are when this machine cannot run the
// program at all: the kernel is too old, eBPF is switched off, or the process
// lacks the capability.
var ErrUnsupported = errors.New("the kernel path is not available")

// Open loads the program, for the network namespace of the calling thread. Its
// error says in words what this machine lacks.
func Open(o Options) (*Path, error) { return nil, ErrUnsupported }

// Supported returns nil if Open can succeed, or else its error. It attaches
// nothing.
func Supported() error { return ErrUnsupported }

// Attach has packets of these interfaces looked at, and those of no others: call
// it again with all of them whenever one comes, goes, or changes its MACs. What
// cannot be attached is named in the error; the others are attached. Programs
// that others attach afterwards to the same place see only what is left to the
// stack.
func (p *Path) Attach(interfaces []Interface) error { return nil }

// Set makes these the services. Services of the same name go on, with their
// flows and counters, and so do the servers of the same address within them. Flows
// of services and servers that are gone go on until they end. An error changes
// nothing.
func (p *Path) Set(services []Service) error { return nil }

// Close detaches the program and forgets all flows. The kernel does the same
// when the process dies, however it does.
func (p *Path) Close() error { return nil }
