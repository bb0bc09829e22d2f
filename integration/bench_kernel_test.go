//go:build bench

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"appliance/bench/contest"
	"appliance/internal/lab"
)

// This file is `make bench-kernel-failover`: how many connections of the kernel
// path are lost when the active node is. It is no test: it fails when something
// does not work, and on no figure. Variables of the environment:
//
//	BENCH_ROUNDS   how many times each event takes place (default 3)
//	BENCH_RATE     how many connections begin in a second (default 5000)
//	BENCH_INTO     the file whose section is replaced, none if empty

const (
	flowLife    = 2 * time.Second        // of a connection
	flowPause   = 400 * time.Millisecond // between two questions on one, and a half more at most
	flowPatient = 10 * time.Second       // for an answer
	echoPort    = 7000
	question    = "GET / HTTP/1.1\r\nHost: lab.example\r\n\r\n"
	answer      = "That is all."
)

// flowLoad begins connections at an even rate and asks something on each of them
// until its life is over.
type flowLoad struct {
	to    netip.AddrPort
	stop  chan struct{}
	ended sync.WaitGroup

	mu    sync.Mutex
	flows []*flowRecord
}

// flowRecord is one connection.
type flowRecord struct {
	began, connected, ended time.Time
	stall                   time.Duration // the longest wait for an answer
	err                     error
}

// startFlowLoad begins so many connections a second from the client.
func (p *pair) startFlowLoad(to netip.AddrPort, rate int) *flowLoad {
	p.t.Helper()
	var space *os.File
	if err := p.Client.Do(func() (err error) { space, err = os.Open("/proc/thread-self/ns/net"); return err }); err != nil {
		p.t.Fatal(err)
	}
	l := &flowLoad{to: to, stop: make(chan struct{})}
	failed := make(chan error, 1)
	l.ended.Go(func() {
		runtime.LockOSThread() // for good: the thread is the client's now, and ends
		defer space.Close()
		if err := unix.Setns(int(space.Fd()), unix.CLONE_NEWNET); err != nil {
			failed <- err
			return
		}
		failed <- nil
		l.run(rate)
	})
	if err := <-failed; err != nil {
		p.t.Fatal(err)
	}
	return l
}

// run begins connections until stop is closed. Who is late makes up for it.
func (l *flowLoad) run(rate int) {
	began, n := time.Now(), 0
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
		for due := int(time.Since(began).Seconds() * float64(rate)); n < due; n++ {
			l.begin()
		}
	}
}

// begin begins one connection, on the client's thread.
func (l *flowLoad) begin() {
	r := &flowRecord{began: time.Now()}
	l.mu.Lock()
	l.flows = append(l.flows, r)
	l.mu.Unlock()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err == nil {
		// A reset at its end, so that the port is free at once.
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(l.to.Port()), Addr: l.to.Addr().As4()})
		if errors.Is(err, unix.EINPROGRESS) {
			err = nil
		}
		if err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		r.err, r.ended = err, time.Now()
		return
	}
	l.ended.Go(func() {
		f := os.NewFile(uintptr(fd), "flow")
		defer f.Close()
		r.err = r.live(f)
		r.ended = time.Now()
	})
}

// live is the life of a connection.
func (r *flowRecord) live(f *os.File) error {
	f.SetDeadline(time.Now().Add(flowPatient))
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Write(func(fd uintptr) bool {
		code, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if code != 0 {
			failed = unix.Errno(code)
			return true
		}
		_, err := unix.Getpeername(int(fd))
		return err == nil
	}); err != nil || failed != nil {
		return errors.Join(err, failed)
	}
	r.connected = time.Now()
	for time.Since(r.connected) < flowLife {
		asked := time.Now()
		f.SetDeadline(asked.Add(flowPatient))
		if _, err := io.WriteString(f, question); err != nil {
			return err
		}
		if err := readAnswer(f); err != nil {
			return err
		}
		r.stall = max(r.stall, time.Since(asked))
		time.Sleep(flowPause + rand.N(flowPause/2))
	}
	return nil
}

// readAnswer reads until an answer is complete.
func readAnswer(r io.Reader) error {
	var b [512]byte
	for n := 0; !bytes.HasSuffix(b[:n], []byte(answer)); {
		if n == len(b) {
			return errors.New("the answer has no end")
		}
		more, err := r.Read(b[n:])
		if err != nil {
			return err
		}
		n += more
	}
	return nil
}

