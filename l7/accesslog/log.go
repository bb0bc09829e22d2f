package accesslog

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

// Stdout, in the place of a path, is the standard output of the process.
const Stdout = "stdout"

const (
	// bufferSize is what is written at a time, in bytes.
	bufferSize = 64 << 10
	// maxBuffers bounds what waits while others are written, 4 MiB each.
	maxBuffers = 64
	// keptBuffers are kept for use again.
	keptBuffers = 4
	// flushEvery is how long a line waits at most until it is written.
	flushEvery = 500 * time.Millisecond
	// complainEvery is how often trouble that lasts is logged.
	complainEvery = 10 * time.Second
)

// Log is one file of lines, or the standard output. Who opened it calls Release;
// when nobody holds it any more, all that was added is written and the file
// closed, see Wait. All methods may be called from any goroutine.
type Log struct {
	path string
	log  zerolog.Logger

	lines, dropped atomic.Uint64
	trouble        atomic.Pointer[string] // why it cannot be written now; nil: it can
	holders        atomic.Int64

	mu      sync.Mutex
	filling *buffer   // nil: nothing waits but what is full
	full    []*buffer // to be written before filling
	free    []*buffer
	orders  []chan<- error // to be told when the file has been opened anew
	ended   bool           // nothing is added any more

	wake chan struct{} // there is something to do for run
	over chan struct{} // closed when run has ended

	// Of the goroutine of run:
	batch     []*buffer
	file      io.WriteCloser
	looked    time.Time // when it was last seen that the path leads to file
	midLine   bool      // the last line that was written is not whole
	complains time.Time // when dropped lines may be logged next
	told      uint64    // lines that were dropped, as logged last

	unwritable error // of the latest write
	unopened   error // why the file could not be opened anew
}

// buffer is some lines.
type buffer struct {
	b     []byte
	lines int
}

// Stats describes a log at one moment.
type Stats struct {
	// Path is the file, or Stdout.
	Path string
	// Lines have been written, Dropped lines could not be.
	Lines, Dropped uint64
	// Trouble is why the file cannot be written now; empty when it can.
	Trouble string
}

// Open opens the file at path for lines to be added at its end, and makes it with
// mode 0640 if need be; its folder must exist. The caller, its first holder,
// calls Release.
func Open(path string, log zerolog.Logger) (*Log, error) {
	f, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("access log: %w", err)
	}
	l := newLog(path, f, log)
	go l.run()
	return l, nil
}

func newLog(path string, f io.WriteCloser, log zerolog.Logger) *Log {
	l := &Log{
		path: path, log: log, file: f, full: make([]*buffer, 0, maxBuffers),
		wake: make(chan struct{}, 1), over: make(chan struct{}),
	}
	l.holders.Store(1)
	return l
}

// standardOutput is not closed.
type standardOutput struct{ io.Writer }

func (standardOutput) Close() error { return nil }

func open(path string) (io.WriteCloser, error) {
	if path == Stdout {
		return standardOutput{os.Stdout}, nil
	}
	// Without waiting for whoever may read from a named pipe some day.
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NONBLOCK, 0o640)
}

