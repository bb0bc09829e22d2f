package l4

import (
	"io"
	"net"
	"testing"
)

// BenchmarkAnswer is one client's small request and its small answer.
func BenchmarkAnswer(b *testing.B) {
	h := newHouse(b)
	h.serve(Timeouts{}, backend(b, echo))
	c := h.dial(entrance)
	message := make([]byte, 200)
	for b.Loop() {
		if _, err := c.Write(message); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, message); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDownload is 64 MiB from a server.
func BenchmarkDownload(b *testing.B) {
	const size = 64 << 20
	h := newHouse(b)
	chunk := make([]byte, 1<<20)
	h.serve(Timeouts{}, backend(b, func(c *net.TCPConn) {
		for range size / len(chunk) {
			if _, err := c.Write(chunk); err != nil {
				return
			}
		}
	}))
	b.SetBytes(size)
	for b.Loop() {
		c := h.dial(entrance)
		got := 0
		for got < size {
			n, err := c.Read(chunk)
			if err != nil {
				b.Fatal(err)
			}
			got += n
		}
		c.Close()
	}
}

// BenchmarkConnection is a connection with one small answer.
func BenchmarkConnection(b *testing.B) {
	h := newHouse(b)
	h.serve(Timeouts{}, backend(b, echo))
	for b.Loop() {
		c := h.dial(entrance)
		say(b, c, "x")
		expect(b, c, "x")
		c.Close()
		h.end()
	}
}
