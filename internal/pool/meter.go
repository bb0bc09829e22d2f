package pool

import (
	"sync/atomic"
	"time"
)

// Meter counts events and tells how many there were in the last second. The zero
// value has counted none. All methods may be called from any goroutine.
type Meter struct {
	second     atomic.Int64 // the one that is counted
	this, last atomic.Int64
}

// Add counts one at now. Events of several goroutines at the turn of a second
// may be counted in the wrong one.
func (m *Meter) Add(now time.Time) {
	m.turn(now.Unix())
	m.this.Add(1)
}

// Rate returns how many there were in the last second that is over.
func (m *Meter) Rate(now time.Time) int64 {
	m.turn(now.Unix())
	return m.last.Load()
}

func (m *Meter) turn(second int64) {
	was := m.second.Load()
	if second == was || !m.second.CompareAndSwap(was, second) {
		return
	}
	n := m.this.Swap(0)
	if second != was+1 {
		n = 0
	}
	m.last.Store(n)
}
