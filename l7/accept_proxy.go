package l7

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"time"

	"appliance/internal/listen"
	"appliance/internal/proxyproto"
)

// AcceptProxy says who is believed about the client's address: connections from
// these networks must begin with a header of the PROXY protocol, version 1 or 2.
type AcceptProxy struct {
	From []netip.Prefix `toml:"from"`
}

func (a *AcceptProxy) validate(problem func(key, message string)) {
	if a != nil && len(a.From) == 0 {
		problem("accept_proxy.from", "accept_proxy needs the networks of the proxies that send the header")
	}
}

// leastProxyHeader is the shortest header that there is, "PROXY UNKNOWN" with its
// CR LF. What is read beyond a header would be missing from the first request.
const leastProxyHeader = 15

// clientOf returns the address of who is at the other end of a connection: what
// the header says if there has to be one, which it takes off, else the real one.
// It returns at the latest when ctx ends.
func (st *state) clientOf(ctx context.Context, tcp *listen.Conn) (netip.Addr, error) {
	peer := plainAddr(tcp.Peer().Addr())
	if !st.proxies.contain(peer) {
		return peer, nil
	}
	defer context.AfterFunc(ctx, func() { tcp.Close() })()
	if err := tcp.SetReadDeadline(time.Now().Add(st.cfg.Timeouts.EffectiveHeader())); err != nil {
		return peer, err
	}
	h, err := readProxyHeader(tcp)
	if err != nil {
		return peer, err
	}
	if h.Source.IsValid() {
		peer = plainAddr(h.Source.Addr())
	}
	return peer, tcp.SetReadDeadline(time.Time{})
}

// readProxyHeader reads a header and not a byte more.
func readProxyHeader(r io.Reader) (proxyproto.Header, error) {
	b := make([]byte, leastProxyHeader, 256)
	if _, err := io.ReadFull(r, b); err != nil {
		return proxyproto.Header{}, err
	}
	for {
		h, _, err := proxyproto.Parse(b)
		if !errors.Is(err, proxyproto.ErrIncomplete) {
			return h, err
		}
		more := 1
		if b[0] != 'P' && len(b) > leastProxyHeader {
			more = (int(b[14])<<8 | int(b[15])) - (len(b) - 16)
		}
		begin := len(b)
		b = append(b, make([]byte, more)...)
		if _, err := io.ReadFull(r, b[begin:]); err != nil {
			return proxyproto.Header{}, err
		}
	}
}
