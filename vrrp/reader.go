package vrrp

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"time"

	"github.com/rs/zerolog"
)

// largestMessage is a message with 255 addresses of the family of c, and one byte
// more so that a longer one is seen to be too long.
func (c *Config) largestMessage() int {
	if c.isIPv6() {
		return fixedLength + 255*16 + 1
	}
	return fixedLength + 255*4 + authLength + 1
}

// receive takes the adverts that t receives, as the node whose address is
// source, until t comes to its end, and says why it did.
func (r *Router) receive(t Transport, source netip.Addr, logged *limiter) error {
	buf := make([]byte, r.inForce.Load().largestMessage())
	for {
		n, src, dst, ttl, err := t.Receive(buf)
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			label, frame := errorLabel(err)
			r.countReceiveError(label)
			if !frame {
				return err
			}
			if skipped, ok := logged.allow(time.Now(), label); ok {
				r.log.Warn().Err(err).Str("error_kind", label).Int("not_logged", skipped).Msg("cannot receive an advert")
			}
			continue
		}
		r.counters.received.Add(1)
		p := Packet{Payload: buf[:n], Source: src, Destination: dst, TTL: ttl}
		advert, form, refusal := r.inForce.Load().judge(p, source)
		if refusal == Accepted {
			r.counters.checksums[form].Add(1)
			r.post(received{source: src, advert: advert})
			continue
		}
		r.counters.refused[refusal].Add(1)
		if refusal != RefusedVRID { // other virtual routers on the LAN are no trouble
			r.rememberRefused(refusal, src)
		}
		if skipped, ok := logged.allow(time.Now(), refusal.String()); ok {
			level := zerolog.WarnLevel
			if refusal == RefusedVRID {
				level = zerolog.DebugLevel
			}
			r.log.WithLevel(level).Stringer("refusal", refusal).Stringer("source", src).Int("not_logged", skipped).
				Msg("refused an advert")
		}
	}
}

// rememberRefused keeps why and from whom an advert was refused last, to a second:
// a flood shall not be work. Only the reader calls it.
func (r *Router) rememberRefused(refusal Refusal, source netip.Addr) {
	now := time.Now()
	last := r.refused.Load()
	if last != nil && last.Refusal == refusal && last.Source == source && now.Sub(last.At) < time.Second {
		return
	}
	r.refused.Store(&RefusedAdvert{Refusal: refusal, Source: source, At: now})
}

// errorLabel names an error of the transport. One that has a label concerns a
// single frame, any other one the socket.
func errorLabel(err error) (label string, frame bool) {
	var labelled interface{ Label() string }
	if errors.As(err, &labelled) {
		return labelled.Label(), true
	}
	return "socket", false
}

// countReceiveError counts by label. Only the reader calls it; everyone may
// read the map that is there.
func (r *Router) countReceiveError(label string) {
	next := make(map[string]uint64)
	if now := r.counters.receiveErrors.Load(); now != nil {
		maps.Copy(next, *now)
	}
	next[label]++
	r.counters.receiveErrors.Store(&next)
}
