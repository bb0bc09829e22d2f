package health

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/encoding/protowire"
)

// rpcServer starts a server of gRPC, by TLS if config is not nil.
func rpcServer(t *testing.T, config *tls.Config, register func(s *grpc.Server)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var options []grpc.ServerOption
	if config != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
	}
	s := grpc.NewServer(options...)
	if register != nil {
		register(s)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-ended })
	return netip.MustParseAddrPort(l.Addr().String())
}

func TestGRPC(t *testing.T) {
	pair, ca := certificate(t, year, "app.example.com")
	states := grpchealth.NewServer()
	states.SetServingStatus("orders", healthpb.HealthCheckResponse_SERVING)
	states.SetServingStatus("carts", healthpb.HealthCheckResponse_NOT_SERVING)
	states.SetServingStatus("stock", healthpb.HealthCheckResponse_UNKNOWN)
	register := func(s *grpc.Server) { healthpb.RegisterHealthServer(s, states) }
	plain, secure := rpcServer(t, nil, register), rpcServer(t, &tls.Config{Certificates: []tls.Certificate{pair}}, register)
	without := rpcServer(t, nil, nil)
	tests := map[string]struct {
		address netip.AddrPort
		check   Config
		want    string
	}{
		"the server":        {plain, Config{}, "up: SERVING"},
		"a service":         {plain, Config{Service: "orders", Host: "app.example.com"}, "up: SERVING"},
		"not serving":       {plain, Config{Service: "carts"}, "down: the service is NOT_SERVING"},
		"unknown state":     {plain, Config{Service: "stock"}, "down: the service is UNKNOWN"},
		"no such service":   {plain, Config{Service: "fish"}, "down: NOT_FOUND: unknown service"},
		"no health service": {without, Config{}, "down: UNIMPLEMENTED: unknown service grpc.health.v1.Health"},
		"by TLS":            {secure, Config{TLS: true, Service: "orders", Verify: true, CAFile: ca, ServerName: "app.example.com"}, "up: SERVING"},
		"wrong name":        {secure, Config{TLS: true, Verify: true, CAFile: ca, ServerName: "x.example.com"}, "down: the certificate does not pass: certificate is valid for app.example.com, not x.example.com"},
		"not in the clear":  {secure, Config{}, "down: connection closed by the server"},
		"TLS to plain":      {plain, Config{TLS: true}, "down: the answer is not TLS"},
		"refuses":           {closed(t), Config{}, "down: connection refused"},
		"HTTP/1.1":          {serve(t, say("HTTP/1.1 400 Bad Request\r\n\r\n")), Config{}, "down: the answer is not HTTP/2"},
		"no HTTP/2 by TLS":  {serveTLS(t, pair, nil, silent), Config{TLS: true}, "down: the server does not choose HTTP/2 in the TLS handshake"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			check := test.check
			check.Type, check.Timeout = GRPC, ample
			if got := verdictOf(t, test.address, check); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
	// A server that is stopped says so.
	states.Shutdown()
	if got := verdictOf(t, plain, Config{Type: GRPC, Timeout: ample}); got != "down: the service is NOT_SERVING" {
		t.Error(got)
	}
}

// by2 answers what comes by HTTP/2 with what frames writes.
func by2(frames func(f *http2.Framer, head func(id uint32, end bool, nameValues ...string))) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		f := http2.NewFramer(c, c)
		f.AllowIllegalWrites = true
		var block bytes.Buffer
		encoder := hpack.NewEncoder(&block)
		frames(f, func(id uint32, end bool, nameValues ...string) {
			block.Reset()
			for i := 0; i < len(nameValues); i += 2 {
				_ = encoder.WriteField(hpack.HeaderField{Name: nameValues[i], Value: nameValues[i+1]})
			}
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end})
		})
		silent(c)
	}
}

