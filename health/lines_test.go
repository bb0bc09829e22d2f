package health

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// talk is a server that says a greeting, and to each line of the client the
// next of answers.
func talk(heard chan<- string, greeting string, answers ...string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = io.WriteString(c, greeting)
		lines := bufio.NewReader(c)
		for n := 0; ; n++ {
			line, err := lines.ReadString('\n')
			if err != nil {
				if heard != nil {
					close(heard)
				}
				return
			}
			if heard != nil {
				heard <- strings.TrimSpace(line)
			}
			if n < len(answers) {
				_, _ = io.WriteString(c, answers[n])
			}
		}
	}
}

// endlessly says text for ever.
func endlessly(text string) func(net.Conn) {
	return func(c net.Conn) {
		for {
			if _, err := io.WriteString(c, text); err != nil {
				return
			}
		}
	}
}

type conversation struct {
	handle  func(net.Conn)
	timeout time.Duration
	want    string
}

func (c conversation) test(t *testing.T, check Config) {
	t.Helper()
	check.Timeout = c.timeout
	if got := verdictOf(t, serve(t, c.handle), check); got != c.want {
		t.Errorf("%s, want %s", got, c.want)
	}
}

func TestSMTP(t *testing.T) {
	const hello = "220 mail.example.com ESMTP\r\n"
	const up = "up: greeted: mail.example.com ESMTP"
	tests := map[string]conversation{
		"greets":               {talk(nil, hello, "250 mail.example.com\r\n", "221 bye\r\n"), ample, up},
		"in many lines":        {talk(nil, "220-mail.example.com ESMTP\r\n220-no spam\r\n220\r\n", "250-mail\r\n250-SIZE 1\r\n250 HELP\r\n", "221 bye\r\n"), ample, up},
		"no answer to QUIT":    {talk(nil, hello, "250 mail.example.com\r\n"), short, up},
		"is full":              {say("421 too many\r\n"), ample, `down: answered "421 too many", want 220`},
		"does not know us":     {talk(nil, hello, "550 go away\r\n"), ample, `down: greeted, EHLO failed: answered "550 go away", want 250`},
		"speaks SSH":           {say("SSH-2.0-OpenSSH_9.2\r\n"), ample, "down: " + errNotSMTP.Error()},
		"a short line":         {say("22\r\n"), ample, "down: " + errNotSMTP.Error()},
		"no space":             {say("220mail\r\n"), ample, "down: " + errNotSMTP.Error()},
		"silent":               {silent, short, "down: no answer within 150ms"},
		"half a line":          {say("220 mail"), short, "down: no answer within 150ms"},
		"closes at once":       {func(net.Conn) {}, ample, "down: connection closed by the server"},
		"closes in a line":     {func(c net.Conn) { _, _ = io.WriteString(c, "220 ma") }, ample, "down: connection closed by the server"},
		"an endless line":      {endlessly("220 mail "), ample, "down: " + errLongLine.Error()},
		"endless lines":        {endlessly("220-mail\r\n"), ample, "down: " + errNotSMTP.Error()},
		"silent after hello":   {talk(nil, hello), short, "down: greeted, EHLO failed: no answer within 150ms"},
		"unprintable greeting": {say("421 \x1b[31m\r\n"), ample, `down: answered "421 \x1b[31m", want 220`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test.test(t, Config{Type: SMTP}) })
	}
	t.Run("says what is due", func(t *testing.T) {
		heard := make(chan string, 10)
		verdictOf(t, serve(t, talk(heard, hello, "250 ok\r\n", "221 bye\r\n")), Config{Type: SMTP, Timeout: ample})
		if ehlo, quit := <-heard, <-heard; ehlo != "EHLO [127.0.0.1]" || quit != "QUIT" {
			t.Errorf("says %q, %q", ehlo, quit)
		}
	})
}

func TestAddressLiteral(t *testing.T) {
	six := &net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0", Port: 1}
	if got := addressLiteral(six); got != "[IPv6:fe80::1]" {
		t.Error(got)
	}
}