// Hold keeps the log open until Release is called. It reports false if it is
// closed already.
func (l *Log) Hold() bool {
	for {
		n := l.holders.Load()
		if n == 0 {
			return false
		}
		if l.holders.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Release ends a Hold, or what Open began.
func (l *Log) Release() {
	if l.holders.Add(-1) == 0 {
		l.mu.Lock()
		l.ended = true
		l.mu.Unlock()
		l.poke()
	}
}

// Wait waits until the log, which nobody holds any more, is written and closed.
// If ctx ends before, what is left is lost.
func (l *Log) Wait(ctx context.Context) error {
	select {
	case <-l.over:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("access log %s: what was left could not be written: %w", l.path, ctx.Err())
	}
}

// Closed reports whether the file is closed.
func (l *Log) Closed() bool {
	select {
	case <-l.over:
		return true
	default:
		return false
	}
}

// Stats returns the log's numbers.
func (l *Log) Stats() Stats {
	s := Stats{Path: l.path, Lines: l.lines.Load(), Dropped: l.dropped.Load()}
	if t := l.trouble.Load(); t != nil {
		s.Trouble = *t
	}
	return s
}

// Add adds a line, which ends with a line feed and is copied; a holder calls it.
// It never waits for a disk.
func (l *Log) Add(line []byte) {
	if !l.add(line) {
		l.dropped.Add(1)
	}
}

func (l *Log) add(line []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	b := l.filling
	if b != nil && len(b.b)+len(line) > bufferSize {
		if len(l.full) == maxBuffers {
			return false
		}
		l.full = append(l.full, b)
		b = nil
	}
	if b == nil {
		b = l.take()
		l.filling = b
		l.poke()
	}
	b.b = append(b.b, line...)
	b.lines++
	return true
}

// take returns an empty buffer.
func (l *Log) take() *buffer {
	if n := len(l.free); n > 0 {
		b := l.free[n-1]
		l.free = l.free[:n-1]
		return b
	}
	return &buffer{b: make([]byte, 0, bufferSize)}
}

// poke lets run see that there is something to do.
func (l *Log) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Reopen opens the file anew, so that one that was renamed is left alone from
// then on. What was added before is in the old one when it returns. An error says
// why lines go on into the old file.
func (l *Log) Reopen(ctx context.Context) error {
	done := make(chan error, 1)
	l.mu.Lock()
	l.orders = append(l.orders, done)
	l.mu.Unlock()
	l.poke()
	select {
	case err := <-done:
		return err
	case <-l.over:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("access log %s: %w", l.path, ctx.Err())
	}
}

// run writes what was added until the last holder is gone.
func (l *Log) run() {
	defer close(l.over)
	t := time.NewTimer(flushEvery)
	defer t.Stop()
	for {
		<-l.wake
		if !l.pressing() {
			// More may come.
			t.Reset(flushEvery)
			select {
			case <-l.wake:
			case <-t.C:
			}
		}
		if l.drain() {
			return
		}
	}
}

// pressing reports whether there is something that is not to wait.
func (l *Log) pressing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended || len(l.orders) > 0 || len(l.full) > 0
}

// drain does what there is to do now; what comes meanwhile is for the next time,
// or batches would become small. It reports true at the end.
func (l *Log) drain() (ended bool) {
	l.mu.Lock()
	l.batch = append(l.batch[:0], l.full...)
	if l.filling != nil {
		l.batch = append(l.batch, l.filling)
	}
	clear(l.full)
	l.full, l.filling = l.full[:0], nil
	orders := l.orders
	l.orders = nil
	ended = l.ended
	l.mu.Unlock()
	for i, b := range l.batch {
		if len(orders) == 0 {
			l.look()
		}
		l.write(b)
		l.giveBack(b)
		l.batch[i] = nil
	}
	if len(orders) > 0 {
		err := l.reopen()
		for _, done := range orders {
			done <- err
		}
	}
	l.complain(ended)
	if ended {
		l.file.Close()
	}
	return ended
}

// giveBack keeps a buffer for use again, if there are not enough.
func (l *Log) giveBack(b *buffer) {
	if cap(b.b) > bufferSize {
		return
	}
	b.b, b.lines = b.b[:0], 0
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.free) < keptBuffers {
		l.free = append(l.free, b)
	}
}

// write writes some lines, or counts them as dropped.
func (l *Log) write(b *buffer) {
	if l.midLine {
		// The rest of what broke off is lost. The next line is one of its own.
		if _, err := l.file.Write([]byte{'\n'}); err == nil {
			l.midLine = false
		}
	}
	n, err := l.file.Write(b.b)
	written := b.lines
	if err != nil {
		written = bytes.Count(b.b[:n], []byte{'\n'})
		l.dropped.Add(uint64(b.lines - written))
		l.midLine = l.midLine || n > 0 && b.b[n-1] != '\n'
	}
	l.lines.Add(uint64(written))
	l.note(err)
}

// note remembers whether the file can be written.
func (l *Log) note(err error) {
	was := l.unwritable
	l.unwritable = err
	l.publish()
	switch {
	case err != nil && was == nil:
		l.log.Error().Str("access_log", l.path).Err(err).Msg("the access log cannot be written: lines are dropped")
	case err == nil && was != nil:
		l.log.Info().Str("access_log", l.path).Uint64("dropped", l.dropped.Load()).Msg("the access log is written again")
	}
}

// publish shows what is wrong, if anything.
func (l *Log) publish() {
	err := cmp.Or(l.unwritable, l.unopened)
	if err == nil {
		l.trouble.Store(nil)
		return
	}
	text := err.Error()
	l.trouble.Store(&text)
}

// complain logs that lines were dropped, now and then and at the end.
func (l *Log) complain(ended bool) {
	dropped, now := l.dropped.Load(), time.Now()
	if dropped == l.told || now.Before(l.complains) && !ended {
		return
	}
	l.log.Warn().Str("access_log", l.path).Uint64("lines", dropped-l.told).Uint64("dropped", dropped).
		Msg("lines of the access log were dropped: the disk did not take them in time")
	l.told, l.complains = dropped, now.Add(complainEvery)
}

// look opens the file anew if it is not at its path any more. It does so once a
// second at most.
func (l *Log) look() {
	f, ok := l.file.(*os.File)
	now := time.Now()
	if !ok || now.Sub(l.looked) < time.Second {
		return
	}
	l.looked = now
	at, err := os.Stat(l.path)
	own, failed := f.Stat()
	if failed != nil || !errors.Is(err, os.ErrNotExist) && (err != nil || os.SameFile(at, own)) {
		return
	}
	was := l.unopened
	if err := l.reopen(); err != nil && was == nil {
		l.log.Error().Str("access_log", l.path).Err(err).Msg("the access log has gone from its place")
	}
}

// reopen opens the file anew. If that fails the old one stays.
func (l *Log) reopen() error {
	if l.path == Stdout {
		return nil
	}
	f, err := open(l.path)
	if err != nil {
		l.unopened = fmt.Errorf("access log: %w; lines go on into the file that was open", err)
		l.publish()
		return l.unopened
	}
	l.file.Close()
	l.file, l.midLine, l.unopened = f, false, nil
	l.publish()
	return nil
}
