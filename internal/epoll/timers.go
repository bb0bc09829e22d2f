package epoll

import "time"

// Timer is when its owner wants to be told.
type Timer[Owner any] struct {
	// Owner is who is to be told. It is there before the timer is set.
	Owner Owner
	due   time.Duration
	index int // in the heap; meaningless if not set
	set   bool
}

// IsSet reports whether t is set.
func (t *Timer[Owner]) IsSet() bool { return t.set }

// Timers is a heap of those that are set, the first one due on top. Its times are
// durations since whatever its user counts from. The zero value is empty.
type Timers[Owner any] struct{ heap []*Timer[Owner] }

// First returns when the first timer is due; 0 if there is none.
func (h *Timers[Owner]) First() time.Duration {
	if len(h.heap) == 0 {
		return 0
	}
	return h.heap[0].due
}

// Set sets t, or moves it.
func (h *Timers[Owner]) Set(t *Timer[Owner], due time.Duration) {
	t.due = due
	if !t.set {
		t.set, t.index = true, len(h.heap)
		h.heap = append(h.heap, t)
	}
	h.down(h.up(t.index))
}

// Remove unsets t, if it is set.
func (h *Timers[Owner]) Remove(t *Timer[Owner]) {
	if !t.set {
		return
	}
	i, last := t.index, len(h.heap)-1
	h.swap(i, last)
	h.heap[last] = nil
	h.heap = h.heap[:last]
	t.set = false
	if i < last {
		h.down(h.up(i))
	}
}

// Pop unsets and returns a timer that is due at now; nil if there is none.
func (h *Timers[Owner]) Pop(now time.Duration) *Timer[Owner] {
	if len(h.heap) == 0 || h.heap[0].due > now {
		return nil
	}
	t := h.heap[0]
	h.Remove(t)
	return t
}

func (h *Timers[Owner]) swap(i, j int) {
	h.heap[i], h.heap[j] = h.heap[j], h.heap[i]
	h.heap[i].index, h.heap[j].index = i, j
}

// up moves the timer at i towards the top as far as it belongs, and returns
// where it is then. down does so the other way.
func (h *Timers[Owner]) up(i int) int {
	for i > 0 {
		parent := (i - 1) / 2
		if h.heap[parent].due <= h.heap[i].due {
			break
		}
		h.swap(i, parent)
		i = parent
	}
	return i
}

func (h *Timers[Owner]) down(i int) int {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h.heap); child++ {
			if h.heap[child].due < h.heap[least].due {
				least = child
			}
		}
		if least == i {
			return i
		}
		h.swap(i, least)
		i = least
	}
}
