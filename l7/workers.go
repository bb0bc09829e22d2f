package l7

import (
	"slices"
	"sync"
	"time"
)

// workers are goroutines that carry out the exchanges of streams, one after the
// other: a new goroutine for each would begin with a small stack and make it grow,
// each time. The zero value is ready. Whoever made it calls close.
type workers struct {
	tasks sync.WaitGroup

	mu     sync.Mutex
	idle   []*worker // the last one was used last
	sweep  *time.Timer
	closed bool
}

// worker is a goroutine that waits for a stream; nil: it is to end.
type worker struct {
	next chan *http2Stream
	old  bool // it has waited since expire was called last, or longer
}

const (
	// maxIdleWorkers bounds the goroutines that wait.
	maxIdleWorkers = 1024
	// keepWorker is how long they do so without work, at least.
	keepWorker = 5 * time.Second
)

// serve has a goroutine call st.serve.
func (ws *workers) serve(st *http2Stream) {
	ws.mu.Lock()
	if n := len(ws.idle); n > 0 {
		w := ws.idle[n-1]
		ws.idle[n-1] = nil
		ws.idle = ws.idle[:n-1]
		ws.mu.Unlock()
		w.next <- st
		return
	}
	ws.mu.Unlock()
	ws.tasks.Go(func() { ws.run(st) })
}

func (ws *workers) run(st *http2Stream) {
	w := &worker{next: make(chan *http2Stream, 1)}
	for st != nil {
		st.serve()
		if !ws.wait(w) {
			return
		}
		st = <-w.next
	}
}

// wait notes that w waits. It reports false if there is no need of it.
func (ws *workers) wait(w *worker) bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.closed || len(ws.idle) >= maxIdleWorkers {
		return false
	}
	w.old = false
	ws.idle = append(ws.idle, w)
	if ws.sweep == nil {
		ws.sweep = time.AfterFunc(keepWorker, ws.expire)
	}
	return true
}

// expire ends those who have waited since the last time.
func (ws *workers) expire() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	old := 0
	for old < len(ws.idle) && ws.idle[old].old {
		ws.idle[old].next <- nil
		old++
	}
	ws.idle = slices.Delete(ws.idle, 0, old)
	for _, w := range ws.idle {
		w.old = true
	}
	ws.sweep = nil
	if len(ws.idle) > 0 && !ws.closed {
		ws.sweep = time.AfterFunc(keepWorker, ws.expire)
	}
}

// close ends all, when none has work any more.
func (ws *workers) close() {
	ws.mu.Lock()
	ws.closed = true
	if ws.sweep != nil {
		ws.sweep.Stop()
	}
	for _, w := range ws.idle {
		w.next <- nil
	}
	ws.idle = nil
	ws.mu.Unlock()
	ws.tasks.Wait()
}
