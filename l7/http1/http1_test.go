package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// row is a line of a table in testdata.
type row struct{ want, raw string }

func table(t testing.TB, path string) (rows []row) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		l = strings.TrimSpace(l)
		if l == "" || l[0] == '#' {
			continue
		}
		want, quoted, _ := strings.Cut(l, " ")
		raw, err := strconv.Unquote(strings.TrimSpace(quoted))
		if err != nil {
			t.Fatalf("%s: %s: %v", path, l, err)
		}
		rows = append(rows, row{want, raw})
	}
	if len(rows) < 20 {
		t.Fatalf("%s has %d rows", path, len(rows))
	}
	return rows
}

var errMore = errors.New("more")

// readBody reads a body of that length (-1: chunks) at the beginning of b and
// returns what follows it.
func readBody(b []byte, length int64) (data []byte, trailers []Field, rest []byte, err error) {
	if length >= 0 {
		if int64(len(b)) < length {
			return nil, nil, nil, errMore
		}
		return b[:length], nil, b[length:], nil
	}
	var c Chunks
	for !c.Trailer() {
		n, part, err := c.Next(b)
		if err != nil {
			return nil, nil, nil, err
		}
		data, b = append(data, part...), b[n:]
		if len(b) == 0 {
			return nil, nil, nil, errMore
		}
	}
	trailers, n, err := ParseTrailer(nil, b)
	if err != nil {
		return nil, nil, nil, err
	}
	if n == 0 {
		return nil, nil, nil, errMore
	}
	return data, trailers, b[n:], nil
}

func readRequest(r *Request, b []byte) (data, rest []byte, err error) {
	n := End(b, 0)
	if n == 0 {
		return nil, nil, errMore
	}
	if err := r.Parse(b[:n]); err != nil {
		return nil, nil, err
	}
	data, _, rest, err = readBody(b[n:], r.Length)
	return data, rest, err
}

func TestRequests(t *testing.T) {
	for _, tc := range table(t, "testdata/requests.txt") {
		var r Request
		_, rest, err := readRequest(&r, []byte(tc.raw))
		got := "ok"
		var refused *Error
		switch {
		case errors.As(err, &refused):
			got = strconv.Itoa(refused.Status)
		case err != nil:
			got = "more"
		}
		if got != tc.want || len(rest) > 0 {
			t.Errorf("%q: %s (%v, left %q), want %s", tc.raw, got, err, rest, tc.want)
		}
	}
}

func TestResponses(t *testing.T) {
	for _, tc := range table(t, "testdata/responses.txt") {
		var r Response
		err, b := error(nil), []byte(tc.raw)
		for r.Status < 200 && err == nil {
			n := End(b, 0)
			if n == 0 {
				err = errMore
				break
			}
			if err = r.Parse(b[:n], "GET"); err == nil {
				b = b[n:]
			}
		}
		if err == nil && (r.Length >= 0 || r.Chunked) {
			_, _, _, err = readBody(b, r.Length)
		}
		got := "ok"
		var refused *Error
		switch {
		case errors.As(err, &refused):
			got = "bad"
		case err != nil:
			got = "more"
		}
		if got != tc.want {
			t.Errorf("%q: %s (%v), want %s", tc.raw, got, err, tc.want)
		}
	}
}

