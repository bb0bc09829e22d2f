package health

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Result is what the checks of one target have found.
type Result struct {
	Target Target
	State  State
	// Reason is the last outcome in words, such as "status 200" or
	// "connection refused". It is of the last check, so a server that is still
	// up may already carry the reason of a failure.
	Reason string
	// Latency is how long the last check took.
	Latency time.Duration
	// Since is when the state began; zero while it is Unknown.
	Since time.Time
	// Checked is when the last check ended, whether it could judge the server or
	// a shortage on this node kept it from that; zero before the first has ended.
	// An Unknown state with a time here is one that waiting may not end.
	Checked time.Time
}

// Checker probes targets and tells when their state changes. One goroutine,
// the one in Run, owns everything; the other methods may be called from any.
type Checker struct {
	log    zerolog.Logger
	notify func(Result)
	probe  func(context.Context, Target) (string, error)
	random func() float64 // in [0, 1)

	wanted chan []Target                   // holds at most the newest Set
	jobs   atomic.Pointer[map[Target]*job] // replaced by Run, never changed
}

// job is one target in the table of Run. Other goroutines may read target and
// result only.
type job struct {
	target Target
	result atomic.Pointer[Result]

	verdict verdict
	next    time.Time // when the next probe starts
	index   int       // in the schedule
	first   bool      // no probe has started yet
	blind   bool      // the last probe could not judge
	cancel  context.CancelFunc
	removed bool
}

// outcome is how one probe ended.
type outcome struct {
	job     *job
	reason  string
	err     error // nil: passed; reason says it in words
	latency time.Duration
}

// NewChecker returns a checker without targets; Run makes it work. notify is
// called on every change of state, the first verdict included, and when the
// first check of a target could not judge, from the goroutine of Run: it must
// not block, and must not wait for the checker.
func NewChecker(log zerolog.Logger, notify func(Result)) *Checker {
	c := &Checker{
		log:    log,
		notify: notify,
		probe:  probe,
		random: rand.Float64,
		wanted: make(chan []Target, 1),
	}
	c.jobs.Store(&map[Target]*job{})
	return c
}

// Set replaces the targets. Those that stay keep their state and rhythm, those
// that go end without another word, and the new ones are checked at once, so
// each has its first verdict within its timeout. A new one that differs from a
// single one of before in nothing but the rhythm, or rise and fall, begins with
// the state of that one: it asks the same server the same question, so one lost
// answer does not undo what many have shown. Set does not wait for Run and may
// be called before it; of several calls the last counts.
func (c *Checker) Set(targets []Target) {
	wanted := append([]Target(nil), targets...)
	for {
		select {
		case c.wanted <- wanted:
			return
		default:
		}
		select {
		case <-c.wanted: // an older one that Run has not seen: out of date
		default:
		}
	}
}

// Results returns what is known about every target. Each result is a whole
// one; those of different targets may be a check apart.
func (c *Checker) Results() map[Target]Result {
	jobs := *c.jobs.Load()
	results := make(map[Target]Result, len(jobs))
	for target, j := range jobs {
		results[target] = *j.result.Load()
	}
	return results
}

// Run checks the targets until ctx ends, then cancels the probes under way,
// waits for them and returns nil. It is to be called once.
func (c *Checker) Run(ctx context.Context) error {
	var probes sync.WaitGroup
	defer probes.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	var waiting schedule
	done := make(chan outcome)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if next, ok := waiting.next(); ok {
			timer.Reset(time.Until(next))
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return nil
		case targets := <-c.wanted:
			c.replace(&waiting, targets, time.Now())
		case o := <-done:
			o.job.cancel()
			o.job.cancel = nil
			if !o.job.removed {
				c.judge(o, time.Now())
				waiting.add(o.job)
			}
		case <-timer.C:
		}
		now := time.Now()
		for j := waiting.popDue(now); j != nil; j = waiting.popDue(now) {
			j.next = now.Add(c.gap(j))
			probeCtx, stop := context.WithTimeout(ctx, j.target.Check.EffectiveTimeout())
			j.cancel = stop
			probes.Go(func() { c.runProbe(ctx, probeCtx, j, done) })
		}
	}
}

