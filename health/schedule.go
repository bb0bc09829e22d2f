package health

import (
	"container/heap"
	"time"
)

// rhythm is when a job is to be probed, its defaults applied.
type rhythm struct {
	interval, fast, down, timeout time.Duration
	// jitter is the share of an interval by which it is longer or shorter.
	jitter float64
	// early is how much before its time a probe may start when others do.
	early time.Duration
}

// earliest bounds how much before its time a probe may start.
const earliest = 50 * time.Millisecond

// earlyBy returns how much before its time a probe of that interval may start.
func earlyBy(interval time.Duration) time.Duration { return min(interval/20, earliest) }

func newRhythm(check Config) rhythm {
	interval, fast, down := check.EffectiveInterval(), check.EffectiveFastInterval(), check.EffectiveDownInterval()
	return rhythm{
		interval: interval,
		fast:     fast,
		down:     down,
		timeout:  check.EffectiveTimeout(),
		jitter:   float64(check.EffectiveJitter()) / float64(interval),
		early:    earlyBy(min(fast, down)), // fast is interval at most
	}
}

// schedule holds the jobs that wait for their next probe, the earliest first.
// A job whose probe is under way is not in it, so it cannot be started twice.
type schedule struct{ queue dueQueue }

// add lets j wait for j.next.
func (s *schedule) add(j *job) { heap.Push(&s.queue, j) }

// remove takes j out; it must be waiting.
func (s *schedule) remove(j *job) { heap.Remove(&s.queue, j.index) }

// popDue takes out the earliest job that is due at now, or so soon that it may
// as well begin: nil when there is none. So many checks make few wake-ups.
func (s *schedule) popDue(now time.Time) *job {
	if len(s.queue) == 0 || s.queue[0].next.Sub(now) > s.queue[0].rhythm.early {
		return nil
	}
	return heap.Pop(&s.queue).(*job)
}

// next returns when the earliest job is due; false when none is waiting.
func (s *schedule) next() (time.Time, bool) {
	if len(s.queue) == 0 {
		return time.Time{}, false
	}
	return s.queue[0].next, true
}

// dueQueue is the heap under a schedule; it implements heap.Interface.
type dueQueue []*job

func (q dueQueue) Len() int           { return len(q) }
func (q dueQueue) Less(a, b int) bool { return q[a].next.Before(q[b].next) }

func (q dueQueue) Swap(a, b int) {
	q[a], q[b] = q[b], q[a]
	q[a].index, q[b].index = a, b
}

func (q *dueQueue) Push(x any) {
	j := x.(*job)
	j.index = len(*q)
	*q = append(*q, j)
}

func (q *dueQueue) Pop() any {
	last := len(*q) - 1
	j := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	j.index = -1
	return j
}
