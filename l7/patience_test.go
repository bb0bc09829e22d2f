package l7

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// cutPipe is a body that comes slowly, and fails when ctx ends.
type cutPipe struct{ *io.PipeReader }

func newCutPipe(ctx context.Context) (cutPipe, *io.PipeWriter) {
	r, w := io.Pipe()
	context.AfterFunc(ctx, func() { r.CloseWithError(ctx.Err()) })
	return cutPipe{r}, w
}

func TestPatientBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cut := context.WithCancelCause(t.Context())
		pipe, server := newCutPipe(ctx)
		b := &patientBody{ReadCloser: pipe, ctx: ctx, cut: cut, patience: time.Minute}
		go func() {
			for range 3 {
				time.Sleep(59 * time.Second)
				io.WriteString(server, "x")
			}
		}()
		buf := make([]byte, 8)
		for range 3 {
			if n, err := b.Read(buf); n != 1 || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
		}
		time.Sleep(time.Hour) // a client that takes its time is another matter
		go io.WriteString(server, "x")
		if n, err := b.Read(buf); n != 1 || err != nil {
			t.Fatalf("after a pause of the reader: %d, %v", n, err)
		}
		began := time.Now()
		if _, err := b.Read(buf); err != errSilent || time.Since(began) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// A server that stops in the middle of an answer is given up, and the client
// sees that there was more.
func TestServerThatStopsAnswering(t *testing.T) {
	for name, length := range map[string]string{"sized": "10", "chunked": ""} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) {
				if length != "" {
					w.Header().Set("Content-Length", length)
				}
				io.WriteString(w, "x")
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			}))
			addr := r.addr()
			r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", Timeouts: Timeouts{Response: 50 * time.Millisecond}})
			resp := say(t, addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			if b, err := io.ReadAll(resp.Body); err == nil || string(b) != "x" {
				t.Errorf("%q, %v", b, err)
			}
			r.until("the end", func() bool { return r.stats("web").Current == 0 })
		})
	}
}
