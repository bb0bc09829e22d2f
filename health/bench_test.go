package health

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"appliance/internal/endpoint"
)

// benchServers, in the environment, makes the test's program the servers of
// BenchmarkThousandServers: in a process of their own, so that what they take is
// not taken for the checker's.
const benchServers = "HEALTH_BENCH_SERVERS"

func TestMain(m *testing.M) {
	if os.Getenv(benchServers) != "" {
		if err := serveBench(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// The time of a measurement, and before it.
const (
	benchWarmUp = 3 * time.Second
	benchTime   = 12 * time.Second
)

// What the checks of 1,000 servers cost, each checked once a second: %core is
// the time on the CPU per second, of one core, this process alone, kernel
// included. It runs for a fixed time: use -benchtime 1x.
func BenchmarkThousandServers(b *testing.B) {
	ports := startBenchServers(b)
	for _, kind := range []struct {
		name  string
		check Config
	}{
		{"tcp", Config{Type: TCP}},
		{"tcp-expect", Config{Type: TCP, Send: "PING\r\n", Expect: "PONG"}},
		{"http", Config{Type: HTTP}},
		{"http-expect", Config{Type: HTTP, Expect: "ready"}},
		{"redis", Config{Type: Redis}},
		{"tls", Config{Type: TLS}},
		{"https", Config{Type: HTTPS}},
		{"dns", Config{Type: DNS}},
		{"udp", Config{Type: UDP, Send: "PING", Expect: "PONG"}},
		{"ssh", Config{Type: SSH}},
		{"smtp", Config{Type: SMTP}},
		{"mysql", Config{Type: MySQL}},
		{"postgres", Config{Type: Postgres}},
		{"grpc", Config{Type: GRPC}},
		{"icmp", Config{Type: ICMP}},
	} {
		b.Run(kind.name, func(b *testing.B) {
			targets := make([]Target, 1000)
			for i := range targets {
				check := kind.check
				check.Interval, check.Timeout = time.Second, time.Second
				address := netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)})
				switch check.Type { // these servers answer from one address
				case DNS:
					check.Query, address = fmt.Sprintf("n%d.example.com", i), netip.MustParseAddr("127.0.0.1")
				case UDP:
					check.Send, address = fmt.Sprintf("PING %d", i), netip.MustParseAddr("127.0.0.1")
				}
				targets[i] = check.For(endpoint.IP(netip.AddrPortFrom(address, ports[kind.name])))
			}
			for range b.N {
				percent, passed := measureChecks(b, targets)
				b.ReportMetric(percent, "%core")
				b.ReportMetric(passed, "checks/s")
			}
		})
	}
}

// measureChecks checks targets for benchTime and returns the share of a core
// that it took, and how many checks passed per second.
func measureChecks(b *testing.B, targets []Target) (percent, passed float64) {
	b.Helper()
	c := NewChecker(zerolog.Nop(), func(Target, Result) {})
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()
	c.Set(targets)
	count := func() (n float64) {
		for _, r := range c.Results() {
			n += float64(r.Passed)
		}
		return n
	}
	// All begin at once, which may be too much for some of them.
	time.Sleep(benchWarmUp)
	before, used, begun := count(), cpuTime(b), time.Now()
	time.Sleep(benchTime)
	used, took := cpuTime(b)-used, time.Since(begun)
	passed = (count() - before) / took.Seconds()
	for target, r := range c.Results() {
		if r.State != Up {
			b.Errorf("%v is %v: %s", target, r.State, r.Reason)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		b.Error(err)
	}
	return 100 * used.Seconds() / took.Seconds(), passed
}

// cpuTime returns the time that this process has been on a CPU.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// startBenchServers starts the process of the servers and returns their ports.
func startBenchServers(b *testing.B) map[string]uint16 {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), benchServers+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // its end is the servers' end
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		b.Fatal(err)
	}
	var ports map[string]uint16
	if err := json.Unmarshal(line, &ports); err != nil {
		b.Fatal(err)
	}
	return ports
}

// serveBench says the ports of the servers and serves until its input ends.
func serveBench() error {
	certificate, err := benchCertificate()
	if err != nil {
		return err
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}}
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nready"
	ports := make(map[string]uint16)
	for name, handle := range map[string]func(net.Conn){
		"tcp":         silent,
		"tcp-expect":  answerOnce("+PONG\r\n"),
		"redis":       answerOnce("+PONG\r\n"),
		"http":        answerOnce(answer),
		"http-expect": answerOnce(answer),
		"tls":         func(c net.Conn) { _ = tls.Server(c, config).Handshake(); silent(c) },
		"https":       func(c net.Conn) { answerOnce(answer)(tls.Server(c, config)) },
		"icmp":        silent,
		"ssh":         func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-bench\r\n"); answerOnce("")(c) },
		"smtp":        func(c net.Conn) { talk(nil, "220 mail\r\n", "250 mail\r\n", "221 bye\r\n")(c) },
		"mysql":       func(c net.Conn) { greet(nil, denied)(c) },
		"postgres":    func(c net.Conn) { replay(nil, pgAuth(pgAuthMD5, "salt"))(c) },
	} {
		l, err := net.Listen("tcp4", "0.0.0.0:0")
		if err != nil {
			return err
		}
		ports[name] = uint16(l.Addr().(*net.TCPAddr).Port)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { handle(c); _ = c.Close() }()
			}
		}()
	}
	for name, answer := range map[string]func(b []byte){
		"dns": func(b []byte) { b[2] |= 0x80 }, // a response without records
		"udp": func(b []byte) { b[1] = 'O' },
	} {
		u, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		ports[name] = uint16(u.LocalAddr().(*net.UDPAddr).Port)
		go func() {
			buf := make([]byte, 1500)
			for {
				n, from, err := u.ReadFrom(buf)
				if err != nil {
					return
				}
				answer(buf)
				_, _ = u.WriteTo(buf[:n], from)
			}
		}()
	}
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		return err
	}
	ports["grpc"] = uint16(l.Addr().(*net.TCPAddr).Port)
	rpc := grpc.NewServer()
	healthpb.RegisterHealthServer(rpc, grpchealth.NewServer())
	go func() { _ = rpc.Serve(l) }()
	if err := json.NewEncoder(os.Stdout).Encode(ports); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// answerOnce hears the client once and answers.
func answerOnce(answer string) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := c.Read(make([]byte, 4096)); err == nil {
			_, _ = io.Copy(c, bytes.NewBufferString(answer))
		}
		_ = c.Close()
	}
}

func benchCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(year), DNSNames: []string{"bench"}}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