func TestParsedRequest(t *testing.T) {
	var r Request
	parse := func(s string) *Request {
		t.Helper()
		if err := r.Parse([]byte(s)); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		return &r
	}
	parse("POST http://Me:80/x?y HTTP/1.1\r\nA: 1\r\nHost: other\r\nContent-Length: 7\r\na:\t2 \r\nConnection: x, Close\r\nExpect: 100-Continue\r\n\r\n")
	want := []Field{{"A", "1"}, {"Content-Length", "7"}, {"a", "2"}, {"Connection", "x, Close"}, {"Expect", "100-Continue"}}
	if r.Method != "POST" || r.Target != "/x?y" || r.Host != "Me:80" || r.Minor != 1 || r.Length != 7 || !r.HasLength || !r.Close || !r.Expect ||
		!slices.Equal(r.Fields, want) {
		t.Errorf("%+v", r)
	}
	parse("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if r.Close || r.Expect || r.Length != 0 || r.HasLength || len(r.Fields) != 0 || r.Host != "a" {
		t.Errorf("%+v", r)
	}
	if parse("GET / HTTP/1.0\r\n\r\n"); !r.Close || r.HasHost {
		t.Errorf("%+v", r)
	}
	if parse("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"); r.Close {
		t.Errorf("%+v", r)
	}
	if parse("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"); !r.Chunked() {
		t.Errorf("%+v", r)
	}
	for target, want := range map[string]string{"http://a": "/", "http://a?b": "/?b", "HTTPS://a/b#c": "/b#c", "http:///a": "http:///a",
		"http:/a": "http:/a", "ftp://a/b": "ftp://a/b", "http://": "http://", "//a/b": "//a/b", "http://a#b": "/#b", "*": "*"} {
		if parse("GET " + target + " HTTP/1.1\r\nHost: a\r\n\r\n"); r.Target != want {
			t.Errorf("%s: %s, want %s", target, r.Target, want)
		}
	}
}

func TestParsedResponse(t *testing.T) {
	for _, tc := range []struct {
		head, method           string
		length                 int64
		chunked, close, hasLen bool
	}{
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "GET", 5, false, false, true},
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD", 0, false, false, true},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HEAD", 0, false, false, false},
		{"HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", "GET", 0, false, false, true},
		{"HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n", "GET", 0, false, true, false},
		{"HTTP/1.1 204 x\r\nContent-Length: 5\r\n\r\n", "GET", 0, false, true, true},
		{"HTTP/1.1 204 x\r\nContent-Length: 0\r\n\r\n", "GET", 0, false, false, true},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "GET", -1, true, false, false},
		{"HTTP/1.1 200 OK\r\n\r\n", "GET", -1, false, true, false},
		{"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "GET", 0, false, true, true},
		{"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "GET", 0, false, true, true},
		{"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", "GET", 0, false, false, true},
		{"HTTP/1.1 101 x\r\nUpgrade: y\r\n\r\n", "GET", 0, false, false, false},
	} {
		var r Response
		if err := r.Parse([]byte(tc.head), tc.method); err != nil || r.Length != tc.length || r.Chunked != tc.chunked || r.Close != tc.close || r.HasLength != tc.hasLen {
			t.Errorf("%q to %s: %+v, %v", tc.head, tc.method, r, err)
		}
	}
}

