package events

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

const (
	// Kept is how many events are in memory at least once there were so many.
	Kept = 2000
	// retryPause is the time between attempts to write what could not be written.
	retryPause = 10 * time.Second
	// closePatience is how long Close waits for the disk.
	closePatience = 2 * time.Second
)

// Log is the history of this node. Its methods are safe for concurrent use, and
// none but Open and Close waits for a disk.
type Log struct {
	file file
	log  zerolog.Logger
	// trouble is why the latest attempt to write failed; empty when it did not.
	trouble atomic.Pointer[string]
	wake    chan struct{} // to the writer; holds one
	closing chan struct{} // closed by Close
	ended   chan struct{} // closed when the writer has ended

	// mu is held to copy or append some events, never while anything is waited
	// for: whoever runs an election may call Add.
	mu      sync.Mutex
	list    []Event // by Seq
	last    uint64  // the Seq of the latest
	changed chan struct{}
}

// Open returns the history that the file at path holds, and goes on writing
// there. An empty path means none: the history is in memory alone, as it is while
// the file cannot be read or written, which is logged. The caller closes it.
func Open(path string, log zerolog.Logger) *Log {
	l := &Log{
		file:    file{path: path},
		log:     log,
		wake:    make(chan struct{}, 1),
		closing: make(chan struct{}),
		ended:   make(chan struct{}),
		changed: make(chan struct{}),
	}
	l.trouble.Store(new(string))
	if path == "" {
		close(l.ended)
		return l
	}
	list, err := l.file.read()
	if err != nil {
		l.say(err)
	}
	l.list = list[max(0, len(list)-Kept):]
	if len(list) > 0 {
		l.last = list[len(list)-1].Seq
	}
	go l.write(l.last)
	return l
}

// Add notes that something happened now: to subject, in words that include the
// cause. details are pairs of key and value.
func (l *Log) Add(kind Kind, subject, text string, details ...string) {
	e := newEvent(kind, subject, text, details)
	l.mu.Lock()
	l.last++
	e.Seq = l.last
	if l.list = append(l.list, e); len(l.list) >= 2*Kept {
		l.list = slices.Clone(l.list[len(l.list)-Kept:])
	}
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// After returns the events in memory whose Seq is larger than seq, in order, and
// a channel that is closed when there is another one. The caller must not change
// the list.
func (l *Log) After(seq uint64) (list []Event, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, _ := slices.BinarySearchFunc(l.list, seq+1, func(e Event, want uint64) int {
		switch {
		case e.Seq < want:
			return -1
		case e.Seq > want:
			return 1
		}
		return 0
	})
	return l.list[i:len(l.list):len(l.list)], l.changed
}

// Path returns the name of the file; empty when there is none.
func (l *Log) Path() string { return l.file.path }

// Trouble says why the file cannot be written now; empty when it can.
func (l *Log) Trouble() string { return *l.trouble.Load() }

// Close writes what is not written yet, and ends the writing. It waits for a
// disk for two seconds at most. It is to be called once.
func (l *Log) Close() {
	close(l.closing)
	select {
	case <-l.ended:
	case <-time.After(closePatience):
		l.log.Warn().Str("path", l.file.path).Msg("the disk does not take the event history; it is left behind")
	}
}

// write keeps the file up to date until Close. written is the Seq of the latest
// event that is in it.
func (l *Log) write(written uint64) {
	defer close(l.ended)
	for final := false; !final; {
		var retry <-chan time.Time
		if l.Trouble() != "" {
			retry = time.After(retryPause)
		}
		select {
		case <-l.wake:
		case <-retry:
		case <-l.closing:
			final = true
		}
		list, _ := l.After(written)
		if len(list) == 0 {
			continue
		}
		if lost := list[0].Seq - written - 1; lost > 0 {
			l.log.Warn().Uint64("events", lost).Str("path", l.file.path).Msg("events were not written before there were too many")
		}
		if err := l.file.write(list); err != nil {
			l.say(err)
			continue
		}
		written = list[len(list)-1].Seq
		if l.Trouble() != "" {
			l.trouble.Store(new(string))
			l.log.Info().Str("path", l.file.path).Msg("the event history is written again")
		}
	}
}

// say logs a trouble with the file, once for each.
func (l *Log) say(err error) {
	why := err.Error()
	if why == l.Trouble() {
		return
	}
	l.trouble.Store(&why)
	l.log.Warn().Err(err).Str("path", l.file.path).Msg("the event history is in memory only; it will not survive a restart")
}
