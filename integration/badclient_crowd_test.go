package integration

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"appliance/internal/control"
)

// badClientGood is a well-behaved client that others must not disturb.
type badClientGood struct {
	stop     func() // begins no more requests and waits for those under way
	requests sync.WaitGroup
	stopped  chan struct{}
	ended    chan struct{}
	mu       sync.Mutex
	times    []time.Duration
	failures []error
}

// startGood begins 50 requests per second, every other one by a connection of
// its own. It ends with the test at the latest.
func (r *badClientRig) startGood() *badClientGood {
	g := &badClientGood{stopped: make(chan struct{}), ended: make(chan struct{})}
	var clients [2]http.Client
	for i := range clients {
		transport := &http.Transport{
			DialContext: r.Client.DialContext, TLSClientConfig: r.trust.Clone(),
			DisableKeepAlives: i == 0, MaxIdleConnsPerHost: 4,
		}
		r.t.Cleanup(transport.CloseIdleConnections)
		clients[i] = http.Client{Transport: transport, Timeout: 10 * time.Second}
	}
	go func() {
		defer close(g.ended)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-tick.C:
				g.requests.Go(func() { g.request(&clients[n%2]) })
			case <-g.stopped:
				g.requests.Wait()
				return
			}
		}
	}()
	g.stop = sync.OnceFunc(func() {
		close(g.stopped)
		<-g.ended
	})
	r.t.Cleanup(g.stop)
	return g
}

func (g *badClientGood) request(client *http.Client) {
	began := time.Now()
	err := func() error {
		response, err := client.Get("https://192.168.15.3/")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err == nil && (response.StatusCode != http.StatusOK || !bytes.HasPrefix(body, []byte("web"))) {
			err = fmt.Errorf("%s: %.100q", response.Status, body)
		}
		return err
	}()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.times = append(g.times, time.Since(began))
	if err != nil {
		g.failures = append(g.failures, err)
	}
}

// count returns how many requests have ended.
func (g *badClientGood) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.times)
}

// badClientProcess is what the appliance has of the machine.
type badClientProcess struct {
	descriptors  int
	memory, peak int // in KiB
}

