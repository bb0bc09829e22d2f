package health

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const (
	welcome = "\x00\x00\x00\x02\x00\x00\x00"
	eof     = "\xfe\x00\x00\x02\x00"
)

// column is the definition of a text column.
const column = "\x03def\x00\x00\x00\x01c\x00\x0c\x21\x00\xff\x00\x00\x00\xfd\x00\x00\x00\x00\x00"

// rows is a server that lets everybody in and answers each query with packets.
func rows(heard chan<- []byte, packets ...string) func(net.Conn) {
	answer := []byte{}
	for i, p := range packets {
		answer = append(answer, packet(byte(i+1), []byte(p))...)
	}
	return func(c net.Conn) {
		if heard != nil {
			defer close(heard)
		}
		_ = writePacket(c, 0, mariadb.encode())
		for {
			sequence, payload, err := (&packetReader{r: c}).next()
			if err != nil {
				return
			}
			if heard != nil {
				heard <- payload
			}
			switch {
			case sequence == 1:
				_ = writePacket(c, 2, []byte(welcome))
			case payload[0] == 3:
				_, _ = c.Write(answer)
			}
		}
	}
}

func TestMySQLLogin(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	query := Config{Query: "SELECT c"}
	expect := Config{Query: "SELECT c", Expect: "yes"}
	tests := map[string]struct {
		handle func(net.Conn)
		check  Config
		want   string
	}{
		"lets in":            {rows(nil), Config{}, "up: logged in"},
		"denies":             {greet(nil, denied), Config{}, "down: Access denied for user 'applianctl_check' (error 1045)"},
		"answers":            {rows(nil, "\x01", column, eof, "\x03yes", eof), query, "up: logged in, query answered yes"},
		"answers NULL":       {rows(nil, "\x01", column, eof, "\xfb", eof), query, "up: logged in, query answered NULL"},
		"answers as wanted":  {rows(nil, "\x01", column, eof, "\x03yes", eof), expect, "up: logged in, query answered yes"},
		"answers otherwise":  {rows(nil, "\x01", column, eof, "\x02no", eof), expect, `down: logged in, query answered "no", want "yes"`},
		"has no row":         {rows(nil, "\x01", column, eof, eof), query, "down: logged in, query failed: it returned no row"},
		"is no query":        {rows(nil, welcome), query, "down: logged in, query failed: it returns no rows"},
		"cannot":             {rows(nil, "\xff\x1e\x04#42S22Unknown column"), query, "down: logged in, query failed: Unknown column (error 1054)"},
		"hangs at the query": {rows(nil), query, "down: logged in, query failed: no answer within 150ms"},
		"hangs at the login": {greet(nil), Config{}, "down: no answer within 150ms"},
		"never greets":       {silent, Config{}, "down: no answer within 150ms"},
		"closes at once":     {func(net.Conn) {}, Config{}, "down: connection closed by the server"},
		"speaks SSH":         {say("SSH-2.0-OpenSSH_9.2\r\n"), Config{}, "down: " + errGarbled.Error()},
		"promises columns":   {rows(nil, "\xfe\x00\x00\x00\x00\x00\x01\x00\x00"), query, "down: logged in, query failed: " + errGarbled.Error()},
		"cuts a count":       {rows(nil, "\xfc"), query, "down: " + errGarbled.Error()},
		"wants a file":       {rows(nil, "\xfb/etc/passwd", welcome), query, "down: logged in, query failed: local file '/etc/passwd' is not registered"},
		"no password file": {
			silent, Config{PasswordFile: "no/such/file"}, "down: no/such/file: no such file or directory",
		},
		"odd password file": {
			silent, Config{PasswordFile: "/dev/null"}, "down: /dev/null: not a file with a password",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			check := test.check
			check.Type, check.User, check.Timeout = MySQL, "lb", ample
			if strings.HasSuffix(test.want, short.String()) {
				check.Timeout = short
			}
			if check.PasswordFile == "" {
				check.PasswordFile = secret
			}
			if got := verdictOf(t, serve(t, test.handle), check); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
	t.Run("refuses", func(t *testing.T) {
		if got := verdictOf(t, closed(t), Config{Type: MySQL, User: "lb", Timeout: ample}); got != "down: connection refused" {
			t.Error(got)
		}
	})
}

func TestMySQLLoginSaysGoodbye(t *testing.T) {
	const quit = "\x01"
	heard := make(chan []byte, 10)
	address := serve(t, rows(heard, "\x01", column, eof, "\x03yes", eof))
	verdictOf(t, address, Config{Type: MySQL, User: "lb", Query: "SELECT c", Timeout: ample})
	var last []byte
	for payload := range heard {
		last = payload
	}
	if string(last) != quit {
		t.Errorf("the last packet is %q, want COM_QUIT", last)
	}
}

func TestReadPassword(t *testing.T) {
	tests := []struct{ content, want string }{
		{"secret", "secret"},
		{"secret\n", "secret"},
		{"secret\n\n", "secret\n"},
		{" se cret \n", " se cret "},
		{"", ""},
	}
	path := filepath.Join(t.TempDir(), "password")
	for _, test := range tests {
		if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readPassword(path); got != test.want || err != nil {
			t.Errorf("file %q: %q, %v; want %q", test.content, got, err, test.want)
		}
	}
	if err := os.WriteFile(path, make([]byte, maxPassword+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readPassword(path); err == nil {
		t.Error("a file beyond the bound is read")
	}
}

// Whatever a server sends, a check with a user ends by its deadline, and leaves
// neither a panic nor a goroutine behind: the end of a bubble finds both.
func FuzzLogin(f *testing.F) {
	stream := func(first byte, payloads ...string) (s []byte) {
		for i, p := range payloads {
			s = append(s, packet(first+byte(i), []byte(p))...)
		}
		return s
	}
	random := strings.Repeat("r", 20) + "\x00"
	hello := stream(0, string(mariadb.encode()))
	f.Add(slices.Concat(hello, stream(2, welcome), stream(1, "\x01", column, eof, "\x03yes", eof)))
	f.Add(slices.Concat(hello, stream(2, denied)))
	f.Add(slices.Concat(hello, stream(2, "\xfecaching_sha2_password\x00"+random)))
	f.Add(slices.Concat(hello, stream(2, "\xfesha256_password\x00"+random)))
	f.Add(slices.Concat(hello, stream(2, "\xfe")))
	f.Add(slices.Concat(hello, stream(2, welcome), stream(1, "\xfc\xff\xff")))
	f.Fuzz(func(t *testing.T, script []byte) {
		synctest.Test(t, func(t *testing.T) {
			const timeout = time.Second
			begun := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			check := Config{User: "lb", Query: "SELECT c"}
			client, server := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, server) }()
			go func() { _, _ = server.Write(script) }()
			_, err := login(ctx, check, "secret", newMySQLGuard(bind(ctx, client), nil))
			var rest *unfinished
			if errors.As(err, &rest) {
				rest.finish(ctx)
			}
			if took := time.Since(begun); took > timeout {
				t.Errorf("the check took %s", took)
			}
		})
	})
}