// end begins no more, waits for all, and returns them.
func (l *flowLoad) end() []*flowRecord {
	close(l.stop)
	l.ended.Wait()
	return l.flows
}

// serveAnswers has an nginx on each server that answers every question by answer.
func (p *pair) serveAnswers() {
	p.t.Helper()
	nginx := need(p.t, "nginx", "nginx-light")
	for _, s := range p.Servers {
		const path = "/run/nginx.conf"
		config := fmt.Sprintf(`worker_processes 1;
daemon off;
pid /run/nginx.pid;
error_log /run/nginx.log;
events { worker_connections 16000; }
http {
    access_log off;
    keepalive_timeout 60s;
    server {
        listen %s:%d backlog=16384;
        location / { return 200 "%s"; }
    }
}
`, s.Address, echoPort, answer)
		if err := s.Host.WriteFile(path, []byte(config)); err != nil {
			p.t.Fatal(err)
		}
		process, err := s.Host.Start(s.Host.Command(nginx, "-c", path, "-e", "/run/nginx.log"))
		if err != nil {
			p.t.Fatal(err)
		}
		p.t.Cleanup(func() { killTree(process) })
		waitAccepting(p.t, s.Host, netip.AddrPortFrom(s.Address, echoPort), process)
	}
}

// lossOf is what one event did, over all rounds.
type lossOf struct {
	rounds           int
	alive, lost      int // connections when it began
	young, youngLost int // of those, connected less than 10 ms before
	later, laterLost int // begun within flowLife after it
	rate             int // connections that began in a second before it
	stalls           distribution
	lag              distribution // of the state, just before
	lateness         distribution // by how much the lost ones were connected before
	errors           map[string]int
	longestLag       time.Duration
}

