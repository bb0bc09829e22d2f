package health

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"appliance/internal/endpoint"
)

func TestChecksOfUnixSockets(t *testing.T) {
	dir := t.TempDir()
	web := filepath.Join(dir, "web.sock")
	l, err := net.Listen("unix", web)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "for "+r.Host)
	})}}
	server.Start()
	defer server.Close()
	for _, tt := range []struct {
		path  string
		check Config
		want  string
	}{
		{web, Config{Type: TCP}, "up: connection accepted"},
		{web, Config{Type: TCP, Send: "GET / HTTP/1.0\r\n\r\n", Expect: "200 OK"}, ""},
		{web, Config{Type: HTTP}, "up: status 200"},
		{web, Config{Type: HTTP, Expect: "for localhost"}, "up: status 200"},
		{web, Config{Type: HTTP, Host: "a.example", Expect: "for a.example"}, "up: status 200"},
		{filepath.Join(dir, "none.sock"), Config{Type: TCP}, "down: no such file or directory"},
		{filepath.Join(dir, "none.sock"), Config{Type: HTTP}, "down: no such file or directory"},
	} {
		e, err := endpoint.Parse("unix:" + tt.path)
		if err != nil {
			t.Fatal(err)
		}
		tt.check.Timeout = 10 * time.Second
		ctx, cancel := context.WithTimeout(t.Context(), tt.check.Timeout)
		found, err := prepare(tt.check.For(e)).once(ctx)
		cancel()
		got := "up: " + found.words
		if err != nil {
			got = "down: " + inWords(err, tt.check.Timeout)
		}
		if got != tt.want && (tt.want != "" || err != nil) {
			t.Errorf("%s, %s: %s, want %s", tt.path, tt.check.Type, got, tt.want)
		}
	}
}

// A check that looks elsewhere looks there.
func TestTargetOfAUnixSocket(t *testing.T) {
	e, err := endpoint.Parse("unix:/run/app.sock")
	if err != nil {
		t.Fatal(err)
	}
	if got := (Config{Type: TCP}).For(e).String(); got != "unix:/run/app.sock" {
		t.Errorf("got %s", got)
	}
	elsewhere := Config{Type: TCP, Address: netip.MustParseAddr("10.0.0.1"), Port: 80}
	if got := elsewhere.For(e).String(); got != "10.0.0.1:80" {
		t.Errorf("got %s", got)
	}
	elsewhere = Config{Type: ICMP, Address: netip.MustParseAddr("10.0.0.1")}
	if got := elsewhere.For(e).String(); got != "10.0.0.1" {
		t.Errorf("got %s", got)
	}
}
