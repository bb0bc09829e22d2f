package health

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Result is what the checks of one target have found.
type Result struct {
	State State
	// Reason is the last outcome in words, such as "status 200" or
	// "connection refused". It is of the last check, so a server that is still
	// up may already carry the reason of a failure.
	Reason string
	// Warning is what the last check that passed found and an administrator
	// should know, such as that a certificate expires soon; empty otherwise. It
	// does not count against the server.
	Warning string
	// Latency is how long the last check took.
	Latency time.Duration
	// Passed and Failed count the checks that could judge, since the target was
	// set.
	Passed, Failed uint64
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
	log     zerolog.Logger
	notify  func(Target, Result)
	prepare func(Target) way
	random  func() float64 // in [0, 1)

	wanted chan []Target                   // holds at most the newest Set
	jobs   atomic.Pointer[map[Target]*job] // replaced by Run, never changed
}

// job is one target in the table of Run. Other goroutines may read target and
// result only.
type job struct {
	target Target
	result atomic.Pointer[Result]

	way     way
	rhythm  rhythm
	verdict verdict
	asked   time.Time // when the last probe started
	started time.Time // when the last check was due, probe or not
	next    time.Time // when the next one is
	index   int       // in the schedule; -1 while it is not there
	first   bool      // no probe has ended yet
	blind   bool      // the last probe could not judge
	warned  time.Time // when its warning was logged
	breaker *breaker  // stopped when nobody wants the checks any more
	removed bool
	// lingers says that the last probe has been judged, but holds a connection
	// that is not to be broken off; no other one starts meanwhile.
	lingers bool
}

// outcome is how one probe ended.
type outcome struct {
	job     *job
	finding finding // in words, also of a failure
	err     error   // nil: passed
	latency time.Duration
	// lingers says that the probe goes on without a verdict; ended that it has
	// come to its end, and nothing else.
	lingers, ended bool
}

// NewChecker returns a checker without targets; Run makes it work. notify is
// called on every change of state, the first one included, and when the
// first check of a target could not judge or left its initial state as it was,
// from the goroutine of Run: it must not block, and must not wait for the
// checker.
func NewChecker(log zerolog.Logger, notify func(Target, Result)) *Checker {
	c := &Checker{
		log:     log,
		notify:  notify,
		prepare: prepare,
		random:  rand.Float64,
		wanted:  make(chan []Target, 1),
	}
	c.jobs.Store(&map[Target]*job{})
	return c
}

// Set replaces the targets. Those that stay keep their state and rhythm, those
// that go end without another word, and the new ones are checked at once, so
// each has its first verdict within its timeout; those that take TLS handshakes
// begin at a pace of two thousand in a second. A new one that differs from a
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
	defer func() {
		for _, j := range *c.jobs.Load() {
			j.breaker.stop()
		}
	}()

	var waiting schedule
	done := make(chan []outcome)
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
			c.replace(ctx, &waiting, targets, time.Now())
		case all := <-done:
			now := time.Now()
			for _, o := range all {
				c.take(&waiting, o, now)
			}
		case <-timer.C:
		}
		now := time.Now()
		var together []part
		for j := waiting.popDue(now); j != nil; j = waiting.popDue(now) {
			if j.started = now; j.next.After(now) {
				j.started = j.next // one that comes early does not move those behind it
			}
			if j.lingers {
				c.take(&waiting, stillSilent(j, now), now)
				continue
			}
			j.asked = now
			if j.way.exchange != nil {
				together = append(together, part{job: j, exchange: j.way.exchange})
				continue
			}
			probes.Go(func() { runProbe(ctx, j, done) })
		}
		if together != nil {
			probes.Go(func() { runBatch(ctx, together, done) })
		}
	}
}

// runBatch carries out exchanges that begin together, and reports to done, unless
// run, the context of Run, ends first.
func runBatch(run context.Context, parts []part, done chan<- []outcome) {
	b := batch{report: func(all []outcome) { report(run, done, all) }}
	b.run(run, parts)
}

// report hands outcomes to Run; what fails because that ends is never judged.
func report(run context.Context, done chan<- []outcome, all []outcome) {
	select {
	case done <- all:
	case <-run.Done():
	}
}

// runProbe carries out one probe of j and reports to done, unless run ends first.
// The context of the probe ends with it.
func runProbe(run context.Context, j *job, done chan<- []outcome) {
	o := outcome{job: j}
	begun := time.Now()
	ctx := limit(j.breaker, begun.Add(j.rhythm.timeout))
	o.finding, o.err = j.way.probe(ctx)
	ctx.end()
	o.latency = time.Since(begun)
	var rest *unfinished
	if o.err != nil {
		o.finding = finding{words: inWords(o.err, j.rhythm.timeout)}
		o.lingers = errors.As(o.err, &rest)
	}
	report(run, done, []outcome{o})
	if o.lingers {
		ctx, stop := context.WithTimeout(j.breaker, lingerFor)
		rest.finish(ctx)
		stop()
		report(run, done, []outcome{{job: j, ended: true}})
	}
}

// take carries an outcome into the state of its job, and lets it wait for its
// next probe.
func (c *Checker) take(waiting *schedule, o outcome, now time.Time) {
	j := o.job
	switch {
	case o.ended:
		j.lingers = false
	case !j.removed:
		j.lingers = j.lingers || o.lingers
		c.judge(o, now)
		j.next = j.started.Add(c.gap(j))
		waiting.add(j)
	}
}

