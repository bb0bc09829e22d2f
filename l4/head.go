package l4

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"appliance/internal/pool"
	"appliance/internal/proxyproto"
)

// table says which pool a connection goes to.
type table struct {
	exact    map[string]*pool.Pool // by server name
	wildcard map[string]*pool.Pool // by what follows the *, such as ".example.com"
	fallback *pool.Pool            // for everything else; nil: refused
	all      []string              // the names of all pools
}

// byName reports whether the server name matters.
func (t *table) byName() bool { return len(t.exact)+len(t.wildcard) > 0 }

// find returns the pool for a server name, nil if there is none. An exact name
// comes before a wildcard, the longest wildcard before others. A wildcard stands
// for one label or more.
func (t *table) find(name string) *pool.Pool {
	if p := t.exact[name]; p != nil {
		return p
	}
	for rest := name; ; {
		i := strings.IndexByte(rest, '.')
		if i < 0 {
			return t.fallback
		}
		if p := t.wildcard[rest[i:]]; p != nil && i > 0 {
			return p
		}
		rest = rest[i+1:]
	}
}

// head is what has to be read of a connection before it is known where it goes.
type head struct {
	proxy bool // a PROXY header comes first
	hello bool // a ClientHello comes next
}

// trusts reports whether a PROXY header of this peer is to be believed, and
// expected.
func (d *door) trusts(peer netip.Addr) bool {
	peer = peer.Unmap().WithZone("")
	return slices.ContainsFunc(d.trusted, func(p netip.Prefix) bool { return p.Contains(peer) })
}

// readHead looks at what the client has sent so far. Nothing but a PROXY header
// is taken: the rest stays in the socket for the server, so that no buffer is
// held, and bytes that were looked at can be spliced.
func (s *session) readHead() {
	for s.head.proxy || s.head.hello {
		if s.client.failed {
			s.abort(fmt.Errorf("client: %w", orReset(pendingError(s.client.fd))))
			return
		}
		if !s.client.readable {
			return
		}
		n, err := rawPeek(s.client.fd, s.loop.in[:])
		if err == errAgain {
			s.client.readable = false
			return
		}
		if err != nil {
			s.abort(fmt.Errorf("client: %w", err))
			return
		}
		b := s.loop.in[:n]
		var more bool
		if s.head.proxy {
			more, err = s.takeProxy(b)
		} else {
			more = s.lookAtHello(b)
		}
		if err != nil {
			s.door.service.malformed.Add(1)
			s.refuse(err)
			return
		}
		if more {
			if s.client.final {
				s.headIsOver(errors.New("the client ended before it had said where to go"))
				return
			}
			// What is there was reported; what is yet to come will be.
			s.client.readable = false
			return
		}
	}
	s.admit()
}

// takeProxy takes the PROXY header off if it is complete in b.
func (s *session) takeProxy(b []byte) (more bool, err error) {
	h, n, err := proxyproto.Parse(b)
	if errors.Is(err, proxyproto.ErrIncomplete) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if _, err := rawRead(s.client.fd, b[:n]); err != nil {
		return false, err
	}
	if h.Source.IsValid() {
		s.source, s.dest = h.Source, h.Destination
	}
	s.head.proxy = false
	return false, nil
}

// lookAtHello chooses the pool if the ClientHello in b is complete, or none.
func (s *session) lookAtHello(b []byte) (more bool) {
	name, err := serverName(b)
	if errors.Is(err, errMore) && len(b) < len(s.loop.in) {
		return true
	}
	s.head.hello = false
	if err == nil && name != "" {
		s.pool = s.door.table.find(name)
	}
	return false
}

// headIsOver goes on without the head that did not come, because of why: the
// fallback may be for a client that waits for the server's first words.
func (s *session) headIsOver(why error) {
	if s.head.proxy || s.pool == nil {
		s.refuse(why)
		return
	}
	s.head = head{}
	s.admit()
}

// sendProxy tells the server who the client is, if it wants to know. The bytes
// are the first ones, so that the socket has room for them.
func (s *session) sendProxy() error {
	h := proxyproto.Header{Source: s.source, Destination: s.dest}
	var b []byte
	switch s.target.SendProxy() {
	case "":
		return nil
	case "v1":
		b = proxyproto.AppendV1(s.loop.in[:0], h)
	default:
		b = proxyproto.AppendV2(s.loop.in[:0], h)
	}
	n, err := rawWrite(s.server.fd, b)
	if err == nil && n < len(b) {
		err = errors.New("no room for the PROXY header")
	}
	return err
}
