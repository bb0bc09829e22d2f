package pool

import (
	"fmt"
	"time"
)

// Outlier says when a server that fails its clients is ejected: it is passed
// over for a while, whatever the checks say of it. The zero value of each field
// means its default.
type Outlier struct {
	// ConsecutiveFailures is how many connections in a row must fail; default 5.
	ConsecutiveFailures int `toml:"consecutive_failures"`
	// Count5xx has answers count that tell of a server's failure: 500 to 599, but
	// for 501 and 505. Only services of l7 see them.
	Count5xx bool `toml:"count_5xx"`
	// Base is how long the first ejection lasts; default 30 s. The n-th lasts n
	// times as long, up to Max, default 5 m. For each Base that the server has
	// stayed in since, one of the ejections before is forgotten.
	Base time.Duration `toml:"base"`
	Max  time.Duration `toml:"max"`
	// MaxEjectedPercent is how large a part of the pool's usable servers may be
	// out at the same time, 1 to 100; default 50.
	MaxEjectedPercent int `toml:"max_ejected_percent"`
}

// The defaults of Outlier.
const (
	defaultConsecutiveFailures = 5
	defaultBase                = 30 * time.Second
	defaultMax                 = 5 * time.Minute
	defaultMaxEjectedPercent   = 50
)

// EffectiveConsecutiveFailures returns ConsecutiveFailures with its default.
func (o Outlier) EffectiveConsecutiveFailures() int {
	if o.ConsecutiveFailures == 0 {
		return defaultConsecutiveFailures
	}
	return o.ConsecutiveFailures
}

// EffectiveBase returns Base with its default applied.
func (o Outlier) EffectiveBase() time.Duration {
	if o.Base == 0 {
		return defaultBase
	}
	return o.Base
}

// EffectiveMax returns Max with its default applied: 5 m, or Base where that is
// longer.
func (o Outlier) EffectiveMax() time.Duration {
	if o.Max == 0 {
		return max(defaultMax, o.EffectiveBase())
	}
	return o.Max
}

// EffectiveMaxEjectedPercent returns MaxEjectedPercent with its default applied.
func (o Outlier) EffectiveMaxEjectedPercent() int {
	if o.MaxEjectedPercent == 0 {
		return defaultMaxEjectedPercent
	}
	return o.MaxEjectedPercent
}

func (o Outlier) validate(servers int, problem func(key, message string)) {
	if o.ConsecutiveFailures < 0 {
		problem("outlier.consecutive_failures", "consecutive_failures must be at least 1")
	}
	if o.Base < 0 {
		problem("outlier.base", "the time of an ejection must be positive")
	}
	if o.EffectiveMax() < o.EffectiveBase() {
		problem("outlier.max", fmt.Sprintf("the longest ejection must not be shorter than the first, %s", o.EffectiveBase()))
	}
	if o.MaxEjectedPercent < 0 || o.MaxEjectedPercent > 100 {
		problem("outlier.max_ejected_percent", fmt.Sprintf("%d is no percentage; 1 to 100 are allowed", o.MaxEjectedPercent))
	} else if o.MaxEjectedPercent > 0 && servers > 0 && !o.mayEject(0, servers) {
		problem("outlier.max_ejected_percent", fmt.Sprintf("no server is ever ejected: %d %% of %d is less than one; write at least %d",
			o.MaxEjectedPercent, servers, (100+servers-1)/servers))
	}
}

// next returns the ejection that begins at now, after the one before.
func (o Outlier) next(before Ejection, now time.Time) Ejection {
	times := before.Times
	if times > 0 {
		times = max(0, times-int(now.Sub(before.Until)/o.EffectiveBase()))
	}
	times++
	longest := o.EffectiveMax()
	lasts := longest
	if int64(times) <= int64(longest/o.EffectiveBase()) {
		lasts = time.Duration(times) * o.EffectiveBase()
	}
	return Ejection{Since: now, Until: now.Add(lasts), Times: times, out: true}
}

// mayEject reports whether one more of so many usable servers may be out.
func (o Outlier) mayEject(out, usable int) bool {
	return (out+1)*100 <= usable*o.EffectiveMaxEjectedPercent()
}

// Ejection is the latest one of a server; the zero value is none.
type Ejection struct {
	// Since and Until are its beginning and its end, in so far as nothing ends
	// it earlier.
	Since, Until time.Time
	// Times counts the ejections that are not forgotten, this one included.
	Times int

	out bool // it has not been ended yet
}

// Out reports whether the server is ejected at now.
func (e Ejection) Out(now time.Time) bool { return e.out && now.Before(e.Until) }

// Failed counts a failure after the server had accepted, which a client noticed, or
// would have noticed: an answer that is none. After so many failures in a row, of
// connects too, as the pool's Outlier allows, it ejects the server.
func (s *Server) Failed(now time.Time) {
	s.errors.broken.Add(1)
	s.failed(now)
}

// failed is Failed without the count.
func (s *Server) failed(now time.Time) {
	limit := s.pool.failureLimit.Load()
	if limit > 0 && s.failures.Add(1) >= limit {
		s.pool.eject(s, now)
	}
}

// Succeeded ends a row of failures.
func (s *Server) Succeeded() {
	if s.failures.Load() != 0 {
		s.failures.Store(0)
	}
}

// Answered tells of an answer of HTTP, which ends a row of failures unless it counts
// as one.
func (s *Server) Answered(status int) {
	if status >= 500 && status != 501 && status != 505 && s.pool.counts5xx.Load() {
		s.Failed(time.Now())
		return
	}
	s.Succeeded()
}

// eject takes a server out, unless it is out already or too many others are.
func (p *Pool) eject(s *Server, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readmit(now)
	st := *s.state.Load()
	if p.outlier == nil || st.ejection.out || !st.fit() {
		return
	}
	out, fit := 0, 0
	for _, other := range p.snap.Load().servers {
		if st := other.state.Load(); st.fit() {
			fit++
			if st.ejection.out {
				out++
			}
		}
	}
	if !p.outlier.mayEject(out, fit) {
		return
	}
	s.failures.Store(0)
	st.ejection = p.outlier.next(st.ejection, now)
	s.state.Store(&st)
	p.publish()
	// So that it also comes back for those who wait in the queue when nobody else comes.
	time.AfterFunc(st.ejection.Until.Sub(now), func() { p.current(); p.serveQueue() })
	if p.onEject != nil {
		p.onEject(s, st.ejection)
	}
}

// readmit lets the servers in whose time is over. The caller holds the lock.
func (p *Pool) readmit(now time.Time) {
	found := false
	for _, s := range p.snap.Load().servers {
		st := *s.state.Load()
		if st.ejection.out && !now.Before(st.ejection.Until) {
			st.ejection.out = false
			st.rampFrom = now
			s.failures.Store(0)
			s.state.Store(&st)
			found = true
		}
	}
	if found {
		p.publish()
	}
}

// current returns the snapshot of now: it readmits the servers whose time is
// over. It reads the clock only while some are out.
func (p *Pool) current() *snapshot {
	snap := p.snap.Load()
	if snap.readmission.IsZero() {
		return snap
	}
	if now := time.Now(); !now.Before(snap.readmission) {
		p.mu.Lock()
		p.readmit(now)
		p.mu.Unlock()
		p.serveQueue() // those who wait come before whoever has asked
	}
	return p.snap.Load()
}
