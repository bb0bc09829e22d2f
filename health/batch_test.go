package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"appliance/internal/endpoint"
)

// hearInPieces hears an answer in pieces of that size, then its end.
func hearInPieces(t *testing.T, check Config, answer string, size int, end error) string {
	t.Helper()
	x, err := prepareExchange(check.For(endpoint.IP(netip.MustParseAddrPort("192.0.2.1:80"))))
	if err != nil {
		t.Fatal(err)
	}
	var h hearing
	for rest := []byte(answer); ; {
		piece, ended := rest[:min(size, len(rest), h.room(x))], error(nil)
		if rest = rest[len(piece):]; len(piece) == 0 {
			ended = end
		}
		found, err := h.take(x, piece, ended)
		clear(piece) // nobody keeps it
		if err == errMore {
			continue
		}
		if err != nil {
			return "down: " + inWords(err, time.Second)
		}
		return "up: " + found.words
	}
}

// However an answer is cut to pieces, it means the same.
func TestAnswersInPieces(t *testing.T) {
	ready := Config{Type: HTTP, Expect: "ready"}
	tests := []struct {
		check  Config
		answer string
		end    error
		want   string
	}{
		{Config{Type: HTTP}, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready", errors.New("not reached"), "up: status 200"},
		{ready, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nready\r\n0\r\n\r\n", errors.New("not reached"), "up: status 200"},
		{ready, "HTTP/1.1 200 OK\r\n\r\nalready", io.EOF, "up: status 200"},
		{ready, "HTTP/1.1 200 OK\r\n\r\nnot yet", io.EOF, `down: status 200, but the body has no "ready"`},
		{ready, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nrea", os.ErrDeadlineExceeded, "down: no answer within 1s"},
		{ready, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nrea", io.EOF, "down: connection closed by the server"},
		{ready, "HTTP/1.1 200", os.ErrDeadlineExceeded, "down: no answer within 1s"},
		{Config{Type: Redis, Role: "master"}, "+PONG\r\n*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n", errors.New("not reached"), "up: answered PONG as master"},
		{Config{Type: Redis, Role: "master"}, "+PONG\r\n*3\r\n$6\r\nmas", io.EOF, "down: connection closed by the server"},
		{Config{Type: TCP, Expect: "PONG"}, "a PONG", errors.New("not reached"), `up: answered "a PONG"`},
		{Config{Type: TCP, Expect: "PONG"}, "a PING", io.EOF, `down: answered "a PING", want "PONG"`},
		{Config{Type: TCP, Expect: "PONG"}, "", os.ErrDeadlineExceeded, "down: no answer within 1s"},
	}
	for _, test := range tests {
		for size := 1; size <= len(test.answer)+1; size++ {
			if got := hearInPieces(t, test.check, test.answer, size, test.end); got != test.want {
				t.Errorf("%s, %q in pieces of %d: %s, want %s", test.check.Type, test.answer, size, got, test.want)
			}
		}
	}
}

// Whatever a server says, it means the same in pieces.
func FuzzPieces(f *testing.F) {
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready"), 3)
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nready\r\n0\r\n\r\n"), 1)
	f.Add([]byte("+PONG\r\n*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"), 2)
	f.Fuzz(func(t *testing.T, answer []byte, size int) {
		size = max(1, size, len(answer)*len(answer)/maxJudged+1)
		for _, check := range []Config{{Type: HTTP}, {Type: HTTP, Expect: "ready"}, {Type: Redis, Role: "master"}, {Type: TCP, Expect: "PONG"}} {
			whole := hearInPieces(t, check, string(answer), len(answer)+1, io.EOF)
			if got := hearInPieces(t, check, string(answer), size, io.EOF); got != whole && !(strings.HasPrefix(got, "up: answered") && strings.HasPrefix(whole, "up: answered")) {
				t.Errorf("%s: %s in pieces of %d, %s as a whole", check.Type, got, size, whole)
			}
		}
	})
}

// A server cannot have all of its answer judged again for each byte of it. What it
// has said by then may do.
func TestAnswersInTooManyPieces(t *testing.T) {
	long := strings.Repeat("x", 50000)
	for _, test := range []struct {
		check  Config
		answer string
		size   int
		want   string
	}{
		{Config{Type: HTTP}, "HTTP/1.1 200 OK\r\nX: " + long, 1, "down: " + errPieces.Error()},
		{Config{Type: HTTP}, "HTTP/1.1 200 OK\r\n\r\n" + long, 1, "up: status 200"},
		{Config{Type: HTTP, Expect: "ready"}, "HTTP/1.1 200 OK\r\n\r\n" + long, 60, "down: " + errPieces.Error()},
		{Config{Type: HTTP, Expect: "ready"}, "HTTP/1.1 200 OK\r\n\r\n" + long + "ready", 1448, "up: status 200"},
	} {
		if got := hearInPieces(t, test.check, test.answer, test.size, io.EOF); got != test.want {
			t.Errorf("%q in pieces of %d: %s, want %s", test.answer[:20], test.size, got, test.want)
		}
	}
}

// Every check of a batch has its own end, whatever the others come to, and its
// connection ends with it.
func TestBatch(t *testing.T) {
	var mu sync.Mutex
	gone := make(chan struct{})
	crowd := func(handle func(net.Conn)) netip.AddrPort {
		return serve(t, func(c net.Conn) {
			twin := dupe(t, c) // serve closes the other one
			go func() { defer twin.Close(); handle(twin); silent(twin); gone <- struct{}{} }()
		})
	}
	kinds := []struct {
		address netip.AddrPort
		check   Config
		want    string
	}{
		{crowd(say("+PONG\r\n")), Config{Type: TCP, Send: "PING\r\n", Expect: "PONG"}, "passed"},
		{crowd(say("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000))), Config{Type: HTTP}, "passed"},
		{crowd(say("SSH-2.0-x\r\n")), Config{Type: TCP, Expect: "SSH"}, "passed"},
		{crowd(silent), Config{Type: HTTP}, "no answer within 150ms"},
		{crowd(silent), Config{Type: TCP}, "passed"},
		{closed(t), Config{Type: HTTP}, "connection refused"},
		{full(t), Config{Type: TCP}, "no connection within 150ms"},
	}
	const crowds, each = 5, 20
	var parts []part
	want := make(map[*job]string)
	for range each {
		for _, k := range kinds {
			j := &job{rhythm: rhythm{timeout: ample}, target: k.check.For(endpoint.IP(k.address))}
			if strings.HasSuffix(k.want, short.String()) {
				j.rhythm.timeout = short
			}
			want[j] = k.want
			parts = append(parts, part{job: j, exchange: prepare(j.target).exchange})
		}
	}
	b := batch{report: func(all []outcome) {
		mu.Lock()
		defer mu.Unlock()
		for _, o := range all {
			got := "passed"
			if o.err != nil {
				got = o.finding.words
			}
			if got != want[o.job] {
				t.Errorf("%v by %s: %s, want %s", o.job.target, o.job.target.Check.Type, got, want[o.job])
			}
			delete(want, o.job)
		}
	}}
	b.run(t.Context(), parts)
	if len(want) > 0 {
		t.Errorf("%d of %d checks have no outcome", len(want), len(parts))
	}
	for i := range crowds * each { // each server sees its client go
		select {
		case <-gone:
		case <-time.After(ample):
			t.Fatalf("%d of %d connections have ended", i, crowds*each)
		}
	}
}

// A batch does not outlive whoever wants it.
func TestBatchIsBrokenOff(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	address := serve(t, func(c net.Conn) { cancel(); silent(c) })
	j := &job{rhythm: rhythm{timeout: time.Hour}}
	said := ""
	b := batch{report: func(all []outcome) { said += fmt.Sprint(all[0].err) }}
	b.run(ctx, []part{{job: j, exchange: prepare((Config{Type: HTTP}).For(endpoint.IP(address))).exchange}})
	if said != ranOut.Error() {
		t.Error(said)
	}
}

// dupe returns a connection of its own to the other end of c.
func dupe(t *testing.T, c net.Conn) net.Conn {
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Error(err)
		return c
	}
	defer f.Close()
	twin, err := net.FileConn(f)
	if err != nil {
		t.Error(err)
		return c
	}
	return twin
}

// What has come in time counts, although much of it has come when the batch, which
// something kept from going on, sees that the time is over.
func TestBatchIsLate(t *testing.T) {
	const many = 200
	var asked sync.WaitGroup
	asked.Add(many)
	answered := make(chan struct{}, many)
	address := serve(t, func(c net.Conn) {
		twin := dupe(t, c) // serve closes the other one
		go func() {
			defer twin.Close()
			_, _ = io.ReadFull(twin, make([]byte, 4))
			asked.Done()
			asked.Wait()
			_, _ = io.WriteString(twin, "PONG")
			answered <- struct{}{}
			silent(twin)
		}()
	})
	deadline := time.Now().Add(ample / 4)
	var once sync.Once
	x := &exchange{endpoint.IP(address), []byte("PING"), maxAnswer, func(answer []byte, ended error) (finding, error) {
		once.Do(func() {
			for range many {
				<-answered
			}
			time.Sleep(time.Until(deadline.Add(time.Millisecond)))
		})
		if string(answer) == "PONG" {
			return finding{}, nil
		}
		return finding{}, errors.Join(ended, errors.New("no answer"))
	}}
	parts := make([]part, many)
	for i := range parts {
		parts[i] = part{exchange: x, deadline: deadline}
	}
	failed := 0
	b := batch{report: func(all []outcome) {
		for _, o := range all {
			if o.err != nil {
				failed++
			}
		}
	}}
	b.run(t.Context(), parts)
	if failed > 0 {
		t.Errorf("%d of %d fail, all have answered in time", failed, many)
	}
}

// Where this node has no descriptors left, no check has taken time.
func TestBatchWithoutDescriptors(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	var ended []outcome
	b := batch{report: func(all []outcome) { ended = append(ended, all...) }}
	b.run(t.Context(), make([]part, 2))
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if len(ended) != 2 {
		t.Fatalf("%d outcomes, want 2", len(ended))
	}
	for _, o := range ended {
		if !isOurs(o.err) || o.latency > time.Minute {
			t.Errorf("%v after %v", o.err, o.latency)
		}
	}
}
