package l7

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	// defaultTries is how many servers get a request that fails, and mostTries how
	// many may be configured.
	defaultTries = 3
	mostTries    = 10
	// defaultBudget is the part of all requests, in percent, that may be sent
	// again after a server may have seen them.
	defaultBudget = 20
	// freeRetries may be made in every budgetWindow in any case.
	freeRetries  = 10
	budgetWindow = 10 * time.Second
)

// Retry says when another server gets a request that has failed at one. Requests
// that no server can have seen are always sent again, those that one may have
// seen only if that does no harm: if their method is idempotent and their body, if
// any, is still there.
type Retry struct {
	// Tries is how many servers get a request at most, the first included;
	// default 3.
	Tries int `toml:"tries"`
	// Budget is how many of all requests may be sent again after a server may have
	// seen them, in percent; default 20. Ten in ten seconds always may.
	Budget int `toml:"budget"`
	// Statuses are answers of a server, 500 to 599, that count as a failure while
	// there is another server; default none.
	Statuses []int `toml:"statuses"`
}

// EffectiveTries returns Tries with its default applied.
func (r Retry) EffectiveTries() int {
	if r.Tries == 0 {
		return defaultTries
	}
	return r.Tries
}

// EffectiveBudget returns Budget with its default applied.
func (r Retry) EffectiveBudget() int {
	if r.Budget == 0 {
		return defaultBudget
	}
	return r.Budget
}

func (r *Retry) validate(at string, problem func(key, message string)) {
	if r == nil {
		return
	}
	if r.Tries < 0 || r.Tries > mostTries {
		problem(at+".tries", fmt.Sprintf("a request is tried once to %d times", mostTries))
	}
	if r.Budget < 0 || r.Budget > 100 {
		problem(at+".budget", "the budget must be between 1 and 100 percent")
	}
	for i, s := range r.Statuses {
		if s < 500 || s > 599 {
			problem(fmt.Sprintf("%s.statuses[%d]", at, i), fmt.Sprintf("%d is no status of a server's failure, 500 to 599", s))
		}
	}
}

// retryOf returns what holds for an exchange.
func retryOf(ex *exchange) Retry {
	if ex.rules != nil && ex.rules.retry != nil {
		return *ex.rules.retry
	}
	return Retry{}
}

// lostError says that the connection broke before the server had answered.
type lostError struct{ err error }

func (e *lostError) Error() string { return e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// statusError says that the server's answer is one for which another server is
// asked.
type statusError struct{ status int }

func (e *statusError) Error() string { return fmt.Sprintf("the server answered %d", e.status) }

// isLost reports whether err is the end of a connection.
func isLost(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, errStale) || errors.Is(err, net.ErrClosed) // by reset
}

// idempotent reports whether a second server may do again what the first one may
// have done already (RFC 9110, section 9.2.2), and can.
func idempotent(ex *exchange) bool {
	if ex.body != nil && ex.whole == nil {
		return false
	}
	switch ex.method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// refusedStatus reports whether the answer is one for which another server may be
// asked.
func refusedStatus(ex *exchange, status int) bool {
	return ex.rules != nil && ex.rules.retry != nil && slices.Contains(ex.rules.retry.Statuses, status) && idempotent(ex)
}

// budget bounds how many requests are sent again, so that servers in trouble do
// not get more requests for it. It costs only those that are.
type budget struct {
	mu       sync.Mutex
	since    time.Time
	requests int64 // there had been at since
	spent    int64 // since then
	before   int64 // requests of the window before
}

// spend reports whether one more request, of so many there ever were, may be sent
// again.
func (b *budget) spend(percent int, requests int64, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if passed := now.Sub(b.since); passed > budgetWindow {
		b.before = 0
		if passed < 2*budgetWindow {
			b.before = requests - b.requests
		}
		b.since, b.requests, b.spent = now, requests, 0
	}
	seen := max(requests-b.requests, b.before)
	if b.spent >= freeRetries && b.spent*100 >= seen*int64(percent) {
		return false
	}
	b.spent++
	return true
}
