package vrrptest

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"appliance/vrrp"
)

// Holder is an interface's list of addresses with their leases. It is safe for
// concurrent use.
type Holder struct {
	mu        sync.Mutex
	until     map[netip.Prefix]time.Time
	announced []netip.Prefix
	fail      error
	block     chan struct{}
}

var _ vrrp.Addresses = (*Holder)(nil)

// NewHolder returns a holder of nothing.
func NewHolder() *Holder { return &Holder{until: make(map[netip.Prefix]time.Time)} }

// Acquire gives each address a lease of vrrp.Lease.
func (h *Holder) Acquire(addresses []netip.Prefix) (added []netip.Prefix, err error) {
	h.wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail != nil {
		return nil, h.fail
	}
	for _, a := range addresses {
		if !time.Now().Before(h.until[a]) {
			added = append(added, a)
		}
		h.until[a] = time.Now().Add(vrrp.Lease)
	}
	return added, nil
}

// Release takes addresses off.
func (h *Holder) Release(addresses []netip.Prefix) error {
	h.wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range addresses {
		delete(h.until, a)
	}
	return nil
}

// Announce notes the announcement.
func (h *Holder) Announce(addresses []netip.Prefix) error {
	h.wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.announced = append(h.announced, addresses...)
	return nil
}

// Held returns the addresses whose lease has not ended, sorted.
func (h *Holder) Held() []netip.Prefix {
	h.mu.Lock()
	defer h.mu.Unlock()
	var held []netip.Prefix
	for a, until := range h.until {
		if time.Now().Before(until) {
			held = append(held, a)
		}
	}
	slices.SortFunc(held, netip.Prefix.Compare)
	return held
}

// Announced returns the addresses announced since it was last called, in order.
func (h *Holder) Announced() []netip.Prefix {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.announced
	h.announced = nil
	return a
}

// Lose takes everything off, as a new interface in the place of the old one does,
// or somebody else.
func (h *Holder) Lose() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.until)
}

// Fail makes Acquire return err from now on; nil heals it.
func (h *Holder) Fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = err
}

// Block makes every method wait until the returned function is called, as a
// kernel does whose lock is taken.
func (h *Holder) Block() (unblock func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	block := make(chan struct{})
	h.block = block
	return func() { close(block) }
}

func (h *Holder) wait() {
	h.mu.Lock()
	block := h.block
	h.mu.Unlock()
	if block != nil {
		<-block
	}
}
