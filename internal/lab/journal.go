package lab

import "sync"

// journal is a list that grows and never changes otherwise: some goroutines
// add to it, others read what is there.
type journal[T any] struct {
	mu    sync.Mutex
	items []T
}

func (j *journal[T]) add(item T) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.items = append(j.items, item)
}

// all returns what has been added so far. The caller must not change it.
func (j *journal[T]) all() []T {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.items[:len(j.items):len(j.items)]
}
