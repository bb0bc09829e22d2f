package l4

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
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

// A datagram to the server and its answer, so many of them under way at a time.
func BenchmarkDatagram(b *testing.B) {
	for _, window := range []int{1, 32} {
		b.Run(fmt.Sprint(window), func(b *testing.B) {
			h := newHouse(b)
			at := freeUDP(b, "127.0.0.51")
			h.load([]Config{{Name: "x", Listen: []netip.AddrPort{at}, Protocol: "udp"}}, newPool("x", udpBackend(b, "127.0.0.31:0", "")))
			c := udpClient(b, at)
			one := make([]byte, 60)
			b.ReportAllocs()
			for left := b.N; left > 0; left -= window {
				for range min(window, left) {
					if _, err := c.Write(one); err != nil {
						b.Fatal(err)
					}
				}
				for range min(window, left) {
					_ = c.SetDeadline(time.Now().Add(atOnce))
					if _, err := c.Read(one); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
