package health

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
)

var errNotSMTP = errors.New("the answer is not SMTP")

// prepareSMTP returns a probe that passes when the target greets with 220 and
// answers EHLO with 250 (RFC 5321), where the check asks for TLS also after
// STARTTLS (RFC 3207). It takes its leave with QUIT, whose answer does not matter.
func prepareSMTP(target Target) probe {
	client := clientOf(target)
	return func(ctx context.Context) (finding, error) {
		bound, err := dial(ctx, target)
		if err != nil {
			return finding{}, err
		}
		var conn net.Conn = bound
		defer func() { _ = conn.Close() }()
		lines := newLineReader(conn)
		banner, err := smtpReply(lines, 220)
		if err != nil {
			return finding{}, err
		}
		found := finding{words: "greeted: " + printable(banner)}
		hello := "EHLO " + addressLiteral(bound.LocalAddr()) + "\r\n"
		if err := smtpAsk(conn, lines, hello, 250); err != nil {
			return finding{}, &stageError{"greeted, EHLO failed", err}
		}
		if client != nil {
			if err := smtpAsk(conn, lines, "STARTTLS\r\n", 220); err != nil {
				return finding{}, &stageError{"greeted, STARTTLS failed", err}
			}
			if lines.Buffered() > 0 { // somebody has put in what nobody has encrypted
				return finding{}, errNotSMTP
			}
			encrypted, warning, err := client.handshake(bound)
			if err != nil {
				return finding{}, err
			}
			conn, found.warning = encrypted, warning
			lines.Reset(conn)
			if err := smtpAsk(conn, lines, hello, 250); err != nil {
				return finding{}, &stageError{"encrypted, EHLO failed", err}
			}
		}
		_ = smtpAsk(conn, lines, "QUIT\r\n", 221)
		return found, nil
	}
}

// smtpAsk sends a command and wants a reply of that code.
func smtpAsk(w io.Writer, r *bufio.Reader, command string, want int) error {
	if _, err := io.WriteString(w, command); err != nil {
		return err
	}
	_, err := smtpReply(r, want)
	return err
}

// smtpReply reads a reply of one line or more, and returns the text of its
// first. Another code than the one that is wanted is an error.
func smtpReply(r *bufio.Reader, want int) (text string, err error) {
	for n := range maxLines {
		line, err := readLine(r)
		if err != nil {
			return "", err
		}
		code, rest, last, ok := smtpLine(line)
		switch {
		case !ok:
			return "", errNotSMTP
		case code != want:
			return "", fmt.Errorf("answered %s, want %d", quoted([]byte(line)), want)
		}
		if n == 0 {
			text = rest
		}
		if last {
			return text, nil
		}
	}
	return "", errNotSMTP
}

// smtpLine takes a line of a reply apart: "250-text" has more behind it, "250
// text" and "250" have not.
func smtpLine(line string) (code int, text string, last, ok bool) {
	if len(line) < 3 {
		return 0, "", false, false
	}
	code, err := strconv.Atoi(line[:3])
	if err != nil || code < 200 || code > 599 {
		return 0, "", false, false
	}
	switch {
	case len(line) == 3:
		return code, "", true, true
	case line[3] == ' ' || line[3] == '-':
		return code, line[4:], line[3] == ' ', true
	}
	return 0, "", false, false
}

// addressLiteral returns how a client without a name calls itself (RFC 5321,
// section 4.1.3).
func addressLiteral(local net.Addr) string {
	tcp, ok := local.(*net.TCPAddr)
	if !ok {
		return "[127.0.0.1]"
	}
	address := tcp.AddrPort().Addr().Unmap().WithZone("")
	if address.Is6() {
		return "[IPv6:" + address.String() + "]"
	}
	return "[" + address.String() + "]"
}
