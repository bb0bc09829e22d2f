package accesslog

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func example() *Record {
	return &Record{
		Time: time.Date(2026, 11, 27, 0, 44, 18, 7e6, time.UTC), Service: "blog", Client: "192.0.2.7", ID: "ab12", User: "ann",
		Method: "GET", Scheme: "https", Host: "blog.example.com", Target: "/a?b=c", Protocol: "HTTP/1.1", Status: 200, BytesIn: 3, BytesOut: 60,
		Route: "blog.example.com/a", Pool: "django", Server: "d1",
		Head: 0, Wait: 12 * time.Microsecond, Connect: -1, FirstByte: 1500 * time.Microsecond, Total: 61*time.Second + 20*time.Millisecond,
		TLSVersion: "TLS 1.3", TLSCipher: "TLS_AES_128_GCM_SHA256", SNI: "blog.example.com", Resumed: true, Retries: 1,
		Referer: "https://example.com/", UserAgent: "curl/8", End: Done,
	}
}

func TestFormats(t *testing.T) {
	time.Local = time.FixedZone("", 3600)
	refused := &Record{Time: example().Time, Client: "192.0.2.7", Start: "GET /\x00 \"x\"\\", Status: 400, BytesOut: 16, Head: -1, Wait: -1, Connect: -1,
		FirstByte: -1, Total: 0, End: BadRequest, Problem: "a NUL"}
	for _, one := range []struct {
		name   string
		format Format
		record *Record
		want   string
	}{
		{"json", JSON, example(), `{"time":"2026-11-27T00:44:18.007Z","service":"blog","client":"192.0.2.7","id":"ab12","user":"ann","method":"GET",` +
			`"scheme":"https","host":"blog.example.com","target":"/a?b=c","protocol":"HTTP/1.1","status":200,"bytes_in":3,"bytes_out":60,` +
			`"route":"blog.example.com/a","pool":"django","server":"d1","head_seconds":0.000000,"wait_seconds":0.000012,` +
			`"first_byte_seconds":0.001500,"total_seconds":61.020000,"retries":1,"tls_version":"TLS 1.3","tls_cipher":"TLS_AES_128_GCM_SHA256",` +
			`"tls_sni":"blog.example.com","tls_resumed":true,"referer":"https://example.com/","user_agent":"curl/8","end":"done"}`},
		{"common", Common, example(), `192.0.2.7 - ann [27/Nov/2026:01:44:18 +0100] "GET /a?b=c HTTP/1.1" 200 60`},
		{"combined", Combined, example(), `192.0.2.7 - ann [27/Nov/2026:01:44:18 +0100] "GET /a?b=c HTTP/1.1" 200 60 "https://example.com/" "curl/8"`},
		{"refused, json", JSON, refused, `{"time":"2026-11-27T00:44:18.007Z","client":"192.0.2.7","start":"GET /\u0000 \"x\"\\","status":400,` +
			`"bytes_in":0,"bytes_out":16,"total_seconds":0.000000,"end":"bad_request","problem":"a NUL"}`},
		{"refused, combined", Combined, refused, `192.0.2.7 - - [27/Nov/2026:01:44:18 +0100] "GET /\x00 \x22x\x22\x5c" 400 16 "-" "-"`},
		{"nothing, common", Common, &Record{Time: example().Time, Client: "::1", User: "a b\n"}, `::1 - a\x20b\x0a [27/Nov/2026:01:44:18 +0100] "-" 000 0`},
	} {
		t.Run(one.name, func(t *testing.T) {
			got := string(one.format.Append([]byte("before"), one.record, &Clock{}))
			if got != "before"+one.want+"\n" {
				t.Errorf("got\n%s\nwant\n%s", strings.TrimPrefix(got, "before"), one.want)
			}
		})
	}
	if b := Combined.Append(nil, &Record{End: TLSFailed}, &Clock{}); len(b) != 0 {
		t.Errorf("a handshake in the combined format: %q", b)
	}
}

func TestLongTextsAreCut(t *testing.T) {
	r := example()
	r.Target = "/" + strings.Repeat("ä", maxText)
	var got struct{ Target string }
	if err := json.Unmarshal(JSON.Append(nil, r, &Clock{}), &got); err != nil {
		t.Fatal(err)
	}
	if n := len(got.Target); n > maxText+3 || n < maxText-4 || !strings.HasSuffix(got.Target, "ä...") {
		t.Errorf("%d bytes, ends in %q", n, got.Target[len(got.Target)-8:])
	}
}

func TestAppendAllocatesNothing(t *testing.T) {
	var c Clock
	for _, f := range []Format{JSON, Combined} {
		b, r := make([]byte, 0, 4<<10), example()
		if n := testing.AllocsPerRun(100, func() { b = f.Append(b[:0], r, &c) }); n != 0 {
			t.Errorf("%s: %v allocations", f, n)
		}
	}
}

var combinedLine = regexp.MustCompile(`^\S+ - \S+ \[[^\]]+\] "([^"]*)" \d{3} \d+ "([^"]*)" "([^"]*)"\n$`)

// Whatever a client sends, a line is one line that says what it is to say.
func FuzzFormats(f *testing.F) {
	f.Add("/x", "curl", "ann")
	f.Add("/\"}\n{\"status\":200", "\x1b[31m\x9b", "a\" 200 \"")
	f.Add("\u2028\u0085\u202e\ufffd\xff\xc3", "\U0001f600\\", "\x00\x7f")
	f.Fuzz(func(t *testing.T, target, agent, user string) {
		r := example()
		r.Target, r.UserAgent, r.User, r.Referer = target, agent, user, target
		line := JSON.Append(nil, r, &Clock{})
		ascii(t, line)
		var got map[string]any
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		for key, want := range map[string]string{"target": target, "user_agent": agent, "user": user, "end": "done"} {
			text, _ := got[key].(string)
			if len(want) <= maxText && text != valid(want) {
				t.Errorf("%s: %q became %q", key, want, text)
			}
		}
		line = Combined.Append(nil, r, &Clock{})
		ascii(t, line)
		if m := combinedLine.FindSubmatch(line); m == nil {
			t.Errorf("not in the format: %q", line)
		} else if target != "" && string(m[2]) != string(appendHex(nil, target)) {
			t.Errorf("the referer is %q", m[2])
		}
	})
}

// valid returns s with U+FFFD for each byte that is no UTF-8.
func valid(s string) string {
	var b strings.Builder
	for _, r := range s {
		b.WriteRune(r)
	}
	return b.String()
}

func ascii(t *testing.T, line []byte) {
	t.Helper()
	if !utf8.Valid(line) || line[len(line)-1] != '\n' {
		t.Fatalf("no line: %q", line)
	}
	for _, c := range line[:len(line)-1] {
		if c < ' ' || c > '~' {
			t.Fatalf("byte %#x in %q", c, line)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, f := range []Format{JSON, Combined} {
		b.Run(string(f), func(b *testing.B) {
			var c Clock
			line, r := make([]byte, 0, 4<<10), example()
			b.ReportAllocs()
			for b.Loop() {
				line = f.Append(line[:0], r, &c)
			}
		})
	}
}