func TestAnswersByHTTP2(t *testing.T) {
	type frames = func(f *http2.Framer, head func(id uint32, end bool, nameValues ...string))
	after := func(then frames) frames {
		return func(f *http2.Framer, head func(id uint32, end bool, nameValues ...string)) {
			_ = f.WriteSettings()
			then(f, head)
		}
	}
	ok := []string{":status", "200"}
	rpc := []string{":status", "200", "content-type", "application/grpc"}
	tests := map[string]struct {
		frames frames
		check  Config
		want   string
	}{
		"an answer": {after(func(f *http2.Framer, head func(uint32, bool, ...string)) { head(1, true, ok...) }), Config{}, "up: status 200"},
		"an interim one": {after(func(f *http2.Framer, head func(uint32, bool, ...string)) {
			head(1, false, ":status", "103")
			head(1, true, ":status", "404")
		}), Config{}, "down: status 404, want 200-399"},
		"no settings": {func(f *http2.Framer, head func(uint32, bool, ...string)) { head(1, true, ok...) }, Config{}, "down: the answer is not HTTP/2"},
		"a ping between": {after(func(f *http2.Framer, head func(uint32, bool, ...string)) {
			_ = f.WritePing(false, [8]byte{})
			head(1, true, ok...)
		}), Config{}, "up: status 200"},
		"refused": {after(func(f *http2.Framer, _ func(uint32, bool, ...string)) {
			_ = f.WriteRSTStream(1, http2.ErrCodeRefusedStream)
		}), Config{}, "down: the server has reset the request: REFUSED_STREAM"},
		"farewell": {after(func(f *http2.Framer, _ func(uint32, bool, ...string)) { _ = f.WriteGoAway(0, http2.ErrCodeNo, nil) }), Config{}, "down: the server takes no request: NO_ERROR"},
		"farewell behind": {after(func(f *http2.Framer, head func(uint32, bool, ...string)) {
			_ = f.WriteGoAway(1, http2.ErrCodeNo, nil)
			head(1, true, ok...)
		}), Config{}, "up: status 200"},
		"bad status": {after(func(f *http2.Framer, head func(uint32, bool, ...string)) { head(1, true, ":status", "x") }), Config{}, "down: the answer breaks the rules of HTTP/2"},
		"bad head": {after(func(f *http2.Framer, _ func(uint32, bool, ...string)) {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x80}, EndHeaders: true})
		}), Config{}, "down: the answer breaks the rules of HTTP/2"},
		"another stream": {after(func(f *http2.Framer, head func(uint32, bool, ...string)) {
			head(3, true, ok...)
			head(1, true, ":status", "204")
		}), Config{}, "up: status 204"},
		"body": {after(func(f *http2.Framer, head func(uint32, bool, ...string)) {
			head(1, false, ok...)
			_ = f.WriteData(1, false, []byte("in st"))
			_ = f.WriteData(1, true, []byte("ock"))
		}), Config{Expect: "in stock"}, "up: status 200"},
		"other body": {after(func(f *http2.Framer, head func(uint32, bool, ...string)) {
			head(1, false, ok...)
			_ = f.WriteData(1, true, []byte("sold"))
		}), Config{Expect: "in stock"}, `down: status 200, but the body has no "in stock"`},
		"endless body": {after(func(f *http2.Framer, head func(uint32, bool, ...string)) {
			head(1, false, ok...)
			for n := http2Window; n > 0; n -= 1 << 14 {
				_ = f.WriteData(1, false, make([]byte, min(n, 1<<14)))
			}
		}), Config{}, "up: status 200"},
		"large head": {after(func(f *http2.Framer, head func(uint32, bool, ...string)) {
			head(1, false, ":status", "200", "x-large", strings.Repeat("x", 12000), "x-more", strings.Repeat("y", 3000))
			head(1, true, "x-trailer", "1")
		}), Config{}, "up: status 200"},
		"flood": {after(func(f *http2.Framer, _ func(uint32, bool, ...string)) {
			for f.WriteData(3, false, make([]byte, 1<<14)) == nil {
			}
		}), Config{}, "down: the head of the answer is longer than 64 KiB"},
		"no message": {after(func(f *http2.Framer, head func(uint32, bool, ...string)) {
			head(1, false, rpc...)
			head(1, true, "grpc-status", "0")
		}), Config{Type: GRPC}, "down: the answer is not gRPC"},
		"odd message": {after(func(f *http2.Framer, head func(uint32, bool, ...string)) {
			head(1, false, rpc...)
			_ = f.WriteData(1, false, []byte{0, 0, 0, 0, 1, 0x08})
			head(1, true, "grpc-status", "0")
		}), Config{Type: GRPC}, "down: the answer is not gRPC"},
		"more fields": {after(func(f *http2.Framer, head func(uint32, bool, ...string)) {
			head(1, false, rpc...)
			_ = f.WriteData(1, false, []byte{0, 0, 0, 0, 5, 0x12, 1, 'x', 0x08, 1})
			head(1, true, "grpc-status", "0")
		}), Config{Type: GRPC}, "up: SERVING"},
		"odd state": {after(func(f *http2.Framer, head func(uint32, bool, ...string)) {
			head(1, false, rpc...)
			_ = f.WriteData(1, false, []byte{0, 0, 0, 0, 2, 0x08, 9})
			head(1, true, "grpc-status", "0")
		}), Config{Type: GRPC}, "down: the service is in state 9, which nobody knows"},
		"no outcome": {after(func(f *http2.Framer, head func(uint32, bool, ...string)) { head(1, true, rpc...) }), Config{Type: GRPC}, "down: the answer is not gRPC"},
		"no gRPC":    {after(func(f *http2.Framer, head func(uint32, bool, ...string)) { head(1, true, ok...) }), Config{Type: GRPC}, "down: the answer is not gRPC"},
		"unavailable": {after(func(f *http2.Framer, head func(uint32, bool, ...string)) {
			head(1, true, append(rpc, "grpc-status", "14", "grpc-message", "not%20yet%1b")...)
		}), Config{Type: GRPC}, "down: UNAVAILABLE: not yet?"},
		"a proxy's 503": {after(func(f *http2.Framer, head func(uint32, bool, ...string)) { head(1, true, ":status", "503") }), Config{Type: GRPC}, "down: status 503, which is no answer of gRPC"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			check := test.check
			if check.Timeout = ample; check.Type == "" {
				check.Type, check.HTTP = HTTP, http2Version
			}
			if got := verdictOf(t, serve(t, by2(test.frames)), check); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

// What an http check by HTTP/2 asks, and with TLS.
func TestHTTP2Request(t *testing.T) {
	pair, _ := certificate(t, year, "app.example.com")
	for _, secure := range []bool{false, true} {
		s := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprint(w, r.Proto, " ", r.Method, " ", r.Host, " ", r.URL, " ", r.Header.Get("X-Check"), " ", r.UserAgent(), " ", r.TLS != nil)
		})}
		s.Protocols.SetHTTP2(true)
		s.Protocols.SetUnencryptedHTTP2(true)
		s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		check := Config{Type: HTTP, HTTP: http2Version, Timeout: ample, Path: "/up?deep=1", Host: "app.example.com", Headers: "X-Check: " + Headers(strings.Repeat("long ", 5000)) + "1"}
		done := make(chan struct{})
		if secure {
			check.Type = HTTPS
			go func() { defer close(done); _ = s.ServeTLS(l, "", "") }()
		} else {
			go func() { defer close(done); _ = s.Serve(l) }()
		}
		check.Expect = fmt.Sprintf("HTTP/2.0 GET app.example.com /up?deep=1 %s1 applianctl %t", strings.Repeat("long ", 5000), secure)
		if got := verdictOf(t, netip.MustParseAddrPort(l.Addr().String()), check); got != "up: status 200" {
			t.Error(got)
		}
		_ = s.Close()
		<-done
	}
}

// What a server sends never makes a check panic or wait for more than it may send,
// and says whether the service is serving only in one way.
func FuzzServing(f *testing.F) {
	f.Add(grpcMessage([]byte{0x08, 1}))
	f.Add([]byte{0, 0, 0, 0, 5, 0x12, 1, 'x', 0x08, 1})
	f.Fuzz(func(t *testing.T, body []byte) {
		status, err := servingOf(body)
		if err != nil {
			return
		}
		again, err := servingOf(grpcMessage(protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), status)))
		if err != nil || again != status {
			t.Errorf("%x: %d, then %d, %v", body, status, again, err)
		}
	})
}