// runProbe carries out one probe of j and reports to done, unless run, the
// context of Run, ends first. It ends before ctx does, so a probe that fails
// because Run ends is never judged.
func (c *Checker) runProbe(run, ctx context.Context, j *job, done chan<- outcome) {
	o := outcome{job: j}
	begun := time.Now()
	o.reason, o.err = c.probe(ctx, j.target)
	o.latency = time.Since(begun)
	if o.err != nil {
		o.reason = inWords(o.err, j.target.Check.EffectiveTimeout())
	}
	select {
	case done <- o:
	case <-run.Done():
	}
}

// gap returns the time from the start of this probe of j to the next. The
// first one is a random part of the interval: targets that were set together
// are checked together once, for a quick verdict, and never again in step.
func (c *Checker) gap(j *job) time.Duration {
	check := j.target.Check
	if j.first {
		j.first = false
		return time.Duration(c.random() * float64(check.EffectiveInterval()))
	}
	jitter := (2*c.random() - 1) * float64(check.EffectiveJitter())
	return check.EffectiveInterval() + time.Duration(jitter)
}

// replace makes targets the ones that are checked.
func (c *Checker) replace(waiting *schedule, targets []Target, now time.Time) {
	old := *c.jobs.Load()
	predecessors := byQuestion(old)
	jobs := make(map[Target]*job, len(targets))
	for _, target := range targets {
		if jobs[target] != nil {
			continue
		}
		j := old[target]
		if j == nil {
			j = newJob(target, now)
			j.inherit(predecessors[target.question()])
			waiting.add(j)
		}
		jobs[target] = j
	}
	for target, j := range old {
		if jobs[target] != nil {
			continue
		}
		j.removed = true
		if j.cancel != nil {
			j.cancel() // its outcome still arrives, and is dropped
		} else {
			waiting.remove(j)
		}
	}
	c.jobs.Store(&jobs)
}

// newJob returns a job whose first probe is due at now.
func newJob(target Target, now time.Time) *job {
	j := &job{
		target:  target,
		verdict: verdict{rise: target.Check.EffectiveRise(), fall: target.Check.EffectiveFall()},
		next:    now,
		first:   true,
	}
	j.result.Store(&Result{Target: target, Reason: "not checked yet"})
	return j
}

// byQuestion returns the jobs by their address and the question they put. Where
// several put the same one, in rhythms of their own, none can speak for them,
// and the value is nil.
func byQuestion(jobs map[Target]*job) map[Target]*job {
	found := make(map[Target]*job, len(jobs))
	for target, j := range jobs {
		key := target.question()
		if _, several := found[key]; several {
			j = nil
		}
		found[key] = j
	}
	return found
}

// inherit lets j, which is new, begin with the state of from, if any. What spoke
// against that state is forgotten: j counts by a rise and fall of its own.
func (j *job) inherit(from *job) {
	if from == nil {
		return
	}
	result := *from.result.Load()
	result.Target = j.target
	j.result.Store(&result)
	j.verdict.state, j.verdict.since = from.verdict.state, from.verdict.since
}

// judge takes the outcome of a probe into the state of its job.
func (c *Checker) judge(o outcome, now time.Time) {
	j := o.job
	result := *j.result.Load()
	first := result.Checked.IsZero()
	result.Reason, result.Latency, result.Checked = o.reason, o.latency, now
	if isOurs(o.err) {
		result.Reason = "not judged, the fault is on this node: " + o.reason
		j.result.Store(&result)
		if !j.blind {
			about(c.log.Error(), o).Msg("cannot check server, its state stays as it is")
		}
		j.blind = true
		if first {
			c.notify(result)
		}
		return
	}
	j.blind = false
	changed := j.verdict.Observe(now, o.err == nil)
	result.State, result.Since = j.verdict.state, j.verdict.since
	j.result.Store(&result)
	if !changed {
		return
	}
	if result.State == Up {
		about(c.log.Info(), o).Msg("server is up")
	} else {
		about(c.log.Warn(), o).Msg("server is down")
	}
	c.notify(result)
}

// about adds to a line of the log which server it is about, and why.
func about(event *zerolog.Event, o outcome) *zerolog.Event {
	return event.Stringer("server", o.job.target).
		Str("check", string(o.job.target.Check.Type)).Str("reason", o.reason)
}
