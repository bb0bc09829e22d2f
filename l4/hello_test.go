package l4

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"testing"
)

// helloOf returns what a TLS client sends first.
func helloOf(t testing.TB, name string) []byte {
	t.Helper()
	c, s := net.Pipe()
	defer s.Close()
	go func() {
		_ = tls.Client(c, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake()
		c.Close()
	}()
	b := make([]byte, 1<<14)
	n, err := s.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// inRecords spreads a ClientHello over records of size bytes each.
func inRecords(hello []byte, size int) []byte {
	var b []byte
	for body := hello[5:]; len(body) > 0; {
		n := min(size, len(body))
		b = append(b, recordHandshake, 3, 1, byte(n>>8), byte(n))
		b = append(b, body[:n]...)
		body = body[n:]
	}
	return b
}

func TestServerName(t *testing.T) {
	hello := helloOf(t, "Blog.Example.com")
	for name, tt := range map[string]struct {
		in   []byte
		want string
		err  error
	}{
		"whole":              {hello, "blog.example.com", nil},
		"with more behind":   {append(bytes.Clone(hello), "more"...), "blog.example.com", nil},
		"several records":    {inRecords(hello, 50), "blog.example.com", nil},
		"no name":            {helloOf(t, "192.0.2.1"), "", nil},
		"nothing":            {nil, "", errMore},
		"HTTP":               {[]byte("GET / HTTP/1.1\r\n\r\n"), "", errNoTLS},
		"a record of no use": {[]byte{22, 3, 1, 0, 0}, "", errNoTLS},
		"a ServerHello":      {[]byte{22, 3, 1, 0, 4, 2, 0, 0, 0}, "", errNoTLS},
		"too large":          {[]byte{22, 3, 1, 0, 4, 1, 0xff, 0, 0}, "", errNoTLS},
		"cut inside":         {[]byte{22, 3, 1, 0, 6, 1, 0, 0, 2, 3, 3}, "", errNoTLS},
	} {
		got, err := serverName(tt.in)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s: %q, %v; want %q, %v", name, got, err, tt.want, tt.err)
		}
	}
	for n := range hello {
		if _, err := serverName(hello[:n]); !errors.Is(err, errMore) {
			t.Fatalf("%d of %d bytes: %v, want that more is needed", n, len(hello), err)
		}
	}
}

func FuzzServerName(f *testing.F) {
	hello := helloOf(f, "blog.example.com")
	f.Add(hello)
	f.Add(inRecords(hello, 100))
	f.Add(hello[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		name, err := serverName(b)
		if err != nil {
			return
		}
		// In other records, and with more behind it, it says the same.
		message, _ := handshake(b)
		again := append([]byte{clientHello, byte(len(message) >> 16), byte(len(message) >> 8), byte(len(message))}, message...)
		if got, err := serverName(append(inRecords(append(make([]byte, 5), again...), 7), 1, 2, 3)); err != nil || got != name {
			t.Fatalf("%q became %q, %v", name, got, err)
		}
	})
}
