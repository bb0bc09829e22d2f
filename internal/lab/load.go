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
	"slices"
	"strings"
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
	host     *Host
	options  LoadOptions
	cancel   context.CancelFunc
	ended    chan struct{} // closed when every request has ended
	outcomes journal[Outcome]
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

// StartLoad begins sending requests from a host. Stop ends it.
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
	ctx, cancel := context.WithCancel(context.Background())
	l := &Load{host: from, options: o, cancel: cancel, ended: make(chan struct{})}
	go l.run(ctx)
	return l
}

// run begins requests until ctx ends, and waits for all of them.
func (l *Load) run(ctx context.Context) {
	defer close(l.ended)
	var requests sync.WaitGroup
	defer requests.Wait()
	tick := time.NewTicker(time.Second / time.Duration(l.options.Rate))
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		target := l.options.Targets[n%len(l.options.Targets)]
		requests.Go(func() {
			if o := l.request(ctx, target); ctx.Err() == nil || o.Kind == OK {
				l.outcomes.add(o)
			}
		})
	}
}

// request sends one request and reads the whole answer.
func (l *Load) request(ctx context.Context, target netip.AddrPort) Outcome {
	o := Outcome{Start: time.Now(), Target: target}
	ctx, cancel := context.WithTimeout(ctx, l.options.Timeout)
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

// Stop begins no more requests, gives up those under way without counting them,
// and waits for their end. The outcomes stay readable.
func (l *Load) Stop() {
	l.cancel()
	<-l.ended
}

// Outcomes returns the requests that have ended, in the order of their ends.
// The caller must not change it.
func (l *Load) Outcomes() []Outcome { return l.outcomes.all() }

// Report sums up the requests that ended in a stretch of time, both ends
// included.
func (l *Load) Report(from, to time.Time) Report {
	r := Report{From: from, To: to, Kinds: make(map[OutcomeKind]int), Servers: make(map[string]int)}
	last := from
	gap := func(next time.Time) {
		if d := next.Sub(last); d > r.Gap {
			r.Gap, r.GapFrom = d, last
		}
		last = next
	}
	for _, o := range l.Outcomes() {
		if o.End.Before(from) || o.End.After(to) {
			continue
		}
		r.Requests++
		r.Kinds[o.Kind]++
		if o.Kind != OK {
			if r.FirstError == nil {
				r.FirstError = o.Err
			}
			continue
		}
		r.Servers[o.Server]++
		gap(o.End)
	}
	gap(to)
	return r
}

// Report is what became of the requests in a stretch of time.
type Report struct {
	From, To   time.Time
	Requests   int
	Kinds      map[OutcomeKind]int
	Servers    map[string]int // answers of each server with status 200
	FirstError error
	// Gap is the longest time without a success in the stretch, and GapFrom
	// when it began. The ends of the stretch count as successes.
	Gap     time.Duration
	GapFrom time.Time
}

// Failures returns how many requests did not end well.
func (r Report) Failures() int { return r.Requests - r.Kinds[OK] }

// Rate returns the successful requests per second.
func (r Report) Rate() float64 { return float64(r.Kinds[OK]) / r.To.Sub(r.From).Seconds() }

// String tells the failures by their kind, such as "3 refused, 1 reset", or
// "no failures".
func (r Report) String() string {
	var parts []string
	for _, k := range []OutcomeKind{Status, Refused, Reset, TimedOut, Failed} {
		if n := r.Kinds[k]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, k))
		}
	}
	if parts == nil {
		return "no failures"
	}
	return strings.Join(parts, ", ")
}

// ServerNames returns the servers that answered, sorted.
func (r Report) ServerNames() []string {
	names := make([]string, 0, len(r.Servers))
	for n := range r.Servers {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
