package health

import (
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

const denied = "\xff\x15\x04#28000Access denied for user 'applianctl_check'"

// greet returns a server that greets, and answers each packet of the client
// with the next of answers. All that the client sends goes to heard, which is
// closed at the end of the connection.
func greet(heard chan<- []byte, answers ...string) func(net.Conn) {
	return func(c net.Conn) {
		if heard != nil {
			defer close(heard)
		}
		_ = writePacket(c, 0, mariadb.encode())
		for {
			var head [4]byte
			if _, err := io.ReadFull(c, head[:]); err != nil {
				return
			}
			payload := make([]byte, int(head[0])|int(head[1])<<8)
			if _, err := io.ReadFull(c, payload); err != nil {
				return
			}
			if heard != nil {
				heard <- payload
			}
			if len(answers) > 0 {
				_ = writePacket(c, head[3]+1, []byte(answers[0]))
				answers = answers[1:]
			}
		}
	}
}

func TestMySQLGreeting(t *testing.T) {
	hint := "up: greeted by version 10.11.6-MariaDB; give the check a user: the server may count checks without one as errors "
	tests := map[string]struct {
		handle  func(net.Conn)
		timeout time.Duration
		want    string
	}{
		"greets":         {greet(nil, denied), ample, "up: greeted by version 10.11.6-MariaDB"},
		"never greets":   {silent, short, "down: no answer within 150ms"},
		"closes at once": {func(net.Conn) {}, ample, "down: connection closed by the server"},
		"speaks SSH":     {say("SSH-2.0-OpenSSH_9.2\r\n"), ample, "down: " + errGarbled.Error()},
		"half a packet":  {say("\x40\x00\x00\x00\x0a10."), short, "down: no answer within 150ms"},
		"too many connections": {
			say(string(packet(0, []byte("\xff\x10\x04Too many connections")))), ample, "down: Too many connections (error 1040)",
		},
		"greets slowly": {
			func(c net.Conn) {
				for _, b := range packet(0, mariadb.encode()) {
					_, _ = c.Write([]byte{b})
				}
				say(string(packet(2, []byte(denied))))(c)
			}, ample, "up: greeted by version 10.11.6-MariaDB",
		},
		"counts the check": {
			greet(nil, "\xff\x13\x04#08S01Bad handshake"), ample, hint + "(Bad handshake (error 1043))",
		},
		"does not decide the login": {greet(nil), short, hint + "(no answer within 150ms)"},
		"answers garbage":           {greet(nil, "?"), ample, hint + "(" + errGarbled.Error() + ")"},
		"asks for ever": {
			greet(nil, slices.Repeat([]string{"\xfedialog\x00Password: "}, 20)...), ample, hint + "(the login does not end)",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := verdictOf(t, serve(t, test.handle), Config{Type: MySQL, Timeout: test.timeout})
			if got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
	t.Run("refuses", func(t *testing.T) {
		if got := verdictOf(t, closed(t), Config{Type: MySQL, Timeout: ample}); got != "down: connection refused" {
			t.Error(got)
		}
	})
}

// What the server is told after its greeting decides whether it counts the
// check as an error.
func TestMySQLLeave(t *testing.T) {
	random := strings.Repeat("r", 20) + "\x00"
	tests := map[string]struct {
		answers []string
		want    []int // lengths of the packets after the login request
	}{
		"refused at once":      {[]string{denied}, nil},
		"native password":      {[]string{"\xfemysql_native_password\x00" + random, denied}, []int{0}},
		"old password":         {[]string{"\xfe", denied}, []int{0}},
		"ed25519":              {[]string{"\xfeclient_ed25519\x00" + random, denied}, []int{64}},
		"caching sha2":         {[]string{"\xfecaching_sha2_password\x00" + random, denied}, []int{1}},
		"more questions":       {[]string{"\xfedialog\x00Name:", "\x01Password:", denied}, []int{1, 1}},
		"everybody is let in":  {[]string{"\x00\x00\x00\x02\x00\x00\x00"}, []int{1}},
		"the account is known": {[]string{"\xff\xa2\x06#28000Access denied"}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			heard := make(chan []byte, 10)
			address := serve(t, greet(heard, test.answers...))
			got := verdictOf(t, address, Config{Type: MySQL, Timeout: ample})
			if want := "up: greeted by version 10.11.6-MariaDB"; got != want {
				t.Errorf("%s, want %s", got, want)
			}
			login := <-heard
			if want := leaveAs + "\x00\x00mysql_native_password\x00"; string(login[32:]) != want {
				t.Errorf("login request %q, want %q after the fixed part", login, want)
			}
			var lengths []int
			for payload := range heard {
				lengths = append(lengths, len(payload))
			}
			if !slices.Equal(lengths, test.want) {
				t.Errorf("packets of %v bytes after the login request, want %v", lengths, test.want)
			}
		})
	}
}
