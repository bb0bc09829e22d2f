package integration

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// The checks of the tests with real servers: three that fail, the last of them
// by its timeout, and the jitter between them find a dead server out in
// checkTime.
const (
	quickCheck = `interval = "400ms", timeout = "400ms"`
	checkTime  = 3*440*time.Millisecond + 400*time.Millisecond
)

// asking is a load of any kind. Its requests begin at an even rate, whatever
// became of those before.
type asking struct {
	cancel context.CancelFunc
	ended  sync.WaitGroup

	mu   sync.Mutex
	done []asked
}

// asked is one request that has ended.
type asked struct {
	begun  time.Time
	server string // who answered
	err    error
}

// startAsking calls ask every 20 ms until stop, at the latest until the test
// ends. It returns the name of the server that answered.
func startAsking(t *testing.T, ask func(context.Context) (server string, err error)) *asking {
	ctx, cancel := context.WithCancel(t.Context())
	a := &asking{cancel: cancel}
	t.Cleanup(a.stop)
	a.ended.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				a.ended.Go(func() { a.once(ctx, ask) })
			case <-ctx.Done():
				return
			}
		}
	})
	return a
}

func (a *asking) once(ctx context.Context, ask func(context.Context) (string, error)) {
	patient, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	one := asked{begun: time.Now()}
	one.server, one.err = ask(patient)
	if ctx.Err() != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done = append(a.done, one)
}

// stop gives up the requests under way without counting them.
func (a *asking) stop() {
	a.cancel()
	a.ended.Wait()
}

// between returns the requests that have ended and began in a stretch of time.
func (a *asking) between(from, to time.Time) []asked {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []asked
	for _, one := range a.done {
		if !one.begun.Before(from) && one.begun.Before(to) {
			list = append(list, one)
		}
	}
	return list
}

// waitUsed waits until all servers have answered requests that began from now
// on, in each of the loads.
func (p *pair) waitUsed(loads map[string]*asking, servers ...string) {
	p.t.Helper()
	from := time.Now()
	for name, load := range loads {
		eventually(p.t, 30*time.Second, fmt.Sprintf("%v are all used in pool %s", servers, name), func() bool {
			answered := make(map[string]bool)
			for _, one := range load.between(from, time.Now()) {
				answered[one.server] = answered[one.server] || one.err == nil
			}
			for _, s := range servers {
				if !answered[s] {
					return false
				}
			}
			return true
		})
	}
}

// loses does harm to a server and shows that its clients, a load for each pool
// that it is in, do without it: from the moment that the checks of lb01 have
// found it dead, all requests are answered, and by others.
func (p *pair) loses(server string, loads map[string]*asking, harm func()) {
	p.t.Helper()
	harmed := time.Now()
	harm()
	for pool := range loads {
		eventually(p.t, checkTime+10*time.Second, "the check of pool "+pool+" finds "+server+" dead", func() bool {
			return p.server(p.LB01, pool, server).Health == "down"
		})
	}
	found := time.Now()
	for pool, load := range loads {
		eventually(p.t, 30*time.Second, "100 requests to pool "+pool, func() bool {
			return len(load.between(found, time.Now())) >= 100
		})
		for _, one := range load.between(found, time.Now()) {
			if one.err != nil || one.server == server {
				p.t.Errorf("pool %s, %v after %s was found dead: answer of %q, %v",
					pool, one.begun.Sub(found), server, one.server, one.err)
			}
		}
		before := load.between(harmed, found)
		failed := 0
		for _, one := range before {
			if one.err != nil {
				failed++
			}
		}
		p.t.Logf("pool %s: %s found dead after %v, until then %d of %d requests failed",
			pool, server, found.Sub(harmed).Round(time.Millisecond), failed, len(before))
	}
}
