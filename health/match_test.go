package health

import (
	"net"
	"strings"
	"testing"
)

func TestUnescape(t *testing.T) {
	tests := map[string]struct {
		in, want string
		bad      bool
	}{
		"plain":          {"PING\r\n", "PING\r\n", false},
		"bytes":          {`\x00\xff!`, "\x00\xff!", false},
		"upper case":     {`\xAB`, "\xab", false},
		"a backslash":    {`C:\temp`, `C:\temp`, false},
		"one digit":      {`\x1`, "", true},
		"no hexadecimal": {`\xgg`, "", true},
		"nothing":        {"", "", false},
	}
	for name, test := range tests {
		got, err := unescape(test.in)
		if string(got) != test.want || (err != nil) != test.bad {
			t.Errorf("%s: %q, %v; want %q", name, got, err, test.want)
		}
	}
}

func TestTCPSendsAndExpects(t *testing.T) {
	echo := func(c net.Conn) {
		buf := make([]byte, 100)
		n, _ := c.Read(buf)
		_, _ = c.Write(append([]byte("you said "), buf[:n]...))
		silent(c)
	}
	pieces := func(c net.Conn) {
		for _, b := range "+PO NG" {
			if b == ' ' {
				continue
			}
			_, _ = c.Write([]byte{byte(b)})
		}
		silent(c)
	}
	endless := func(c net.Conn) {
		for {
			if _, err := c.Write([]byte(strings.Repeat("x", 1000))); err != nil {
				return
			}
		}
	}
	tests := map[string]struct {
		handle func(net.Conn)
		check  Config
		want   string
	}{
		"speaks first":       {say("hello\r\n"), Config{Expect: "hell"}, `up: answered "hello"`},
		"answers":            {echo, Config{Send: "PING", Expect: "said PING"}, `up: answered "you said PING"`},
		"answers bytes":      {echo, Config{Send: `\x00\xfe`, Expect: `\xfe`}, `up: answered "you said \x00\xfe"`},
		"answers in pieces":  {pieces, Config{Expect: "+PONG"}, `up: answered "+PONG"`},
		"matches":            {say("v1.23"), Config{ExpectRegexp: `v1\.[0-9]+`}, `up: answered "v1.23"`},
		"matches both":       {say("v1.23 ok"), Config{ExpectRegexp: `^v1`, Expect: "ok"}, `up: answered "v1.23 ok"`},
		"something else":     {say("-ERR"), Config{Expect: "+PONG"}, `down: answered "-ERR", want "+PONG"`},
		"something else, re": {say("-ERR"), Config{ExpectRegexp: "^[+]"}, `down: answered "-ERR", want a match of ^[+]`},
		"and closes":         {func(c net.Conn) { _, _ = c.Write([]byte("no")) }, Config{Expect: "yes"}, `down: answered "no", want "yes"`},
		"silent":             {silent, Config{Expect: "yes"}, "down: no answer within 150ms"},
		"closes at once":     {func(net.Conn) {}, Config{Expect: "yes"}, "down: connection closed by the server"},
		"endless":            {endless, Config{Expect: "yes"}, `down: the first 8 KiB of the answer have no "yes"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			check := test.check
			check.Type, check.Timeout = TCP, ample
			if strings.Contains(test.want, "down: answered \"-") || strings.HasSuffix(test.want, short.String()) {
				check.Timeout = short // waits for more
			}
			if got := verdictOf(t, serve(t, test.handle), check); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

func TestUDP(t *testing.T) {
	tests := map[string]struct {
		answers []string
		check   Config
		want    string
	}{
		"answers":          {[]string{"pong"}, Config{Send: "ping", Expect: "pong"}, `up: answered "pong"`},
		"answers anything": {[]string{"what?"}, Config{Send: "ping"}, `up: answered "what?"`},
		"answers nothing":  {[]string{""}, Config{Send: "ping"}, `up: answered ""`},
		"second thoughts":  {[]string{"wait", "pong"}, Config{Send: "ping", Expect: "pong"}, `up: answered "pong"`},
		"something else":   {[]string{"no"}, Config{Send: "ping", Expect: "pong"}, `down: answered "no", want "pong"`},
		"silent":           {nil, Config{Send: "ping"}, "up: no refusal within 150ms"},
		"silent but asked": {nil, Config{Send: "ping", Expect: "pong"}, "down: no answer within 150ms"},
		"the longest":      {[]string{strings.Repeat("x", 65507)}, Config{Send: "ping", Expect: "xxx"}, `up: answered "` + strings.Repeat("x", maxQuote) + `..."`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			address := serveUDP(t, func(query []byte) [][]byte {
				if string(query) != "ping" {
					t.Errorf("the server hears %q", query)
				}
				var all [][]byte
				for _, a := range test.answers {
					all = append(all, []byte(a))
				}
				return all
			})
			check := test.check
			check.Type, check.Timeout = UDP, ample
			if strings.HasSuffix(test.want, short.String()) || name == "something else" {
				check.Timeout = short
			}
			if got := verdictOf(t, address, check); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
	t.Run("refuses", func(t *testing.T) {
		if got := verdictOf(t, closedUDP(t), Config{Type: UDP, Send: "ping", Timeout: ample}); got != "down: connection refused" {
			t.Error(got)
		}
	})
}

func FuzzUnescape(f *testing.F) {
	f.Add(`\x00a\xff\x`)
	f.Fuzz(func(t *testing.T, s string) {
		b, err := unescape(s)
		if err != nil {
			return
		}
		again, err := unescape(escapeAll(b))
		if err != nil || string(again) != string(b) {
			t.Errorf("%q becomes %q, and that %q, %v", s, b, again, err)
		}
	})
}

func escapeAll(b []byte) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, one := range b {
		s.WriteString(`\x` + digits[one>>4:][:1] + digits[one&15:][:1])
	}
	return s.String()
}
