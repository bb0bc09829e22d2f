package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// LoadOptions describe a load. The zero value of a field means its default.
type LoadOptions struct {
	// Targets are the addresses asked in turn; at least one.
	Targets []netip.AddrPort
	// Rate is how many requests are begun in a second; default 100, at most
	// 1000.
	Rate int
	// Timeout bounds one request with its connection; default 5 s. A lost SYN
	// is sent again after 1 s, so a shorter one than that counts lost packets.
	Timeout time.Duration
	// Host and Path are the request's; default "lab.example" and "/".
	Host, Path string
}

// Load sends HTTP requests from a host, each by a connection of its own. They
// begin at an even rate whatever became of those before: one that hangs keeps
// no other from finding out that the service is back.
type Load struct {
	host    *Host
	options LoadOptions
	stop    func()        // begins no more requests
	ended   chan struct{} // closed when every request has ended

	mu       sync.Mutex
	requests []*request // in the order of their starts
}

// request is one that has begun.
type request struct {
	start   time.Time
	ended   chan struct{} // closed when outcome is there
	outcome Outcome
}

// OutcomeKind says how a request ended.
type OutcomeKind string

// The kinds of outcomes.
const (
	OK       OutcomeKind = "ok"               // an answer with status 200
	Status   OutcomeKind = "status"           // an answer with another status
	Refused  OutcomeKind = "refused"          // the connection was refused
	Reset    OutcomeKind = "reset"            // the connection was reset or closed before the answer was complete
	TimedOut OutcomeKind = "timed out"        // nothing within the timeout
	Failed   OutcomeKind = "failed otherwise" // anything else
)

// Outcome is one request.
type Outcome struct {
	Start, End time.Time
	Kind       OutcomeKind
	Target     netip.AddrPort
	Server     string // the name of the server that answered
	Err        error  // nil for OK
}

// StartLoad begins sending requests from a host. Stop must end it.
func StartLoad(from *Host, o LoadOptions) *Load {
	if o.Rate == 0 {
		o.Rate = 100
	}
	o.Rate = min(o.Rate, 1000)
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Host == "" {
		o.Host = "lab.example"
	}
	if o.Path == "" {
		o.Path = "/"
	}
	stopped, stop := context.WithCancel(context.Background())
	l := &Load{host: from, options: o, stop: stop, ended: make(chan struct{})}
	go l.run(stopped.Done())
	return l
}

// run begins requests until stopped, and waits for all of them.
func (l *Load) run(stopped <-chan struct{}) {
	defer close(l.ended)
	var running sync.WaitGroup
	defer running.Wait()
	tick := time.NewTicker(time.Second / time.Duration(l.options.Rate))
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-stopped:
			return
		case <-tick.C:
		}
		target := l.options.Targets[n%len(l.options.Targets)]
		r := l.begin()
		running.Go(func() {
			r.outcome = l.request(r.start, target)
			close(r.ended)
		})
	}
}

// begin notes that a request begins now. Whoever looks for the requests that
// began before a moment finds all of them: none is noted with a time of before.
func (l *Load) begin() *request {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &request{start: time.Now(), ended: make(chan struct{})}
	l.requests = append(l.requests, r)
	return r
}

// begun returns the requests that have begun so far, in that order.
func (l *Load) begun() []*request {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.requests[:len(l.requests):len(l.requests)]
}

// request sends one request and reads the whole answer.
func (l *Load) request(start time.Time, target netip.AddrPort) Outcome {
	o := Outcome{Start: start, Target: target}
	ctx, cancel := context.WithTimeout(context.Background(), l.options.Timeout)
	defer cancel()
	status := 0
	status, o.Server, o.Err = l.exchange(ctx, target)
	o.End = time.Now()
	o.Kind = kindOf(o.Err)
	if o.Err == nil && status != http.StatusOK {
		o.Kind, o.Err = Status, fmt.Errorf("status %d", status)
	}
	return o
}

func (l *Load) exchange(ctx context.Context, target netip.AddrPort) (status int, server string, err error) {
	c, err := l.host.Dial(ctx, target)
	if err != nil {
		return 0, "", err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	head := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", l.options.Path, l.options.Host)
	if _, err := io.WriteString(c, head); err != nil {
		return 0, "", err
	}
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return 0, "", err
	}
	return response.StatusCode, response.Header.Get(serverHeader), nil
}

func kindOf(err error) OutcomeKind {
	switch {
	case err == nil:
		return OK
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Reset
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return TimedOut
	}
	return Failed
}

// Stop begins no more requests and waits for the end of those under way, at most
// for the timeout of one. They count like all others.
func (l *Load) Stop() {
	l.stop()
	<-l.ended
}

// Await waits until every request that began before a moment has ended, at most
// for the timeout of one.
func (l *Load) Await(moment time.Time) {
	for _, r := range l.begun() {
		if r.start.Before(moment) {
			<-r.ended
		}
	}
}

// Outcomes returns the requests that have ended, in the order of their starts.
// After Await or Stop none is missing that began before.
func (l *Load) Outcomes() []Outcome {
	var ended []Outcome
	for _, r := range l.begun() {
		select {
		case <-r.ended:
			ended = append(ended, r.outcome)
		default:
		}
	}
	return ended
}

// Report sums up the requests that began in a stretch of time, from included and
// to not. It waits until all of them have ended, at most for the timeout of one:
// a request that hangs is a failure, which only waiting can show.
func (l *Load) Report(from, to time.Time) Report {
	l.Await(to)
	return sum(l.Outcomes(), from, to)
}

// SoFar sums up the requests that began since a moment and have ended. It does
// not wait, and so tells what went well and not what did not fail.
func (l *Load) SoFar(from time.Time) Report { return sum(l.Outcomes(), from, time.Now()) }