func TestBenchKernelFailover(t *testing.T) {
	number := func(name string, otherwise int) int {
		n, err := strconv.Atoi(or(os.Getenv(name), strconv.Itoa(otherwise)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	rounds, rate := number("BENCH_ROUNDS", 3), number("BENCH_RATE", 5000)
	begun := time.Now()
	config := kernelConfig + fmt.Sprintf("\n[[l4]]\nname = \"echo\"\nmode = \"kernel\"\nlisten = [\"192.168.15.3:%d\"]\nservers = [\"172.16.1.51:%d\", \"172.16.1.52:%d\", \"172.16.1.53:%d\"]\n", echoPort, echoPort, echoPort, echoPort)
	p := newKernelPair(t, config)
	p.dual = time.Hour
	p.serveAnswers()
	for _, h := range append([]*lab.Host{p.Client}, p.Servers[0].Host, p.Servers[1].Host, p.Servers[2].Host) {
		p.on(h, "sh", "-c", "echo 1024 65535 > /proc/sys/net/ipv4/ip_local_port_range; echo 16384 > /proc/sys/net/core/somaxconn; echo 16384 > /proc/sys/net/ipv4/tcp_max_syn_backlog; echo 0 > /proc/sys/net/ipv4/tcp_syncookies")
	}
	p.startInKernel()
	p.inKernel(p.LB01, "echo")
	p.inKernel(p.LB02, "echo")

	names := []string{"planned switch", "the way back", "kill -9", "cable cut"}
	results := make(map[string]*lossOf)
	for _, name := range names {
		results[name] = &lossOf{errors: make(map[string]int)}
	}
	for range rounds {
		p.lose(results["planned switch"], rate, p.LB01, func() { p.command(p.LB01, "failover") })
		p.lose(results["the way back"], rate, p.LB02, func() { p.command(p.LB01, "failback") })
		p.lose(results["kill -9"], rate, p.LB01, func() {
			if err := p.LB01.Kill(); err != nil {
				t.Fatal(err)
			}
		})
		p.restart(p.LB01)
		p.lose(results["cable cut"], rate, p.LB02, func() {
			if err := p.Cut(p.LB02.Host, lab.LAN, lab.Unplugged); err != nil {
				t.Fatal(err)
			}
		})
		if err := p.Heal(p.LB02.Host, lab.LAN); err != nil {
			t.Fatal(err)
		}
		p.copied(p.LB01)
		p.copied(p.LB02)
		p.waitActive(p.LB01)
	}
	text := kernelBenchText(begun, rate, names, results)
	fmt.Println(text)
	if path := os.Getenv("BENCH_INTO"); path != "" && !t.Failed() {
		if err := contest.WriteSection(path, "kernel-failover", text); err != nil {
			t.Fatal(err)
		}
	}
}

// lose has an event take place that ends n's being active, under load, and adds
// up what it did.
func (p *pair) lose(l *lossOf, rate int, n *lab.Node, event func()) {
	p.t.Helper()
	load := p.startFlowLoad(netip.AddrPortFrom(p.VIP, echoPort), rate)
	time.Sleep(flowLife + time.Second) // until as many end as begin
	if f := p.status(n).Peers[0].Flows; f != nil {
		l.lag = append(l.lag, time.Duration(f.LastLagSeconds*float64(time.Second)))
		l.longestLag = max(l.longestLag, time.Duration(f.MaxLagSeconds*float64(time.Second)))
	}
	began := time.Now()
	event()
	p.waitActive(p.Other(n))
	time.Sleep(flowLife)
	l.add(began, load.end())
	p.t.Logf("%d alive, %d lost, %d of %d begun later; %v", l.alive, l.lost, l.laterLost, l.later, l.errors)
}

func (l *lossOf) add(began time.Time, flows []*flowRecord) {
	l.rounds++
	for _, f := range flows {
		switch {
		case !f.connected.IsZero() && f.connected.Before(began) && f.ended.After(began):
			l.alive++
			young := began.Sub(f.connected) < 10*time.Millisecond
			if young {
				l.young++
			}
			l.stalls = append(l.stalls, f.stall)
			if f.err != nil {
				l.lost++
				l.lateness = append(l.lateness, began.Sub(f.connected))
				l.errors["under way: "+kindOfFlow(f.err)]++
				if young {
					l.youngLost++
				}
			}
		case f.ended.After(began) && f.began.Before(began.Add(flowLife)):
			l.later++
			if f.err != nil {
				l.laterLost++
				l.errors["begun after it: "+kindOfFlow(f.err)]++
			}
		}
		if f.began.Before(began) && f.began.After(began.Add(-time.Second)) {
			l.rate++
		}
	}
}

func kindOfFlow(err error) string {
	switch {
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, unix.EPIPE):
		return "reset"
	case errors.Is(err, unix.ECONNREFUSED):
		return "refused"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "no answer"
	}
	return err.Error()
}

// kernelBenchText tells the results.
func kernelBenchText(begun time.Time, rate int, names []string, results map[string]*lossOf) string {
	var b strings.Builder
	kernel, _ := exec.Command("uname", "-r").Output()
	fmt.Fprintf(&b, `## What a switch loses

%s, %d CPUs, kernel %s, %s, client, nodes and servers on the same machine in network namespaces, adverts every
100 ms, peer link, NAT. %d connections a second were asked for; each lives %v and asks something every %v or so. Lost is
what was connected before the event and got no answer within %v afterwards, or a reset.

| event | times | connections a second | under way each time | lost in all | lost of 1,000 | lost of those younger than 10 ms | begun in the 2 s after, in all | of these failed | longest wait, median / p99 / largest | lag of the state before, median / largest since the start |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
`, begun.UTC().Format("2006-01-02"), runtime.NumCPU(), strings.TrimSpace(string(kernel)), runtime.Version(), rate, flowLife, flowPause*5/4, flowPatient)
	for _, name := range names {
		l := results[name]
		n := max(1, l.rounds)
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %.2f | %d of %d | %d | %d | %.0f / %.0f / %.0f ms | %.1f / %.1f ms |\n", name, l.rounds, l.rate/n, l.alive/n, l.lost,
			1000*float64(l.lost)/float64(max(1, l.alive)), l.youngLost, l.young, l.later, l.laterLost,
			msOf(l.stalls.at(0.5)), msOf(l.stalls.at(0.99)), msOf(l.stalls.at(1)), msOf(l.lag.at(0.5)), msOf(l.longestLag))
	}
	for _, name := range names {
		l := results[name]
		for _, kind := range slices.Sorted(maps.Keys(l.errors)) {
			fmt.Fprintf(&b, "\n%s: %d, %s.\n", name, l.errors[kind], kind)
		}
		if l.lost > 0 {
			fmt.Fprintf(&b, "\n%s: age of those that were lost: %v.\n", name, l.lateness)
		}
	}
	return b.String()
}

func msOf(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
