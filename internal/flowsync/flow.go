package flowsync

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// The protocols of flows, by their numbers in IP.
const (
	TCP = 6
	UDP = 17
)

// Key is what tells a flow from all others.
type Key struct {
	// Protocol is TCP or UDP.
	Protocol uint8
	// Client is who connected, Listen the address of the service. Both are of one
	// family, and have no zone.
	Client, Listen netip.AddrPort
}

// Flow is one connection, or the datagrams of one client, under way.
type Flow struct {
	Key
	// Server is where packets go, and Port stands for the client there.
	Server netip.AddrPort
	Port   uint16
	// Mode is what happens to packets, less than 4, as the kernel path numbers it.
	Mode uint8
	// ClientEnded and ServerEnded say which sides have ended their direction.
	ClientEnded, ServerEnded bool
	// Idle is for how long no packet was seen, in whole seconds, at most 136
	// years.
	Idle time.Duration
}

// Change is a flow that is new or has changed, or one that has ended, of which
// only the key counts.
type Change struct {
	Flow
	Gone bool
}

// A change on the wire: flags, protocol, the addresses and ports of client and
// service, and unless it is gone those of the server, the port that stands for the
// client, and how many seconds it was idle. Addresses of IPv4 have 4 bytes.
const (
	flagGone        = 1 << 0
	flagIPv6        = 1 << 1
	flagClientEnded = 1 << 2
	flagServerEnded = 1 << 3
	modeShift       = 4
	flagsKnown      = flagGone | flagIPv6 | flagClientEnded | flagServerEnded | 3<<modeShift
)

// maxChange is the most bytes that one change takes.
const maxChange = 2 + 3*(16+2) + 2 + 4

// errFlow is the error of a flow that cannot be told, or was not told as it should
// have been.
var errFlow = errors.New("no flow")

// valid reports whether c can be told.
func (c Change) valid() bool {
	is4 := c.Client.Addr().Is4()
	places := []netip.AddrPort{c.Client, c.Listen, c.Server}
	if c.Gone {
		places = places[:2]
	}
	for _, p := range places {
		a := p.Addr()
		if !a.IsValid() || a.Is4() != is4 || a.Is4In6() || a.Zone() != "" {
			return false
		}
	}
	return (c.Protocol == TCP || c.Protocol == UDP) && c.Mode < 4 && c.Idle >= 0 && c.Idle/time.Second <= 1<<32-1
}

// appendChange appends a valid change to b.
func appendChange(b []byte, c Change) []byte {
	flags := uint8(0)
	if c.Client.Addr().Is6() {
		flags |= flagIPv6
	}
	if c.Gone {
		b = append(b, flags|flagGone, c.Protocol)
		return appendPlace(appendPlace(b, c.Client), c.Listen)
	}
	if c.ClientEnded {
		flags |= flagClientEnded
	}
	if c.ServerEnded {
		flags |= flagServerEnded
	}
	b = append(b, flags|c.Mode<<modeShift, c.Protocol)
	b = appendPlace(appendPlace(appendPlace(b, c.Client), c.Listen), c.Server)
	b = binary.BigEndian.AppendUint16(b, c.Port)
	return binary.BigEndian.AppendUint32(b, uint32(c.Idle/time.Second))
}

func appendPlace(b []byte, a netip.AddrPort) []byte {
	b = append(b, a.Addr().AsSlice()...)
	return binary.BigEndian.AppendUint16(b, a.Port())
}

// readChange reads the change that b begins with, and returns what follows it.
// Only what appendChange writes is taken.
func readChange(b []byte) (c Change, rest []byte, err error) {
	r := reader{b: b}
	flags := r.byte()
	c.Protocol = r.byte()
	size := 4
	if flags&flagIPv6 != 0 {
		size = 16
	}
	c.Client, c.Listen = r.place(size), r.place(size)
	if c.Gone = flags&flagGone != 0; !c.Gone {
		c.Server, c.Port = r.place(size), r.uint16()
		c.Idle = time.Duration(r.uint32()) * time.Second
		c.Mode = flags >> modeShift & 3
		c.ClientEnded, c.ServerEnded = flags&flagClientEnded != 0, flags&flagServerEnded != 0
	}
	switch {
	case r.short:
		return Change{}, nil, fmt.Errorf("%w: it is cut off", errFlow)
	case flags&^flagsKnown != 0, c.Gone && flags&^(flagGone|flagIPv6) != 0, !c.valid():
		return Change{}, nil, fmt.Errorf("%w: of that kind", errFlow)
	}
	return c, r.b, nil
}

// reader takes values off the front of b. Where there are too few bytes it
// returns zeros and sets short.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if len(r.b) < n {
		r.b, r.short = nil, true
		return make([]byte, n)
	}
	taken := r.b[:n]
	r.b = r.b[n:]
	return taken
}

func (r *reader) byte() uint8    { return r.take(1)[0] }
func (r *reader) uint16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) uint32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

// place reads an address of size bytes and a port.
func (r *reader) place(size int) netip.AddrPort {
	a, _ := netip.AddrFromSlice(r.take(size))
	return netip.AddrPortFrom(a, r.uint16())
}