func TestTooMuch(t *testing.T) {
	var r Request
	var refused *Error
	err := r.Parse([]byte("GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("a:\r\n", MaxFields+1) + "\r\n"))
	if !errors.As(err, &refused) || refused.Status != 431 {
		t.Errorf("fields: %v", err)
	}
	if err := r.Parse([]byte("GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("a:\r\n", MaxFields) + "\r\n")); err != nil {
		t.Errorf("allowed fields: %v", err)
	}
	if _, _, err := ParseTrailer(nil, []byte("X: "+strings.Repeat("x", maxTrailer))); err == nil {
		t.Error("a long trailer passes")
	}
	var c Chunks
	err = nil
	for i := 0; i < 100 && err == nil; i++ {
		_, _, err = c.Next([]byte("1;" + strings.Repeat("x", 100) + "\r\n"))
		if err == nil {
			_, _, err = c.Next([]byte("d"))
		}
		if err == nil {
			_, _, err = c.Next([]byte("\r\n"))
		}
	}
	if err != errChunkExt {
		t.Errorf("extensions without end: %v", err)
	}
}

// However a message is cut into pieces, it is understood in the same way.
func TestPieces(t *testing.T) {
	for _, tc := range table(t, "testdata/requests.txt") {
		b := []byte(tc.raw)
		whole := End(b, 0)
		for cut := range len(b) + 1 {
			n := End(b[:cut], 0)
			if n == 0 {
				n = End(b, cut)
			}
			if n != whole {
				t.Errorf("%q cut at %d: the head ends at %d, not %d", tc.raw, cut, n, whole)
			}
		}
	}
	body := []byte("5;x=y\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n")
	for cut := range len(body) {
		var c Chunks
		var got []byte
		for _, b := range [][]byte{body[:cut], body[cut:]} {
			for len(b) > 0 && !c.Trailer() {
				n, data, err := c.Next(b)
				if err != nil {
					t.Fatal(err)
				}
				got, b = append(got, data...), b[n:]
			}
		}
		if string(got) != "hello0123456789abcdef" || !c.Trailer() {
			t.Errorf("cut at %d: %q", cut, got)
		}
	}
}

func TestParsingAllocatesNothing(t *testing.T) {
	head := []byte("GET /path?query HTTP/1.1\r\nHost: a\r\nUser-Agent: b\r\nAccept: */*\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n")
	answer := []byte("HTTP/1.1 200 OK\r\nServer: a\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n")
	chunks := []byte("5\r\nhello\r\n0\r\nA: b\r\n\r\n")
	var req Request
	var resp Response
	var trailers []Field
	n := testing.AllocsPerRun(100, func() {
		if err := req.Parse(head[:End(head, 0)]); err != nil {
			t.Fatal(err)
		}
		if err := resp.Parse(answer[:End(answer, 0)], req.Method); err != nil {
			t.Fatal(err)
		}
		var c Chunks
		b := chunks
		for !c.Trailer() {
			n, _, err := c.Next(b)
			if err != nil {
				t.Fatal(err)
			}
			b = b[n:]
		}
		trailers, _, _ = ParseTrailer(trailers[:0], b)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzRequest checks against net/http: what we accept it accepts too, and reads
// the same out of it. It accepts more, that is why this package exists. And a
// head that is written again is read as the same.
func FuzzRequest(f *testing.F) {
	for _, tc := range table(f, "testdata/requests.txt") {
		f.Add([]byte(tc.raw))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Request
		data, rest, err := readRequest(&r, b)
		if err != nil {
			return
		}
		if bytes.IndexByte(b[:End(b, 0)], 0) >= 0 {
			t.Fatalf("a NUL was accepted: %q", b)
		}
		theirs(t, &r, data, rest, b)

		out := AppendRequestLine(nil, r.Method, r.Target)
		if r.HasHost {
			out = AppendField(out, "Host", r.Host)
		}
		out = append(AppendFields(out, r.Fields), "\r\n"...)
		var again Request
		if n := End(out, 0); n != len(out) {
			t.Fatalf("%q ends at %d", out, n)
		}
		if err := again.Parse(out); err != nil && !(r.Minor == 0 && !r.HasHost) {
			t.Fatalf("%q becomes %q: %v", b, out, err)
		} else if err == nil && (again.Method != r.Method || again.Host != r.Host || again.Length != r.Length || !slices.Equal(again.Fields, r.Fields)) {
			t.Fatalf("%+v becomes %+v", r, again)
		}
	})
}

// theirs compares with what net/http makes of the same bytes.
func theirs(t *testing.T, r *Request, data, rest, b []byte) {
	in := bufio.NewReader(bytes.NewReader(b))
	std, err := http.ReadRequest(in)
	if err != nil {
		// It parses targets as URLs and methods and hosts more narrowly; that is
		// done elsewhere here.
		for _, more := range []string{"parse \"", "invalid method", "malformed Host", "invalid URI", "malformed HTTP version"} {
			if strings.Contains(err.Error(), more) {
				return
			}
		}
		t.Fatalf("net/http refuses %q: %v", b, err)
	}
	if std.Method != r.Method || std.ContentLength != r.Length {
		t.Fatalf("%q: %s, length %d; net/http: %s, %d", b, r.Method, r.Length, std.Method, std.ContentLength)
	}
	if h := std.Host; h != r.Host && strings.HasPrefix(r.Target, "/") && !strings.Contains(std.RequestURI, "://") {
		t.Fatalf("%q: host %q; net/http: %q", b, r.Host, h)
	}
	fields := 0
	for _, f := range r.Fields {
		if !fold(f.Name, "transfer-encoding") && !fold(f.Name, "trailer") && !fold(f.Name, "pragma") && !fold(f.Name, "cache-control") {
			fields++
			if !slices.Contains(std.Header.Values(f.Name), f.Value) && !fold(f.Name, "connection") {
				t.Fatalf("%q: net/http has no %s: %q but %q", b, f.Name, f.Value, std.Header)
			}
		}
	}
	got, err := io.ReadAll(std.Body)
	if err != nil {
		// It has bounds of its own for what is in no chunk.
		if !r.Chunked() {
			t.Fatalf("%q: net/http cannot read the body: %v", b, err)
		}
		return
	}
	if !bytes.Equal(got, data) {
		t.Fatalf("%q: body %q; net/http: %q", b, data, got)
	}
	if left, _ := io.ReadAll(in); !bytes.Equal(left, rest) {
		t.Fatalf("%q: what is left is %q; net/http: %q", b, rest, left)
	}
}

// FuzzResponse is FuzzRequest for answers.
func FuzzResponse(f *testing.F) {
	for _, tc := range table(f, "testdata/responses.txt") {
		f.Add([]byte(tc.raw), "GET")
		f.Add([]byte(tc.raw), "HEAD")
	}
	f.Fuzz(func(t *testing.T, b []byte, method string) {
		n := End(b, 0)
		var r Response
		if n == 0 || r.Parse(b[:n], method) != nil {
			return
		}
		in := bufio.NewReader(bytes.NewReader(b))
		std, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", b, err)
		}
		defer std.Body.Close()
		if std.StatusCode != r.Status {
			t.Fatalf("%q: status %d; net/http: %d", b, r.Status, std.StatusCode)
		}
		if r.Length < 0 && !r.Chunked || r.Status < 200 {
			return
		}
		data, _, rest, err := readBody(b[n:], r.Length)
		if err != nil {
			return
		}
		got, err := io.ReadAll(std.Body)
		if err != nil {
			return // bounds of its own
		}
		if left, _ := io.ReadAll(in); !bytes.Equal(got, data) || !bytes.Equal(left, rest) {
			t.Fatalf("%q: body %q, left %q; net/http: %q, %q", b, data, rest, got, left)
		}
	})
}

// FuzzChunks feeds a body in pieces: the pieces do not matter.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("5\r\nhello\r\n0\r\n\r\n"), 3)
	f.Add([]byte("5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n"), 1)
	f.Fuzz(func(t *testing.T, b []byte, piece int) {
		if piece < 1 {
			return
		}
		want, _, _, wantErr := readBody(b, -1)
		if wantErr != nil {
			return
		}
		var c Chunks
		var got []byte
		for rest := b; len(rest) > 0 && !c.Trailer(); {
			n, data, err := c.Next(rest[:min(piece, len(rest))])
			if err != nil {
				t.Fatal(err)
			}
			got, rest = append(got, data...), rest[n:]
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%q in pieces of %d: %q, not %q", b, piece, got, want)
		}
		out := AppendChunkSize(nil, len(got))
		if len(got) > 0 {
			out = append(append(out, got...), "\r\n0\r\n"...)
		}
		if again, _, _, err := readBody(append(out, "\r\n"...), -1); err != nil || !bytes.Equal(again, got) {
			t.Fatalf("%q is read as %q, %v", out, again, err)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	head := []byte("GET /forum/topic/17?page=2 HTTP/1.1\r\nHost: blog.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n" +
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n" +
		"Connection: keep-alive\r\nCookie: sessionid=0123456789abcdef0123456789abcdef; csrftoken=0123456789abcdef0123456789abcdef\r\nUpgrade-Insecure-Requests: 1\r\n\r\n")
	b.ReportAllocs()
	b.SetBytes(int64(len(head)))
	var r Request
	for b.Loop() {
		if err := r.Parse(head[:End(head, 0)]); err != nil {
			b.Fatal(err)
		}
	}
}