func badClientUse(t *testing.T, pid int) badClientProcess {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	value := func(key string) int {
		for line := range strings.Lines(string(status)) {
			if fields := strings.Fields(line); len(fields) > 1 && fields[0] == key+":" {
				n, err := strconv.Atoi(fields[1])
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
		}
		t.Fatalf("%s is missing in:\n%s", key, status)
		return 0
	}
	return badClientProcess{len(fds), value("VmRSS"), value("VmHWM")}
}

// badClientAttack is one way to be a nuisance: it does its worst and returns
// when the appliance has ended the connection.
type badClientAttack struct {
	name  string
	times int
	do    func() error
}

// Hundreds of bad clients are got rid of within the service's timeouts, without
// a failed request or a long wait for a good one, and leave nothing behind.
func TestBadClientsHarmNobody(t *testing.T) {
	t.Parallel()
	r := newBadClientRig(t)
	const large = 64 << 20
	for _, s := range r.Servers {
		s.SetHandler(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			switch q.URL.Path {
			case "/large":
				io.CopyN(w, badClientZeros{}, large) // until the client has gone
			case "/read":
				io.Copy(io.Discard, q.Body)
				fallthrough
			default:
				fmt.Fprintln(w, s.Name())
			}
		}))
	}
	pid := r.LB01.Appliance().PID()
	good := r.startGood()
	eventually(t, 20*time.Second, "100 good requests", func() bool { return good.count() >= 100 })
	before := badClientUse(t, pid)

	// ended waits for the end of a connection and wants an answer of one of these
	// statuses before it, 0 being none; without any it takes what comes.
	ended := func(c net.Conn, want ...int) error {
		defer c.Close()
		if e := badClientReadEnd(c); !e.closed || len(want) > 0 && !slices.Contains(want, e.status) {
			return fmt.Errorf("status %d, closed %v; want status %d", e.status, e.closed, want)
		}
		return nil
	}
	say := func(tls bool, text string, want ...int) func() error {
		return func() error {
			c, err := r.open(tls)
			if err != nil {
				return err
			}
			go io.WriteString(c, text) // it ends with the connection
			return ended(c, want...)
		}
	}
	const head = "GET / HTTP/1.1\r\nHost: blog.example\r\n"
	attacks := []badClientAttack{
		{"garbage", 50, say(false, strings.Repeat("\x00\xffgarbage", 100))},
		{"plain HTTP", 50, say(false, head+"\r\n", 400)},
		{"half a ClientHello", 50, say(false, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")},
		{"a record of the largest length, never filled", 20, say(false, "\x16\x03\x01\xff\xff")},
		{"a connection and silence", 100, say(false, "")},
		{"a handshake and silence", 200, say(true, "")},
		{"half a request", 50, say(true, head)},
		// In such a crowd the head itself may come too late, and is not answered.
		{"half a body", 20, say(true, "POST /read HTTP/1.1\r\nHost: blog.example\r\nContent-Length: 1000\r\n\r\nhello", 408, 0)},
		{"a field of 1 MiB", 10, say(true, head+"X-Large: "+strings.Repeat("x", 1<<20)+"\r\n\r\n", 431)},
		{"10,000 fields", 10, say(true, head+strings.Repeat("X-Line: something\r\n", 10000)+"\r\n", 431)},
		{"a byte at a time", 30, func() error {
			c, err := r.open(true)
			if err != nil {
				return err
			}
			closed := make(chan error, 1)
			go func() { closed <- ended(c) }()
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-tick.C:
					io.WriteString(c, (head + strings.Repeat("X-Line: something\r\n", 1000))[i:i+1])
				case err := <-closed:
					return err
				}
			}
		}},
		{"a large answer that nobody reads", 20, func() error {
			c, err := r.open(true)
			if err != nil {
				return err
			}
			_, err = io.WriteString(c, "GET /large HTTP/1.1\r\nHost: blog.example\r\n\r\n")
			if err != nil {
				return err
			}
			// The status tells when it has been given up: reading would be good
			// behaviour.
			return nil
		}},
	}
	// They come at a rate that leaves the processors time for the good client:
	// its handshakes, and theirs, are work for this machine on both sides.
	var running sync.WaitGroup
	errs := make(chan error, 1000)
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for _, a := range attacks {
		for range a.times {
			<-pace.C
			running.Go(func() {
				if err := a.do(); err != nil {
					errs <- fmt.Errorf("%s: %w", a.name, err)
				}
			})
		}
	}
	running.Wait()
	close(errs)
	failed := 0
	for err := range errs {
		if failed++; failed <= 20 {
			t.Error(err)
		}
	}
	from := good.count()
	eventually(t, 20*time.Second, "50 more good requests", func() bool { return good.count() >= from+50 })
	good.stop()
	eventually(t, 30*time.Second, "no request is under way", func() bool {
		return slices.ContainsFunc(r.status(r.LB01).Services, func(s control.Service) bool { return s.Name == "secure" && s.Current == 0 })
	})

	slices.Sort(good.times)
	median, most := good.times[len(good.times)/2], good.times[len(good.times)-1]
	if len(good.failures) > 0 {
		t.Errorf("%d of %d good requests failed, the first: %v", len(good.failures), len(good.times), good.failures[0])
	}
	if late := good.times[len(good.times)*99/100]; late > 3*time.Second {
		t.Errorf("1 of 100 good requests took %v or more", late)
	}
	var after badClientProcess
	eventually(t, 60*time.Second, "the descriptors are given back", func() bool {
		after = badClientUse(t, pid)
		return after.descriptors <= before.descriptors+20
	})
	const bound = 192 << 10
	if after.peak > before.memory+bound {
		t.Errorf("the appliance took up to %d KiB of memory, %d KiB before", after.peak, before.memory)
	}
	t.Logf("good requests: %d, median %v, longest %v; descriptors %d, then %d; memory %d KiB, at most %d, then %d",
		len(good.times), median.Round(time.Millisecond), most.Round(time.Millisecond), before.descriptors, after.descriptors,
		before.memory, after.peak, after.memory)
}

// badClientZeros is an endless body.
type badClientZeros struct{}

func (badClientZeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
