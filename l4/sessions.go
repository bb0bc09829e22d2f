package l4

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"appliance/internal/pool"
)

// SessionInfo describes a connection, or a session of datagrams, at one moment.
type SessionInfo struct {
	// ID is unique as long as the process lives.
	ID      uint64
	Service string
	// State is "reading" before it is known where the connection goes,
	// "waiting" for a server that is not full, "connecting", "relaying", or
	// "settling" when only the client has yet to acknowledge the last bytes; it is
	// always "datagrams" for those.
	State string
	// Client is who connected; where a PROXY header told, it is the client that
	// it named, and Peer the proxy.
	Client, Peer, Local netip.AddrPort
	// Pool and Server name the server; Server is empty if there is none yet.
	Pool, Server  string
	Age           time.Duration
	BytesToServer int64
	BytesToClient int64
}

// String returns the name of the phase in SessionInfo.State.
func (p phase) String() string {
	switch p {
	case reading:
		return "reading"
	case waiting:
		return "waiting"
	case connecting:
		return "connecting"
	case relaying:
		return "relaying"
	case settling:
		return "settling"
	}
	return "ended"
}

// Sessions describes all connections and sessions of datagrams under way, the
// oldest first.
func (e *Engine) Sessions() []SessionInfo {
	var all []SessionInfo
	for _, l := range e.loops {
		l.call(func() {
			now := time.Since(l.epoch)
			for s := l.first; s != nil; s = s.next {
				all = append(all, s.info(now))
			}
		})
	}
	e.datagrams(func(s *udpSession) { all = append(all, s.info(time.Since(s.port.loop.epoch))) })
	slices.SortFunc(all, func(a, b SessionInfo) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

func (s *session) info(now time.Duration) SessionInfo {
	i := SessionInfo{
		ID: s.id, Service: s.door.service.name, State: s.phase.String(),
		Client: s.source, Peer: s.peer, Local: s.local, Age: now - s.began,
		BytesToServer: s.toServer.moved, BytesToClient: s.toClient.moved,
	}
	if s.pool != nil {
		i.Pool = s.pool.Name()
	}
	if s.target != nil {
		i.Server = s.target.Label()
	}
	return i
}

// CutSessions resets the connections and ends the sessions of datagrams that are
// meant, and returns how many those are. meant is called from the engine's goroutines.
func (e *Engine) CutSessions(meant func(SessionInfo) bool) int {
	n := e.cutDatagrams(func(s *udpSession) bool { return meant(s.info(time.Since(s.port.loop.epoch))) })
	return n + e.cut(errCommand, func(s *session) bool { return meant(s.info(time.Since(s.loop.epoch))) })
}

// serverDown resets the connections to a server; those that it has not accepted yet go
// to another one.
func (e *Engine) serverDown(target *pool.Server) {
	why := &downError{target.Label()}
	for _, l := range e.loops {
		l.post(func() {
			l.each(func(s *session) {
				switch {
				case s.target != target:
				case s.phase == connecting:
					s.passOver(why)
					s.connect()
				default:
					s.abort(why)
				}
			})
		})
	}
}

// downError is the end of the sessions of a server that the checks find dead.
type downError struct{ server string }

func (e *downError) Error() string { return "server " + e.server + " is down" }
