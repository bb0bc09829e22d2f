package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// streamPace is the time between two lines of a stream.
const streamPace = 20 * time.Millisecond

// streams are connections on which something happens all the time, until finish.
// Each counts its lines, so that one that is lost or comes twice is noticed.
type streams struct {
	t        *testing.T
	finished chan struct{}
	all      []*streaming
}

// streaming is one of them.
type streaming struct {
	name string
	done chan struct{} // closed when it is over
	gap  gap
	// Of its goroutine until then:
	lines int
	err   error // nil: it ended as it should
}

// gap is the longest time without a line since take.
type gap struct{ longest atomic.Int64 }

func (g *gap) note(d time.Duration) {
	for {
		was := g.longest.Load()
		if int64(d) <= was || g.longest.CompareAndSwap(was, int64(d)) {
			return
		}
	}
}

func (g *gap) take() time.Duration { return time.Duration(g.longest.Swap(0)) }

// startStreams makes the servers of p serve streams. They end with the test.
func (p *pair) startStreams() *streams {
	s := &streams{t: p.t, finished: make(chan struct{})}
	p.t.Cleanup(func() {
		select {
		case <-s.finished:
		default:
			close(s.finished)
		}
	})
	for _, server := range p.Servers {
		server.SetHandler(s.handler(server.Name()))
	}
	return s
}

// handler is the web server of a name.
func (s *streams) handler(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/down":
			s.down(w, r)
		case "/up":
			s.up(w, r)
		case "/chat":
			chat(w)
		default:
			time.Sleep(requestTime)
			fmt.Fprintln(w, name)
		}
	})
}

// down is the server of a download.
func (s *streams) down(w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(streamPace)
	defer tick.Stop()
	for n := 0; ; n++ {
		if _, err := fmt.Fprintln(w, n); err != nil {
			return
		}
		http.NewResponseController(w).Flush()
		select {
		case <-tick.C:
		case <-s.finished:
			fmt.Fprintln(w, "end")
			return
		case <-r.Context().Done():
			return
		}
	}
}

// up is the server of an upload. It answers with how many lines have come, and the
// longest time without one.
func (s *streams) up(w http.ResponseWriter, r *http.Request) {
	var got streaming
	err := got.readLines(bufio.NewReader(r.Body), func(string) {})
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintln(w, got.lines, got.gap.take().Nanoseconds())
}

// chat is the server of a conversation: it says what the client says.
func chat(w http.ResponseWriter) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"); err != nil {
		return
	}
	io.Copy(conn, rw)
}

// start begins a stream, which talk makes and ends by returning.
func (s *streams) start(name string, talk func(*streaming) error) {
	one := &streaming{name: name, done: make(chan struct{})}
	s.all = append(s.all, one)
	go func() {
		defer close(one.done)
		one.err = talk(one)
	}()
}

// readLines reads numbered lines up to "end". A silence of 5 s is an error.
func (s *streaming) readLines(r *bufio.Reader, before func(string)) error {
	last := time.Now()
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return fmt.Errorf("after %d lines: %w", s.lines, err)
		}
		now := time.Now()
		if s.lines > 0 {
			s.gap.note(now.Sub(last))
		}
		last = now
		line = strings.TrimSpace(line)
		if line == "end" {
			return nil
		}
		if line != strconv.Itoa(s.lines) {
			return fmt.Errorf("line %d says %q", s.lines, line)
		}
		s.lines++
		before(line)
	}
}

// request sends the head of a request and returns the answer, unless only the head
// is to be sent.
func request(c net.Conn, head string) (*http.Response, *bufio.Reader, error) {
	if _, err := io.WriteString(c, head+"\r\nHost: lab.example\r\n\r\n"); err != nil {
		return nil, nil, err
	}
	r := bufio.NewReader(c)
	response, err := http.ReadResponse(r, nil)
	return response, r, err
}

// dial connects the client, for at most two minutes.
func (p *pair) dial(target netip.AddrPort) net.Conn {
	p.t.Helper()
	c, err := p.Client.Dial(p.within(10*time.Second), target)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	return c
}

// download is a stream from the server to the client.
func (s *streams) download(p *pair, target netip.AddrPort) {
	p.t.Helper()
	c := p.dial(target)
	response, _, err := request(c, "GET /down HTTP/1.1\r\nConnection: close")
	if err != nil || response.StatusCode != http.StatusOK {
		p.t.Fatalf("a download from %s: %v, %v", target, response, err)
	}
	s.start("download from "+target.String(), func(one *streaming) error {
		defer c.Close()
		return one.readLines(bufio.NewReader(response.Body), func(string) {})
	})
}

// upload is one from the client to the server.
func (s *streams) upload(p *pair, target netip.AddrPort) {
	p.t.Helper()
	c := p.dial(target)
	if _, err := io.WriteString(c, "POST /up HTTP/1.1\r\nHost: lab.example\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"); err != nil {
		p.t.Fatal(err)
	}
	s.start("upload to "+target.String(), func(one *streaming) error {
		defer c.Close()
		tick := time.NewTicker(streamPace)
		defer tick.Stop()
		for over := false; !over; one.lines++ {
			line := fmt.Sprintln(one.lines)
			select {
			case <-tick.C:
			case <-s.finished:
				line, over = "end\n", true
			}
			if _, err := fmt.Fprintf(c, "%x\r\n%s\r\n", len(line), line); err != nil {
				return err
			}
		}
		if _, err := io.WriteString(c, "0\r\n\r\n"); err != nil {
			return err
		}
		response, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		var got, longest int
		if _, err := fmt.Fscan(response.Body, &got, &longest); err != nil || got != one.lines-1 {
			return fmt.Errorf("%s: %d of %d lines, %w", response.Status, got, one.lines-1, err)
		}
		one.gap.note(time.Duration(longest))
		return nil
	})
}

