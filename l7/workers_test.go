package l7

import "testing"

// Who has waited for a whole round without work is let go, and all are in the end.
func TestWorkersThatWait(t *testing.T) {
	var ws workers
	old, fresh := &worker{next: make(chan *http2Stream, 1)}, &worker{next: make(chan *http2Stream, 1)}
	if !ws.wait(old) {
		t.Fatal("it may not wait")
	}
	ws.expire()
	if len(old.next) != 0 {
		t.Fatal("it was let go at once")
	}
	ws.wait(fresh)
	ws.expire()
	if len(old.next) != 1 || len(fresh.next) != 0 || <-old.next != nil {
		t.Error("not the one that has waited for long was let go")
	}
	ws.close()
	if len(fresh.next) != 1 || ws.wait(old) {
		t.Error("one waits still though all is over")
	}
}
