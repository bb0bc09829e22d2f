package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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

// idle returns the memory of an idle connection in KiB: what a new process, which
// has answered two requests, has grown by when there are many that have carried one
// request each.
func idle(p *proxy, secure bool) (float64, error) {
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
		return 0, o.err
	}
	time.Sleep(time.Second)
	return float64(contest.Memory(p.pid())-before) / float64(len(o.conns)-2) / 1024, nil
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
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+p.address+"\r\n\r\n"); err != nil {
		c.Close()
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(c, 512), nil)
	if err != nil {
		c.Close()
		return nil, err
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
		c.Close()
		return nil, fmt.Errorf("%s, %v", resp.Status, err)
	}
	return c, nil
}
