package l4

import "time"

// timer is when its owner wants to be told, in its loop's time.
type timer struct {
	owner interface{ timeout() }
	due   time.Duration
	index int // in the heap; meaningless if not set
	set   bool
}

// timers is a heap of those that are set, the first one due on top.
type timers struct{ heap []*timer }

// first returns when the first timer is due; 0 if there is none.
func (h *timers) first() time.Duration {
	if len(h.heap) == 0 {
		return 0
	}
	return h.heap[0].due
}

// set sets t, or moves it.
func (h *timers) set(t *timer, due time.Duration) {
	t.due = due
	if !t.set {
		t.set, t.index = true, len(h.heap)
		h.heap = append(h.heap, t)
	}
	h.down(h.up(t.index))
}

// remove unsets t.
func (h *timers) remove(t *timer) {
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

// pop unsets and returns a timer that is due at now; nil if there is none.
func (h *timers) pop(now time.Duration) *timer {
	if len(h.heap) == 0 || h.heap[0].due > now {
		return nil
	}
	t := h.heap[0]
	h.remove(t)
	return t
}

func (h *timers) swap(i, j int) {
	h.heap[i], h.heap[j] = h.heap[j], h.heap[i]
	h.heap[i].index, h.heap[j].index = i, j
}

// up moves the timer at i towards the top as far as it belongs, and returns
// where it is then. down does so the other way.
func (h *timers) up(i int) int {
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

func (h *timers) down(i int) int {
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