// stillSilent is the outcome of a check that is due while the one before holds
// a connection on which the server has said nothing yet.
func stillSilent(j *job, now time.Time) outcome {
	silence := now.Sub(j.asked)
	words := fmt.Sprintf("no answer for %s", silence.Round(10*time.Millisecond))
	return outcome{job: j, finding: finding{words: words}, err: errors.New(words), latency: silence}
}

// gap returns the time from the start of the last probe of j to the next. The
// first one is a random part of the interval: targets that were set together
// are checked together once, for a quick verdict, and never again in step.
func (c *Checker) gap(j *job) time.Duration {
	r := &j.rhythm
	if j.first {
		j.first = false
		return time.Duration(c.random() * float64(r.interval))
	}
	interval := r.interval
	switch {
	case j.verdict.turning():
		interval = r.fast
	case j.verdict.state == Down:
		interval = r.down
	}
	return interval + time.Duration((2*c.random()-1)*r.jitter*float64(interval))
}

// replace makes targets the ones that are checked.
func (c *Checker) replace(ctx context.Context, waiting *schedule, targets []Target, now time.Time) {
	old := *c.jobs.Load()
	predecessors := byQuestion(old)
	jobs := make(map[Target]*job, len(targets))
	var started []*job // with a state before their first check
	due := now         // of the next handshake
	for _, target := range targets {
		if jobs[target] != nil {
			continue
		}
		j := old[target]
		if j == nil {
			j = c.newJob(ctx, target, now)
			if shakesHands(target.Check) {
				j.next = due
				due = due.Add(handshakePace)
			}
			inherited := j.inherit(predecessors[target.question()])
			waiting.add(j)
			if !inherited && j.verdict.state != Unknown {
				started = append(started, j)
			}
		}
		jobs[target] = j
	}
	for target, j := range old {
		if jobs[target] != nil {
			continue
		}
		j.removed = true
		j.breaker.stop() // the outcome of its probe still arrives, and is dropped
		if j.index >= 0 {
			waiting.remove(j)
		}
	}
	c.jobs.Store(&jobs)
	for _, j := range started {
		c.notify(j.target, *j.result.Load())
	}
}

// handshakePace is the time between the first checks of targets that take a TLS
// handshake each, some 0.3 ms of a CPU: a thousand at once would be so late that
// their servers seemed dead.
const handshakePace = 500 * time.Microsecond

// shakesHands reports whether a check begins with a TLS handshake.
func shakesHands(check Config) bool { return check.Type == TLS || check.Type == HTTPS || check.TLS }

// newJob returns a job whose first probe is due at now.
func (c *Checker) newJob(ctx context.Context, target Target, now time.Time) *job {
	j := &job{
		target:  target,
		way:     c.prepare(target),
		rhythm:  newRhythm(target.Check),
		verdict: newVerdict(target.Check, now),
		next:    now,
		index:   -1,
		first:   true,
		breaker: newBreaker(ctx),
	}
	j.result.Store(&Result{State: j.verdict.state, Since: j.verdict.since, Reason: "not checked yet"})
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

// inherit lets j, which is new, begin with the state of from, if any, and reports
// whether there is one. What spoke against that state is forgotten: j counts by
// a rise and fall of its own.
func (j *job) inherit(from *job) bool {
	if from == nil {
		return false
	}
	j.result.Store(from.result.Load())
	j.verdict.state, j.verdict.since = from.verdict.state, from.verdict.since
	return true
}

// judge takes the outcome of a probe into the state of its job.
func (c *Checker) judge(o outcome, now time.Time) {
	j := o.job
	result := *j.result.Load()
	first := result.Checked.IsZero()
	result.Reason, result.Latency, result.Checked = o.finding.words, o.latency, now
	if isOurs(o.err) {
		result.Reason = "not judged, the fault is on this node: " + o.finding.words
		j.result.Store(&result)
		if !j.blind {
			j.about(c.log.Error(), o.finding.words).Msg("cannot check server, its state stays as it is")
		}
		j.blind = true
		if first {
			c.notify(j.target, result)
		}
		return
	}
	j.blind = false
	if o.err == nil {
		result.Passed++
	} else {
		result.Failed++
	}
	c.warn(j, o.finding.warning, now)
	result.Warning = o.finding.warning
	changed := j.verdict.Observe(now, o.err == nil)
	result.State, result.Since = j.verdict.state, j.verdict.since
	j.result.Store(&result)
	switch {
	case changed && result.State == Up:
		j.about(c.log.Info(), result.Reason).Msg("server is up")
	case changed:
		j.about(c.log.Warn(), result.Reason).Msg("server is down")
	}
	if changed || first {
		c.notify(j.target, result)
	}
}

// warn logs what a check warns of, once a day.
func (c *Checker) warn(j *job, warning string, now time.Time) {
	if warning == "" || now.Sub(j.warned) < 24*time.Hour {
		return
	}
	j.warned = now
	j.about(c.log.Warn(), warning).Msg("a check that passes has a warning")
}

// about adds to a line of the log which server it is about, and why.
func (j *job) about(event *zerolog.Event, reason string) *zerolog.Event {
	return event.Stringer("server", j.target).Str("check", string(j.target.Check.Type)).Str("reason", reason)
}