// converse is a conversation on a connection: each line is answered before the
// next.
func (s *streams) converse(name string, r *bufio.Reader, w io.Writer, end func()) {
	s.start(name, func(one *streaming) error {
		defer end()
		tick := time.NewTicker(streamPace)
		defer tick.Stop()
		say := func(line string) error {
			_, err := io.WriteString(w, line+"\n")
			return err
		}
		if err := say("0"); err != nil {
			return err
		}
		var failed error
		err := one.readLines(r, func(string) {
			next := strconv.Itoa(one.lines)
			select {
			case <-tick.C:
			case <-s.finished:
				next = "end"
			}
			failed = errors.Join(failed, say(next))
		})
		return errors.Join(failed, err)
	})
}

// websocket is a conversation with a web server, after an upgrade.
func (s *streams) websocket(p *pair, target netip.AddrPort) {
	p.t.Helper()
	c := p.dial(target)
	response, r, err := request(c, "GET /chat HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket")
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		p.t.Fatalf("an upgrade at %s: %v, %v", target, response, err)
	}
	s.converse("websocket at "+target.String(), r, c, func() { c.Close() })
}

// visit is a client that sends one request after the other, by one connection for
// as long as the answers let it, and no request twice.
func (s *streams) visit(p *pair, target netip.AddrPort) {
	p.t.Helper()
	first := p.dial(target)
	s.start("visitor of "+target.String(), func(one *streaming) error {
		c := net.Conn(first)
		defer func() { c.Close() }()
		r := bufio.NewReader(c)
		tick := time.NewTicker(streamPace)
		defer tick.Stop()
		for ; ; one.lines++ {
			begun := time.Now()
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: lab.example\r\n\r\n"); err != nil {
				return fmt.Errorf("request %d: %w", one.lines, err)
			}
			response, err := http.ReadResponse(r, nil)
			if err == nil {
				_, err = io.Copy(io.Discard, response.Body)
			}
			if err != nil || response.StatusCode != http.StatusOK {
				return fmt.Errorf("request %d: %v, %w", one.lines, response, err)
			}
			one.gap.note(time.Since(begun))
			if response.Close {
				c.Close()
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				next, err := p.Client.Dial(ctx, target)
				cancel()
				if err != nil {
					return err
				}
				c, r = next, bufio.NewReader(next)
				c.SetDeadline(time.Now().Add(2 * time.Minute))
			}
			select {
			case <-tick.C:
			case <-s.finished:
				return nil
			}
		}
	})
}

// echo is a conversation with a server of TCP.
func (s *streams) echo(p *pair, target netip.AddrPort) {
	p.t.Helper()
	c := p.dial(target)
	r := bufio.NewReader(c)
	if _, err := r.ReadString('\n'); err != nil { // its greeting
		p.t.Fatal(err)
	}
	s.converse("conversation with "+target.String(), r, c, func() { c.Close() })
}

// ssh is a conversation with a program at the other end of an SSH session.
func (s *streams) ssh(p *pair) {
	p.t.Helper()
	cmd := sshCommand(p, "ssh", "-p", "1122", "root@192.168.15.3", "exec cat")
	w, err := cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	r, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	process, err := p.Client.Start(cmd)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { killTree(process) })
	out := bufio.NewReader(r)
	if _, err := io.WriteString(w, "hello\n"); err != nil {
		p.t.Fatal(err)
	}
	if line, err := out.ReadString('\n'); err != nil || line != "hello\n" {
		p.t.Fatalf("by SSH: %q, %v", line, err)
	}
	s.converse("session of SSH", out, w, func() { w.Close() })
}

// alive fails the test if a stream is over already.
func (s *streams) alive(when string) {
	s.t.Helper()
	for _, one := range s.all {
		select {
		case <-one.done:
			s.t.Errorf("%s: the %s is over: %v", when, one.name, one.err)
		default:
		}
	}
}

// finish ends the streams, all of which must end well.
func (s *streams) finish() {
	s.t.Helper()
	close(s.finished)
	lines := 0
	for _, one := range s.all {
		<-one.done
		if one.err != nil {
			s.t.Errorf("%s: %v", one.name, one.err)
		}
		lines += one.lines
	}
	s.t.Logf("%d streams, %d lines; the longest time without one: %s", len(s.all), lines, s.gaps())
}

// gaps says for how long the streams have stood still at most since it was asked
// last. An upload tells when it is over.
func (s *streams) gaps() string {
	var gaps []time.Duration
	for _, one := range s.all {
		if d := one.gap.take(); d > 0 {
			gaps = append(gaps, d)
		}
	}
	slices.Sort(gaps)
	return fmt.Sprintf("half of them %v, the worst %v", gaps[len(gaps)/2].Round(time.Millisecond), gaps[len(gaps)-1].Round(time.Millisecond))
}

// reset fails the test unless every stream is ended by a reset in that time.
func (s *streams) reset(within time.Duration) {
	s.t.Helper()
	s.gone(within, syscall.ECONNRESET, syscall.EPIPE)
}

// gone fails the test unless every stream is ended in that time before it should:
// by one of those errors, if any are given.
func (s *streams) gone(within time.Duration, by ...error) {
	s.t.Helper()
	late := time.After(within)
	for _, one := range s.all {
		select {
		case <-one.done:
		case <-late:
			s.t.Fatalf("%s: not over after %v", one.name, within)
		}
		fits := func(e error) bool { return errors.Is(one.err, e) }
		if one.err == nil || len(by) > 0 && !slices.ContainsFunc(by, fits) {
			s.t.Errorf("%s: %v, want %v", one.name, one.err, by)
		}
	}
}
