package health

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"appliance/internal/endpoint"
)

// What a server that was silent for too long sees when it speaks again: never an
// end before the login is decided.
func TestMySQLDoesNotBreakOff(t *testing.T) {
	random := strings.Repeat("r", 20) + "\x00"
	hello := packet(0, mariadb.encode())
	answer := func(sequence byte, payload string) []byte { return packet(sequence, []byte(payload)) }
	tests := map[string]struct {
		user string
		// before is what the server says in time, if the client's login is
		// among that behind it; after is what it says when it speaks again.
		before, after []byte
		answers       []string // to what the client says then
		want          []string // the first bytes of what the client says after the silence
	}{
		"silent":                      {"", nil, hello, []string{denied}, []string{"login of applianctl_check"}},
		"half a greeting":             {"", hello[:20], hello[20:], []string{denied}, []string{"login of applianctl_check"}},
		"a user, silent":              {"lb", nil, hello, []string{denied}, []string{"login of applianctl_check"}},
		"a user, half a greeting":     {"lb", hello[:3], hello[3:], []string{denied}, []string{"login of applianctl_check"}},
		"a user, silent at the login": {"lb", hello, answer(2, welcome), nil, []string{"quit"}},
		"a user, refused late":        {"lb", hello, answer(2, denied), nil, nil},
		"a user, asked late":          {"lb", hello, answer(2, "\xfemysql_native_password\x00"+random), []string{denied}, []string{""}},
		"a user, known late":          {"lb", hello, append(answer(2, "\x01\x03"), answer(3, welcome)...), nil, []string{"quit"}},
		"closes at last":              {"", nil, nil, nil, nil},
		"speaks something else":       {"", nil, []byte("SSH-2.0-OpenSSH_9.2\r\n"), nil, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			awake, heard, asked := make(chan struct{}), make(chan string, 10), make(chan struct{})
			wake := sync.OnceFunc(func() { close(awake) })
			address := serve(t, func(c net.Conn) {
				_, _ = c.Write(test.before)
				packets := packetReader{r: c}
				if string(test.before) == string(hello) {
					_, _, _ = packets.next() // the login of the check's user
				}
				close(asked)
				<-awake
				_, _ = c.Write(test.after)
				if test.after == nil {
					close(heard)
					return
				}
				for answers := test.answers; ; {
					sequence, payload, err := packets.next()
					if errors.Is(err, errGarbled) { // of length 0
						sequence, payload, err = packets.have[3], nil, nil
						packets.have = nil
					}
					if err != nil {
						break
					}
					said := string(payload)
					switch {
					case strings.Contains(said, leaveAs):
						said = "login of " + leaveAs
					case said == "\x01":
						said = "quit"
					}
					heard <- said
					if len(answers) > 0 {
						_ = writePacket(c, sequence+1, []byte(answers[0]))
						answers = answers[1:]
					}
				}
				close(heard)
			})
			t.Cleanup(wake) // before the server is waited for
			check := Config{Type: MySQL, User: test.user, Timeout: short}
			if test.user != "" {
				check.PasswordFile = secretFile(t)
			}
			ctx, cancel := inTurns(t.Context(), short)
			defer cancel()
			_, err := prepare(Target{Address: endpoint.IP(address), Check: check}).once(ctx)
			var rest *unfinished
			if !errors.As(err, &rest) || inWords(err, short) != "no answer within 150ms" {
				t.Fatalf("ends with %v, want to wait for the server", err)
			}
			<-asked
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				later, cancel := context.WithTimeout(t.Context(), ample)
				defer cancel()
				rest.finish(later)
			}()
			select {
			case <-ended:
				t.Error("the connection ends before the server has spoken")
			case <-time.After(short):
			}
			wake()
			<-ended
			var got []string
			for said := range heard {
				got = append(got, said)
			}
			if strings.Join(got, "|") != strings.Join(test.want, "|") || len(got) != len(test.want) {
				t.Errorf("the client says %q, want %q", got, test.want)
			}
		})
	}
}

// What is not the server's silence ends the connection at once, and so does the
// end of the checker.
func TestMySQLEndsWhatNeedNotLinger(t *testing.T) {
	for name, handle := range map[string]func(net.Conn){
		"garbage":           say("SSH-2.0-OpenSSH_9.2\r\n"),
		"closes":            func(net.Conn) {},
		"hangs at a query":  rows(nil),
		"denies the access": greet(nil, denied),
	} {
		t.Run(name, func(t *testing.T) {
			closed := make(chan struct{})
			address := serve(t, func(c net.Conn) { handle(c); close(closed) })
			ctx, cancel := inTurns(t.Context(), short)
			defer cancel()
			check := Config{Type: MySQL, User: "lb", Query: "SELECT c", PasswordFile: secretFile(t), Timeout: short}
			_, err := prepare(Target{Address: endpoint.IP(address), Check: check}).once(ctx)
			var rest *unfinished
			if err == nil || errors.As(err, &rest) {
				t.Errorf("ends with %v, want a failure that is over", err)
			}
			<-closed
		})
	}
	t.Run("the checker ends", func(t *testing.T) {
		closed := make(chan struct{})
		address := serve(t, func(c net.Conn) { silent(c); close(closed) })
		ctx, cancel := inTurns(t.Context(), short)
		defer cancel()
		_, err := prepare(Target{Address: endpoint.IP(address), Check: Config{Type: MySQL, Timeout: short}}).once(ctx)
		var rest *unfinished
		if !errors.As(err, &rest) {
			t.Fatal(err)
		}
		rest.finish(ctx)
		<-closed
	})
}

// A packet may come in any pieces, and a deadline between them loses none.
func TestPacketsInPieces(t *testing.T) {
	payload := strings.Repeat("0123456789", 500)
	stream := string(packet(7, []byte(payload))) + string(packet(8, []byte("next")))
	for name, r := range map[string]io.Reader{
		"whole":     strings.NewReader(stream),
		"bytes":     iotest.OneByteReader(strings.NewReader(stream)),
		"halves":    iotest.HalfReader(strings.NewReader(stream)),
		"deadlines": &impatient{r: iotest.OneByteReader(strings.NewReader(stream))},
	} {
		packets := packetReader{r: r}
		for _, want := range []string{payload, "next"} {
			_, got, err := packets.next()
			for timedOut(err) {
				_, got, err = packets.next()
			}
			if err != nil || string(got) != want {
				t.Errorf("%s: %d bytes, %v, want %d", name, len(got), err, len(want))
			}
		}
	}
}

// impatient lets a deadline pass before each read.
type impatient struct {
	r    io.Reader
	turn bool
}

func (i *impatient) Read(p []byte) (int, error) {
	if i.turn = !i.turn; i.turn {
		return 0, os.ErrDeadlineExceeded
	}
	return i.r.Read(p)
}

// secretFile returns the path of a file with a password.
func secretFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
