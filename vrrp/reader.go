package vrrp

import (
	"errors"
	"maps"
	"net"
	"time"
)

const (
	// largestMessage is a version 3 message with 255 addresses, and one byte
	// more so that a longer one is seen to be too long.
	largestMessage = fixedLength + 255*4 + 1
	// receivePauseMin and receivePauseMax bound the pause after an error of
	// the socket, which may come back at once for ever.
	receivePauseMin = 10 * time.Millisecond
	receivePauseMax = time.Second
)

// read takes adverts from the transport until that is closed.
func (r *Router) read() {
	buf := make([]byte, largestMessage)
	var logged limiter
	pause := receivePauseMin
	for {
		n, src, dst, ttl, err := r.transport.Receive(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			label, frame := errorLabel(err)
			r.countReceiveError(label)
			if skipped, ok := logged.allow(time.Now(), label); ok {
				r.log.Warn().Err(err).Str("error_kind", label).Int("not_logged", skipped).Msg("cannot receive an advert")
			}
			if frame {
				continue
			}
			if !r.sleep(pause) {
				return
			}
			pause = min(2*pause, receivePauseMax)
			continue
		}
		pause = receivePauseMin
		r.counters.received.Add(1)
		p := Packet{Payload: buf[:n], Source: src, Destination: dst, TTL: ttl}
		advert, refusal := r.judge(p)
		if refusal == Accepted {
			r.post(received{source: src, advert: advert})
			continue
		}
		r.counters.refused[refusal].Add(1)
		// Other virtual routers on the LAN are no trouble.
		if refusal == RefusedVRID {
			continue
		}
		if skipped, ok := logged.allow(time.Now(), refusal.String()); ok {
			r.log.Warn().Stringer("refusal", refusal).Stringer("source", src).Int("not_logged", skipped).
				Msg("refused an advert")
		}
	}
}

// judge parses p, and refuses what is not meant for this router.
func (r *Router) judge(p Packet) (Advert, Refusal) {
	advert, form, refusal := Parse(p)
	switch {
	case refusal != Accepted:
		return Advert{}, refusal
	case advert.VRID != r.identity.VRID:
		// RFC 9568 section 7.1: the VRID must be configured on the interface.
		return Advert{}, RefusedVRID
	case p.Source == r.identity.Source:
		return Advert{}, RefusedOwn
	}
	r.counters.checksums[form].Add(1)
	return advert, Accepted
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

// sleep waits for d, and says whether the router still runs.
func (r *Router) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.done:
		return false
	}
}
