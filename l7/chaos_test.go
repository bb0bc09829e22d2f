package l7

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"appliance/internal/pool"
)

// marked is a text that is one mark, again and again.
type marked struct {
	mark string
	left int
	at   int
}

func (m *marked) Read(p []byte) (int, error) {
	n := min(len(p), m.left)
	for i := range n {
		p[i] = m.mark[(m.at+i)%len(m.mark)]
	}
	m.left, m.at = m.left-n, m.at+n
	if m.left == 0 {
		return n, io.EOF
	}
	return n, nil
}

// foreign returns what of r is not the text of that mark; "" if all is. n is how much
// came, err why no more did.
func foreign(r io.Reader, mark string) (what string, n int, err error) {
	buf := make([]byte, 8<<10)
	for err == nil {
		var k int
		k, err = r.Read(buf)
		for i := range k {
			if buf[i] != mark[(n+i)%len(mark)] {
				return fmt.Sprintf("at %d: %q", n+i, buf[i:min(k, i+100)]), n, err
			}
		}
		n += k
	}
	return "", n, err
}

// chaosServer answers /MARK/SIZE/HOW with the mark, and looks whether all of a request
// is of one.
func chaosServer(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		parts := strings.Split(r.URL.Path, "/")
		mark, how := parts[1], parts[3]
		size, _ := strconv.Atoi(parts[2])
		if r.Header.Get("X-Mark") != mark || r.Host != mark {
			t.Errorf("the request of %s has the fields %v and the host %s", mark, r.Header, r.Host)
		}
		if how != "early" {
			if what, _, err := foreign(r.Body, mark); what != "" {
				t.Errorf("the body of %s has %s, %v", mark, what, err)
			} else if sum := r.Trailer.Get("X-Sum"); sum != "" && sum != mark {
				t.Errorf("the trailer of %s is %s", mark, sum)
			}
		}
		w.Header().Set("X-Mark", mark)
		w.Header().Set("Content-Type", "text/plain")
		switch how {
		case "hints":
			w.Header().Set("X-Hint", mark)
			w.WriteHeader(http.StatusEarlyHints)
		case "sized", "early":
			w.Header().Set("Content-Length", strconv.Itoa(size))
		case "trailer":
			w.Header().Set("Trailer", "X-Sum")
		case "slow":
			time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		case "abort":
			io.CopyN(w, &marked{mark: mark, left: size}, int64(size/2))
			panic(http.ErrAbortHandler)
		}
		io.Copy(w, &marked{mark: mark, left: size})
		if how == "trailer" {
			w.Header().Set("X-Sum", mark)
		}
	}
}

// dyingServer speaks HTTP/1.1 badly: it ends anywhere, and sends what nobody has asked
// for.
func dyingServer(c *net.TCPConn, r *bufio.Reader) {
	for {
		_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		io.Copy(io.Discard, io.LimitReader(req.Body, int64(rand.IntN(20000))))
		mark := strings.Split(req.URL.Path, "/")[1]
		var b bytes.Buffer
		size := rand.IntN(100000)
		fmt.Fprintf(&b, "HTTP/1.1 200 OK\r\nX-Mark: %s\r\nContent-Length: %d\r\n\r\n", mark, size)
		io.Copy(&b, &marked{mark: mark, left: size})
		switch rand.IntN(4) {
		case 0:
			c.Write(b.Bytes()[:rand.IntN(b.Len())])
			return
		case 1:
			c.SetLinger(0)
			return
		case 2:
			fmt.Fprintf(&b, "HTTP/1.1 200 OK\r\nX-Mark: poison\r\nContent-Length: 6\r\n\r\npoison")
		}
		if _, err := c.Write(b.Bytes()); err != nil {
			return
		}
		if req.ContentLength != 0 {
			return
		}
	}
}

var chaosMarks atomic.Int64

func newMark() string { return fmt.Sprintf("m%08d", chaosMarks.Add(1)) }

var chaosHows = []string{"sized", "early", "chunked", "trailer", "slow", "abort", "hints"}