func TestSSH(t *testing.T) {
	const hello = "SSH-2.0-OpenSSH_9.2\r\n"
	closing := func(text string) func(net.Conn) {
		return func(c net.Conn) { _, _ = io.WriteString(c, text); _, _ = c.Read(make([]byte, 1000)) }
	}
	expect := Config{Type: SSH, Expect: "OpenSSH_9"}
	tests := map[string]struct {
		conversation
		check Config
	}{
		"greets":          {conversation{closing(hello), ample, "up: greeted by SSH-2.0-OpenSSH_9.2"}, Config{}},
		"both versions":   {conversation{closing("SSH-1.99-x\n"), ample, "up: greeted by SSH-1.99-x"}, Config{}},
		"a notice first":  {conversation{closing("Welcome\r\n\r\n" + hello), ample, "up: greeted by SSH-2.0-OpenSSH_9.2"}, Config{}},
		"as expected":     {conversation{closing(hello), ample, "up: greeted by SSH-2.0-OpenSSH_9.2"}, expect},
		"not as expected": {conversation{closing("SSH-2.0-dropbear\r\n"), ample, `down: greeted by SSH-2.0-dropbear, want "OpenSSH_9"`}, expect},
		"does not close":  {conversation{say(hello), short, "up: greeted by SSH-2.0-OpenSSH_9.2"}, Config{}},
		"goes on talking": {conversation{endlessly(hello), ample, "up: greeted by SSH-2.0-OpenSSH_9.2"}, Config{}},
		"version 1":       {conversation{say("SSH-1.5-x\r\n"), ample, "down: greeted by SSH-1.5-x, which is not version 2"}, Config{}},
		"speaks HTTP":     {conversation{func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad\r\n\r\n") }, ample, "down: connection closed by the server"}, Config{}},
		"endless notice":  {conversation{endlessly("Welcome\r\n"), ample, "down: " + errNotSSH.Error()}, Config{}},
		"an endless line": {conversation{endlessly("Welcome "), ample, "down: " + errLongLine.Error()}, Config{}},
		"silent":          {conversation{silent, short, "down: no answer within 150ms"}, Config{}},
		"closes at once":  {conversation{func(net.Conn) {}, ample, "down: connection closed by the server"}, Config{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.check.Type = SSH
			test.test(t, test.check)
		})
	}
}

// RFC 4253, section 6: the packet is a multiple of 8 bytes, with 4 bytes of
// padding at least.
func TestSSHDisconnect(t *testing.T) {
	for n := range 20 {
		p := sshDisconnect(strings.Repeat("x", n))
		padding := int(p[4])
		if len(p)%8 != 0 || padding < 4 || int(p[3]) != len(p)-4 || p[5] != 1 || len(p) != 4+1+13+n+padding {
			t.Errorf("%d: % x", n, p)
		}
	}
}

func TestRedis(t *testing.T) {
	password := secretFile(t)
	replies := func(answers ...string) func(net.Conn) {
		return func(c net.Conn) {
			buf := make([]byte, 4096)
			_, _ = c.Read(buf)
			_, _ = io.WriteString(c, strings.Join(answers, ""))
			silent(c)
		}
	}
	const role = "*3\r\n$6\r\nmaster\r\n:100\r\n*1\r\n*3\r\n$9\r\n127.0.0.1\r\n$4\r\n6380\r\n$3\r\n100\r\n"
	master := Config{Role: "master"}
	tests := map[string]struct {
		conversation
		check Config
	}{
		"answers":            {conversation{replies("+PONG\r\n"), ample, "up: answered PONG"}, Config{}},
		"logs in":            {conversation{replies("+OK\r\n", "+PONG\r\n"), ample, "up: answered PONG"}, Config{PasswordFile: password}},
		"wrong password":     {conversation{replies("-WRONGPASS invalid password\r\n", "-NOAUTH Authentication required.\r\n"), ample, "down: WRONGPASS invalid password"}, Config{PasswordFile: password}},
		"wants a login":      {conversation{replies("-NOAUTH Authentication required.\r\n"), ample, "down: NOAUTH Authentication required."}, Config{}},
		"is loading":         {conversation{replies("-LOADING Redis is loading\r\n"), ample, "down: LOADING Redis is loading"}, Config{}},
		"is the master":      {conversation{replies("+PONG\r\n", role), ample, "up: answered PONG as master"}, master},
		"is a replica":       {conversation{replies("+PONG\r\n", strings.Replace(role, "$6\r\nmaster", "$5\r\nslave", 1)), ample, "down: its role is slave, want master"}, master},
		"may not tell":       {conversation{replies("+PONG\r\n", "-NOPERM no\r\n"), ample, "down: NOPERM no"}, master},
		"odd role":           {conversation{replies("+PONG\r\n", "*0\r\n"), ample, "down: " + errNotRedis.Error()}, master},
		"nothing as role":    {conversation{replies("+PONG\r\n", "*1\r\n$-1\r\n"), ample, "down: its role is , want master"}, master},
		"something else":     {conversation{replies("+PING\r\n"), ample, `down: answered "PING", want PONG`}, Config{}},
		"speaks SSH":         {conversation{say("SSH-2.0-OpenSSH_9.2\r\n"), ample, "down: " + errNotRedis.Error()}, Config{}},
		"an empty line":      {conversation{say("\r\n"), ample, "down: " + errNotRedis.Error()}, Config{}},
		"an endless line":    {conversation{endlessly("+PONG"), ample, "down: " + errLongLine.Error()}, Config{}},
		"endless arrays":     {conversation{endlessly("*1\r\n"), ample, "down: " + errNotRedis.Error()}, Config{}},
		"a huge array":       {conversation{replies("+PONG\r\n", "*60000\r\n", strings.Repeat(":1\r\n", 20000)), ample, "down: connection closed by the server"}, master},
		"more than huge":     {conversation{replies("*2000000000\r\n"), ample, "down: " + errNotRedis.Error()}, Config{}},
		"a huge text":        {conversation{replies("$2000000000\r\n"), ample, "down: " + errNotRedis.Error()}, Config{}},
		"a text cut off":     {conversation{func(c net.Conn) { _, _ = c.Read(make([]byte, 100)); _, _ = io.WriteString(c, "$9\r\nabc") }, ample, "down: connection closed by the server"}, Config{}},
		"a text without end": {conversation{replies("$4\r\nPONGPONG"), ample, "down: " + errNotRedis.Error()}, Config{}},
		"silent":             {conversation{silent, short, "down: no answer within 150ms"}, Config{}},
		"closes at once":     {conversation{func(c net.Conn) { _, _ = c.Read(make([]byte, 100)) }, ample, "down: connection closed by the server"}, Config{}},
		"no password file":   {conversation{silent, ample, "down: no/such/file: no such file or directory"}, Config{PasswordFile: "no/such/file"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.check.Type = Redis
			test.test(t, test.check)
		})
	}
	t.Run("says what is due", func(t *testing.T) {
		heard := make(chan string, 1)
		address := serve(t, func(c net.Conn) {
			buf := make([]byte, 4096)
			n, _ := c.Read(buf)
			heard <- string(buf[:n])
		})
		verdictOf(t, address, Config{Type: Redis, User: "lb", PasswordFile: password, Role: "slave", Timeout: ample})
		want := "*3\r\n$4\r\nAUTH\r\n$2\r\nlb\r\n$6\r\nsecret\r\n*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nROLE\r\n"
		if got := <-heard; got != want {
			t.Errorf("says %q, want %q", got, want)
		}
	})
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("220-a\r\n220 b\r\n"))
	f.Add([]byte("*2\r\n$1\r\na\r\n+b\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		_, _ = smtpReply(newLineReader(bytes.NewReader(text)), 220)
		v, err := readRESP(newLineReader(bytes.NewReader(text)), 0)
		if err != nil {
			return
		}
		// A round trip: what was read says the same again.
		again, err := readRESP(newLineReader(strings.NewReader(encodeRESP(v))), 0)
		if err != nil || encodeRESP(again) != encodeRESP(v) {
			t.Errorf("%q becomes %+v, and that %+v, %v", text, v, again, err)
		}
	})
}

// encodeRESP writes a value as a server does.
func encodeRESP(v respValue) string {
	switch {
	case v.refused:
		return "-" + v.text + "\r\n"
	case v.array == nil:
		return "$" + strconv.Itoa(len(v.text)) + "\r\n" + v.text + "\r\n"
	}
	s := "*" + strconv.Itoa(len(v.array)) + "\r\n"
	for _, e := range v.array {
		s += encodeRESP(e)
	}
	return s
}
