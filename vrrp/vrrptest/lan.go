// Package vrrptest is a LAN made of channels for tests of package vrrp and of
// what is built on it: Join gives a vrrp.Open, NewHolder a vrrp.Addresses.
package vrrptest

import (
	"errors"
	"net"
	"net/netip"
	"sync"

	"appliance/vrrp"
)

// portBuffer is how many packets wait at a port before more are lost, as at a
// socket.
const portBuffer = 256

// ErrUnplugged is what Send returns at a port that is unplugged.
var ErrUnplugged = errors.New("unplugged")

// errGone is what Receive returns at a port that was broken.
var errGone = errors.New("the port is gone")

// LAN carries every packet that a port sends to all other ports. The zero
// value is ready. It is safe for concurrent use.
type LAN struct {
	mu    sync.Mutex
	ports []*Port
}

// packet is a message with its header.
type packet struct {
	payload  []byte
	src, dst netip.Addr
	ttl      uint8
}

// Port is one node's connection to a LAN.
type Port struct {
	lan   *LAN
	addr  netip.Addr
	inbox chan packet
	// Guarded by lan.mu:
	deaf, mute bool
	broken     error         // why Open fails
	stalled    chan struct{} // closed when Receive may go on; nil unless it waits
	gone       chan struct{} // closed by Break
}

// door is a Port as one Open gives it.
type door struct {
	*Port
	gone      chan struct{}
	closed    chan struct{}
	closeOnce sync.Once
}

var (
	_ vrrp.Transport = (*door)(nil)
	_ vrrp.Backlog   = (*door)(nil)
)

// Join adds a port whose adverts come from addr. Its Open is a vrrp.Open.
func (l *LAN) Join(addr netip.Addr) *Port {
	p := &Port{lan: l, addr: addr, inbox: make(chan packet, portBuffer), gone: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ports = append(l.ports, p)
	return p
}

// Inject delivers a packet with any header to all ports.
func (l *LAN) Inject(payload []byte, src, dst netip.Addr, ttl uint8) {
	l.deliver(nil, packet{payload: append([]byte(nil), payload...), src: src, dst: dst, ttl: ttl})
}

func (l *LAN) deliver(from *Port, k packet) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.ports {
		if p == from || p.deaf {
			continue
		}
		select {
		case p.inbox <- k:
		default: // lost, as at a socket whose buffer is full
		}
	}
}

// Cut makes p deaf (it receives nothing), mute (nothing it sends arrives), or
// both; Cut(false, false) heals it.
func (p *Port) Cut(deaf, mute bool) {
	p.lan.mu.Lock()
	defer p.lan.mu.Unlock()
	p.deaf, p.mute = deaf, mute
}

// Open opens the port, or returns the error that Break named.
func (p *Port) Open() (vrrp.Transport, netip.Addr, error) {
	p.lan.mu.Lock()
	defer p.lan.mu.Unlock()
	if p.broken != nil {
		return nil, netip.Addr{}, p.broken
	}
	return &door{Port: p, gone: p.gone, closed: make(chan struct{})}, p.addr, nil
}

// Break makes every Receive under way and every Open return err, as when an
// interface goes; nil makes Open work again.
func (p *Port) Break(err error) {
	p.lan.mu.Lock()
	defer p.lan.mu.Unlock()
	p.broken = err
	if err != nil {
		close(p.gone)
		p.gone = make(chan struct{})
	}
}

// Stall makes every Receive that begins from now on wait, whatever has arrived,
// until the returned function is called: as a goroutine does that gets no CPU.
func (p *Port) Stall() (resume func()) {
	p.lan.mu.Lock()
	defer p.lan.mu.Unlock()
	stalled := make(chan struct{})
	p.stalled = stalled
	return func() { close(stalled) }
}

// Move gives the port another address.
func (p *Port) Move(addr netip.Addr) {
	p.lan.mu.Lock()
	defer p.lan.mu.Unlock()
	p.addr = addr
}

// Send delivers msg to all other ports, whatever it is addressed to. It returns ErrUnplugged when the port
// is both deaf and mute, and net.ErrClosed after Close.
func (d *door) Send(msg []byte, to netip.Addr) error {
	select {
	case <-d.closed:
		return net.ErrClosed
	default:
	}
	d.lan.mu.Lock()
	deaf, mute, src := d.deaf, d.mute, d.addr
	d.lan.mu.Unlock()
	switch {
	case mute && deaf:
		return ErrUnplugged
	case mute:
		return nil
	}
	d.lan.deliver(d.Port, packet{payload: append([]byte(nil), msg...), src: src, dst: to, ttl: 255})
	return nil
}

// Receive waits for a packet; see vrrp.Transport.
func (d *door) Receive(buf []byte) (n int, src, dst netip.Addr, ttl uint8, err error) {
	d.lan.mu.Lock()
	stalled := d.stalled
	d.lan.mu.Unlock()
	if stalled != nil {
		select {
		case <-stalled:
		case <-d.gone:
			return 0, netip.Addr{}, netip.Addr{}, 0, errGone
		case <-d.closed:
			return 0, netip.Addr{}, netip.Addr{}, 0, net.ErrClosed
		}
	}
	select {
	case k := <-d.inbox:
		return copy(buf, k.payload), k.src, k.dst, k.ttl, nil
	case <-d.gone:
		return 0, netip.Addr{}, netip.Addr{}, 0, errGone
	case <-d.closed:
		return 0, netip.Addr{}, netip.Addr{}, 0, net.ErrClosed
	}
}

// Unread says whether packets wait; see vrrp.Backlog.
func (d *door) Unread() bool { return len(d.inbox) > 0 }

// Close ends a Receive under way. Closing twice is no error.
func (d *door) Close() error {
	d.closeOnce.Do(func() { close(d.closed) })
	return nil
}