// chaosClient asks for this and that, and does not always wait for the answer. What it
// gets must be of its own mark.
func chaosClient(t *testing.T, c *http.Client, base string, whole *atomic.Int64) {
	mark := newMark()
	size := []int{0, 10, 3000, 30000, 300000}[rand.IntN(5)]
	how := chaosHows[rand.IntN(len(chaosHows))]
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if rand.IntN(4) == 0 {
		time.AfterFunc(time.Duration(rand.IntN(10000))*time.Microsecond, cancel)
	}
	method, target := "GET", fmt.Sprintf("%s/%s/%d/%s", base, mark, size, how)
	var upload io.Reader
	var trailer http.Header
	length := int64(-1)
	switch rand.IntN(4) {
	case 0:
		method, length = "POST", int64([]int{5, 5000, 500000}[rand.IntN(3)])
		upload = &marked{mark: mark, left: int(length)}
	case 1:
		method, upload = "PUT", &marked{mark: mark, left: rand.IntN(50000) + 1}
		if how != "early" { // Go's server breaks the connection off when trailers come after it has answered
			trailer = http.Header{"X-Sum": {mark}}
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, target, upload)
	if err != nil {
		t.Error(err)
		return
	}
	req.Host, req.Trailer = mark, trailer
	if length >= 0 {
		req.ContentLength = length
	}
	req.Header.Set("X-Mark", mark)
	packed := rand.IntN(3) == 0
	if packed {
		req.Header.Set("Accept-Encoding", "gzip")
	}
	resp, err := c.Do(req)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	got := resp.Header.Get("X-Mark")
	if got == "" && resp.StatusCode >= 400 {
		io.Copy(io.Discard, resp.Body)
		return // of our own
	}
	if got != mark || resp.Header.Get("X-Hint") != "" && resp.Header.Get("X-Hint") != mark {
		t.Errorf("%s got the head %v", mark, resp.Header)
	}
	from := io.Reader(resp.Body)
	if rand.IntN(5) == 0 {
		from = io.LimitReader(from, int64(rand.IntN(size+1)))
	}
	if resp.Header.Get("Content-Encoding") == "gzip" {
		if from, err = gzip.NewReader(from); err != nil {
			return // it broke off
		}
	}
	what, n, err := foreign(from, mark)
	if what != "" {
		t.Errorf("%s %s: got %s", resp.Proto, mark, what)
	}
	if sum := resp.Trailer.Get("X-Sum"); sum != "" && sum != mark {
		t.Errorf("%s got the trailer %s", mark, sum)
	}
	if err == io.EOF && n == size {
		whole.Add(1)
	}
}

// chaosPipeline sends several requests at once, and reads as many answers as it cares
// for.
func chaosPipeline(t *testing.T, addr netip.AddrPort, whole *atomic.Int64) {
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	var b bytes.Buffer
	var marks []string
	for range 1 + rand.IntN(6) {
		mark := newMark()
		marks = append(marks, mark)
		fmt.Fprintf(&b, "POST /%s/%d/sized HTTP/1.1\r\nHost: %s\r\nX-Mark: %s\r\n", mark, rand.IntN(3000), mark, mark)
		if rand.IntN(2) == 0 {
			fmt.Fprintf(&b, "Content-Length: 9\r\n\r\n%s", mark)
		} else {
			fmt.Fprintf(&b, "Transfer-Encoding: chunked\r\n\r\n4\r\n%s\r\n5;x\r\n%s\r\n0\r\nX-Sum: %s\r\n\r\n", mark[:4], mark[4:], mark)
		}
	}
	for rest := b.Bytes(); len(rest) > 0; {
		n := 1 + rand.IntN(len(rest))
		if _, err := c.Write(rest[:n]); err != nil {
			return
		}
		rest = rest[n:]
	}
	in := bufio.NewReader(c)
	for _, mark := range marks {
		resp, err := http.ReadResponse(in, nil)
		if err != nil || rand.IntN(20) == 0 {
			return
		}
		if got := resp.Header.Get("X-Mark"); got != mark && (got != "" || resp.StatusCode < 400) {
			t.Errorf("%s got the head %v", mark, resp.Header)
		} else if got == "" {
			io.Copy(io.Discard, resp.Body)
			continue
		}
		if what, _, err := foreign(resp.Body, mark); what != "" {
			t.Errorf("%s got %s", mark, what)
		} else if err == io.EOF {
			whole.Add(1)
		}
	}
}

// Nobody gets anything of anybody else, whoever leaves, dies, or changes meanwhile.
// L7_CHAOS_FOR says for how long.
func TestNobodyGetsWhatIsOthers(t *testing.T) {
	lasts := 3 * time.Second
	if s := os.Getenv("L7_CHAOS_FOR"); s != "" {
		var err error
		if lasts, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	r := newRig(t)
	servers := chaosServer(t)
	config, _ := serverConfig(t, "a")
	no := false
	r.wires = map[string]Transport{
		"h1s": {TLS: &ServerTLS{Verify: &no}}, "h2": byHTTP2, "h2s": {HTTP: HTTP2, TLS: &ServerTLS{Verify: &no}},
	}
	for name, addresses := range map[string][]string{
		"h1":  {web(t, servers), web(t, servers), raw(t, dyingServer)},
		"h1s": {secureWeb(t, config, servers)},
		"h2":  {http2Web(t, nil, nil, nil, servers), http2Web(t, nil, nil, nil, servers)},
		"h2s": {http2Web(t, config, nil, nil, servers)},
	} {
		cfg := pool.Config{Name: name, OnServerDown: pool.DownReset}
		for _, a := range addresses {
			cfg.Servers = append(cfg.Servers, pool.ServerConfig{Address: a})
		}
		r.pools[name] = pool.New(cfg)
	}
	pools := []string{"h1", "h1s", "h2", "h2s"}

	yes := true
	plain, encrypted := r.addr(), r.addr()
	log := filepath.Join(t.TempDir(), "log")
	cfgs := func() []Config {
		rules := Rules{Compress: &Compress{Algorithms: []string{"gzip"}}, MaxBodySize: []int64{0, 400000}[rand.IntN(2)]}
		if rand.IntN(2) == 0 {
			rules.Compress = nil
		}
		out := []Config{
			{Name: "plain", Listen: []netip.AddrPort{plain}, Pool: pools[rand.IntN(4)], HTTP2: HTTP2Config{Enabled: &yes, MaxStreams: 20 + rand.IntN(2)}},
			{Name: "encrypted", Listen: []netip.AddrPort{encrypted}, Pool: pools[rand.IntN(4)], TLS: &TLS{Certificates: []Certificate{makeCert(t, "a")}}},
		}
		for i := range out {
			out[i].Rules, out[i].RequestID = rules, "X-ID"
			out[i].Timeouts.Connect = time.Duration(1+rand.IntN(3)) * time.Second
			out[i].AccessLog = &AccessLog{Path: log}
		}
		return out
	}
	r.apply(cfgs()...)

	var stop atomic.Bool
	var wg sync.WaitGroup
	whole := [...]*atomic.Int64{{}, {}, {}, {}, {}}
	for i, at := range []struct {
		addr  netip.AddrPort
		base  string
		proto string
	}{{plain, "http://a", protocolHTTP1}, {plain, "http://a", "h2c"}, {encrypted, "https://a", protocolHTTP1}, {encrypted, "https://a", protocolHTTP2}} {
		c := client(t, at.addr, at.proto)
		if at.proto == "h2c" {
			c.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
		}
		for range 8 {
			wg.Go(func() {
				for !stop.Load() {
					chaosClient(t, c, at.base, whole[i])
				}
			})
		}
	}
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				chaosPipeline(t, plain, whole[4])
			}
		})
	}
	few := func() bool { // answers so far, on a machine that is busy
		return slices.ContainsFunc(whole[:], func(n *atomic.Int64) bool { return n.Load() < 20 })
	}
	for began := time.Now(); (time.Since(began) < lasts || few() && time.Since(began) < lasts+6*patience) && !t.Failed(); {
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
		switch rand.IntN(5) {
		case 0, 1:
			r.apply(cfgs()...)
		case 2:
			p := r.pools[pools[rand.IntN(4)]]
			s := p.Servers()[rand.IntN(len(p.Servers()))]
			p.SetHealth(s.Address(), pool.Health{State: pool.Down})
			p.SetHealth(s.Address(), pool.Health{State: pool.Up})
		case 3:
			r.engine.Dismiss([]netip.Addr{plain.Addr()})
		case 4:
			r.engine.Quiesce(nil, true)
			r.engine.Quiesce(nil, false)
		}
	}
	stop.Store(true)
	wg.Wait()
	for i := range whole {
		t.Logf("%d whole answers to clients of kind %d", whole[i].Load(), i)
	}
	if few() {
		t.Error("those are too few")
	}
}
