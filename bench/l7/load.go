package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"appliance/bench/contest"
)

// result is what a load generator says.
type result struct {
	count    float64
	p50, p99 time.Duration
}

var (
	wrkCount     = regexp.MustCompile(`(\d+) requests in`)
	wrkPart      = regexp.MustCompile(`(?m)^\s+(50|99)%\s+(\S+)$`)
	wrkBad       = regexp.MustCompile(`Non-2xx|Socket errors: connect [1-9]|Socket errors:.*timeout [1-9]`)
	h2loadCount  = regexp.MustCompile(`(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout`)
	h2loadStatus = regexp.MustCompile(`status codes: (\d+) 2xx`)
)

func wrkResult(out string) (r result, err error) {
	m := wrkCount.FindStringSubmatch(out)
	if m == nil || wrkBad.MatchString(out) {
		return r, errors.New("requests failed")
	}
	if r.count, err = strconv.ParseFloat(m[1], 64); err != nil || r.count == 0 {
		return r, errors.New("no requests")
	}
	for _, p := range wrkPart.FindAllStringSubmatch(out, -1) {
		d, err := time.ParseDuration(p[2])
		if err != nil {
			return r, err
		}
		if p[1] == "50" {
			r.p50 = d
		} else {
			r.p99 = d
		}
	}
	return r, nil
}

func h2loadResult(out string) (r result, err error) {
	m, s := h2loadCount.FindStringSubmatch(out), h2loadStatus.FindStringSubmatch(out)
	if m == nil || s == nil || m[2] != "0" || m[3] != "0" || m[4] != "0" || s[1] != m[1] {
		return r, errors.New("requests failed")
	}
	r.count, err = strconv.ParseFloat(m[1], 64)
	return r, err
}

// idleConnections is how many connections are held open at once: fewer if the
// machine does not let a process have that many descriptors.
var idleConnections = 10000

// idle returns the memory of an idle connection in KiB: what the process has
// grown by when there are many that have carried one request.
func idle(p *proxy, secure bool) (float64, error) {
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
		time.Sleep(time.Second)
	}()
	before := contest.Memory(p.pid())
	for range idleConnections {
		port := plainPort
		if secure {
			port = ecdsaPort
		}
		tcp, err := net.Dial("tcp", net.JoinHostPort(p.address, strconv.Itoa(port)))
		if err != nil {
			return 0, err
		}
		conns = append(conns, tcp)
		c := tcp
		if secure {
			c = tls.Client(tcp, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
		}
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+p.address+"\r\n\r\n"); err != nil {
			return 0, err
		}
		resp, err := http.ReadResponse(bufio.NewReaderSize(c, 512), nil)
		if err != nil {
			return 0, err
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
			return 0, fmt.Errorf("%s, %v", resp.Status, err)
		}
	}
	time.Sleep(time.Second)
	return float64(contest.Memory(p.pid())-before) / float64(idleConnections) / 1024, nil
}
