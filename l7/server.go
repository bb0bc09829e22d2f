package l7

import (
	"net/http"
	"sync/atomic"
	"time"
)

// server is what the connections of a door have in common. It is replaced, not
// changed, when the door's settings change.
type server struct {
	door  *door
	set   doorSettings
	awake time.Duration // for which an idle connection keeps its goroutine, at least
	keep  atomic.Bool   // connections are kept for another request
	// leaving: answers of HTTP/1.1 say that no request may follow, and idle
	// connections are kept for one more.
	leaving atomic.Bool
	date    dates
}

func newServer(d *door, set doorSettings, keep bool) *server {
	s := &server{door: d, set: set, awake: d.engine.awake}
	s.keep.Store(keep)
	return s
}

// keepsNext reports whether a request of HTTP/1.1 may be followed by another one on
// its connection.
func (s *server) keepsNext() bool { return s.keep.Load() && !s.leaving.Load() }

// retire lets the clients go: idle connections are closed, the others when their
// answers are out, which say so.
func (s *server) retire() {
	s.keep.Store(false)
	s.door.place.wake(s)
}

// dates makes the values of Date fields, once a second.
type dates struct{ last atomic.Pointer[date] }

type date struct {
	second int64
	text   string
}

func (d *dates) text(now time.Time) string {
	second := now.Unix()
	if last := d.last.Load(); last != nil && last.second == second {
		return last.text
	}
	next := &date{second, now.UTC().Format(http.TimeFormat)}
	d.last.Store(next)
	return next.text
}
