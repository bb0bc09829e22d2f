package integration

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"testing"
	"time"
)

// transferSize is as much as people send.
const transferSize = 1 << 30

// transferBody is a stream of bytes that depends on the seed, which is summed as
// it is read.
type transferBody struct {
	source *rand.ChaCha8
	left   int64
	sum    hash.Hash
}

func newTransferBody(seed byte) *transferBody {
	return &transferBody{rand.NewChaCha8([32]byte{seed}), transferSize, sha256.New()}
}

func (b *transferBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), b.left))
	b.source.Read(p[:n])
	b.sum.Write(p[:n])
	b.left -= int64(n)
	return n, nil
}

// Uploads and downloads of 1 GiB arrive as they were sent, with their length told
// or in chunks, plain and encrypted, by both versions of HTTP, and cost the
// appliance no memory to speak of.
func TestLargeTransfers(t *testing.T) {
	r := newBadClientRig(t) // with nobody beside: it needs all processors
	for _, s := range r.Servers {
		s.SetHandler(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			switch q.Method {
			case "PUT":
				sum := sha256.New()
				n, err := io.Copy(sum, q.Body)
				fmt.Fprintf(w, "%d %v %x", n, err, sum.Sum(nil))
			default:
				seed, _ := strconv.Atoi(q.URL.Query().Get("seed"))
				body := newTransferBody(byte(seed))
				if q.URL.Query().Has("length") {
					w.Header().Set("Content-Length", strconv.Itoa(transferSize))
				}
				w.Header().Set("Trailer", "Sum")
				io.CopyBuffer(struct{ io.Writer }{w}, body, make([]byte, 256<<10))
				w.Header().Set("Sum", fmt.Sprintf("%x", body.sum.Sum(nil)))
			}
		}))
	}
	pid := r.LB01.Appliance().PID()
	for i, c := range []struct{ name, url, version, length string }{
		{"plain", "http://192.168.15.3", "HTTP/1.1", "&length"},
		{"encrypted, in chunks", "https://192.168.15.3", "HTTP/1.1", ""},
		{"HTTP 2", "https://192.168.15.3", "HTTP/2.0", "&length"},
	} {
		t.Run(c.name, func(t *testing.T) {
			protocols := new(http.Protocols)
			protocols.SetHTTP1(c.version == "HTTP/1.1")
			protocols.SetHTTP2(c.version == "HTTP/2.0")
			trust := r.trust.Clone()
			trust.MinVersion = tls.VersionTLS13
			transport := &http.Transport{DialContext: r.Client.DialContext, TLSClientConfig: trust, Protocols: protocols,
				WriteBufferSize: 256 << 10, ReadBufferSize: 256 << 10}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: 5 * time.Minute}

			up := newTransferBody(byte(2 * i))
			request, err := http.NewRequestWithContext(t.Context(), "PUT", c.url+"/", up)
			if err != nil {
				t.Fatal(err)
			}
			if c.length != "" {
				request.ContentLength = transferSize
			}
			answer, err := client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			said, err := io.ReadAll(answer.Body)
			answer.Body.Close()
			if want := fmt.Sprintf("%d <nil> %x", transferSize, up.sum.Sum(nil)); err != nil || string(said) != want || answer.Proto != c.version {
				t.Errorf("upload by %s: %v, %s; want %s", answer.Proto, err, said, want)
			}

			answer, err = client.Get(fmt.Sprintf("%s/?seed=%d%s", c.url, 2*i+1, c.length))
			if err != nil {
				t.Fatal(err)
			}
			got := sha256.New()
			n, err := io.CopyBuffer(struct{ io.Writer }{got}, answer.Body, make([]byte, 256<<10))
			answer.Body.Close()
			want := newTransferBody(byte(2*i + 1))
			io.Copy(io.Discard, want)
			if err != nil || n != transferSize || !bytes.Equal(got.Sum(nil), want.sum.Sum(nil)) {
				t.Errorf("download by %s: %d bytes, %v, sum %x; want %x", answer.Proto, n, err, got.Sum(nil), want.sum.Sum(nil))
			}
			if c.length == "" && answer.Trailer.Get("Sum") != fmt.Sprintf("%x", want.sum.Sum(nil)) {
				t.Errorf("the trailer says %v", answer.Trailer)
			}
		})
	}
	if use := badClientUse(t, pid); use.peak > 128<<10 {
		t.Errorf("the appliance had %d KiB at most", use.peak)
	}
}
