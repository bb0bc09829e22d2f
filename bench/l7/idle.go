package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"appliance/bench/contest"
)

// idleConnections is how many connections are held open at once: fewer if the
// machine does not let a process have that many descriptors.
var idleConnections = 10000

// opened is what has been opened for idle.
type opened struct {
	mu    sync.Mutex
	conns []net.Conn
	err   error
}

// settle is how long connections have been idle when they are looked at.
const settle = 10 * time.Second

// idle returns the memory of an idle connection: what a new process, which
// has answered two requests, has grown by when there are many that have carried one
// request each. And it returns what another request costs on each of them, one after
// the other.
func idle(p *proxy, secure bool) (sample, error) {
	o := &opened{}
	defer func() {
		for _, c := range o.conns {
			c.Close()
		}
	}()
	for range 2 {
		o.open(p, secure)
	}
	time.Sleep(time.Second)
	before := contest.Memory(p.pid())
	const together = 8
	var group sync.WaitGroup
	for range together {
		group.Go(func() {
			for range idleConnections / together {
				o.open(p, secure)
			}
		})
	}
	group.Wait()
	if o.err != nil {
		return sample{}, o.err
	}
	time.Sleep(settle)
	s := sample{Memory: float64(contest.Memory(p.pid())-before) / float64(len(o.conns)-2) / 1024}
	return s, o.wake(p, &s)
}

// wake puts a second request on each connection and notes what that costs.
func (o *opened) wake(p *proxy, s *sample) error {
	took := make([]time.Duration, 0, len(o.conns))
	used := contest.CPU(p.pid())
	for _, c := range o.conns {
		began := time.Now()
		if err := put(c, p); err != nil {
			return err
		}
		took = append(took, time.Since(began))
	}
	s.CPU = (contest.CPU(p.pid()) - used).Seconds() * 1e6 / float64(len(took))
	slices.Sort(took)
	s.P50, s.P99 = took[len(took)/2], took[len(took)*99/100]
	return nil
}

// open opens a connection, and keeps it when it has carried a request.
func (o *opened) open(p *proxy, secure bool) {
	c, err := ask(p, secure)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err = errors.Join(o.err, err)
	if err == nil {
		o.conns = append(o.conns, c)
	}
}

func ask(p *proxy, secure bool) (net.Conn, error) {
	port := plainPort
	if secure {
		port = ecdsaPort
	}
	c, err := net.Dial("tcp", net.JoinHostPort(p.address, strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	if secure {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	}
	if err := put(c, p); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// put puts a request on a connection.
func put(c net.Conn, p *proxy) error {
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+p.address+"\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(c, 512), nil)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
		return fmt.Errorf("%s, %v", resp.Status, err)
	}
	return nil
}
