// Package vrrptest is a LAN made of channels for tests of package vrrp and of
// what is built on it: Join gives a vrrp.Transport, NewHolder a vrrp.Addresses.
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
	lan       *LAN
	addr      netip.Addr
	inbox     chan packet
	closed    chan struct{}
	closeOnce sync.Once
	deaf      bool // guarded by lan.mu, as is mute
	mute      bool
}

var _ vrrp.Transport = (*Port)(nil)

// Join adds a port whose adverts come from addr.
func (l *LAN) Join(addr netip.Addr) *Port {
	p := &Port{lan: l, addr: addr, inbox: make(chan packet, portBuffer), closed: make(chan struct{})}
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

// Send delivers msg to all other ports. It returns ErrUnplugged when p is both
// deaf and mute, and net.ErrClosed after Close.
func (p *Port) Send(msg []byte) error {
	select {
	case <-p.closed:
		return net.ErrClosed
	default:
	}
	p.lan.mu.Lock()
	deaf, mute := p.deaf, p.mute
	p.lan.mu.Unlock()
	switch {
	case mute && deaf:
		return ErrUnplugged
	case mute:
		return nil
	}
	p.lan.deliver(p, packet{payload: append([]byte(nil), msg...), src: p.addr, dst: vrrp.Group(), ttl: 255})
	return nil
}

// Receive waits for a packet; see vrrp.Transport.
func (p *Port) Receive(buf []byte) (n int, src, dst netip.Addr, ttl uint8, err error) {
	select {
	case k := <-p.inbox:
		return copy(buf, k.payload), k.src, k.dst, k.ttl, nil
	case <-p.closed:
		return 0, netip.Addr{}, netip.Addr{}, 0, net.ErrClosed
	}
}

// Close ends a Receive under way. Closing twice is no error.
func (p *Port) Close() error {
	p.closeOnce.Do(func() { close(p.closed) })
	return nil
}
