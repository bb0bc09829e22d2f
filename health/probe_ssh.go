package health

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

var errNotSSH = errors.New("the answer is not SSH")

// probeSSH passes when the target identifies itself (RFC 4253, section 4.2) in
// the way that the check expects. It says who it is and that it leaves, for a
// server logs a connection that just ends as an error.
func probeSSH(ctx context.Context, target Target) (string, error) {
	conn, err := dial(ctx, target)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	lines := newLineReader(conn)
	identification, err := "", error(nil)
	for n := 0; !strings.HasPrefix(identification, "SSH-"); n++ {
		if n == maxLines {
			return "", errNotSSH
		}
		if identification, err = readLine(lines); err != nil {
			return "", err
		}
	}
	if !strings.HasPrefix(identification, "SSH-2.0-") && !strings.HasPrefix(identification, "SSH-1.99-") {
		return "", fmt.Errorf("greeted by %s, which is not version 2", printable(identification))
	}
	// What the server says until it has understood is read, so that the
	// connection does not end in a reset.
	if _, err := conn.Write(slices.Concat([]byte("SSH-2.0-applianctl\r\n"), sshDisconnect("health check"))); err == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(lines, maxAnswer))
	}
	if expect := target.Check.Expect; !strings.Contains(identification, expect) {
		return "", fmt.Errorf("greeted by %s, want %q", printable(identification), expect)
	}
	return "greeted by " + printable(identification), nil
}

// sshDisconnect returns SSH_MSG_DISCONNECT by application (RFC 4253, section
// 11.1), as it is sent before any key is known.
func sshDisconnect(why string) []byte {
	const (
		disconnect    = 1
		byApplication = 11
		block         = 8
	)
	payload := []byte{disconnect}
	payload = binary.BigEndian.AppendUint32(payload, byApplication)
	payload = binary.BigEndian.AppendUint32(payload, uint32(len(why)))
	payload = append(payload, why...)
	payload = binary.BigEndian.AppendUint32(payload, 0) // no language

	// Length, length of the padding, payload, padding: together whole blocks,
	// with at least 4 bytes of padding (section 6).
	padding := block - (5+len(payload))%block
	if padding < 4 {
		padding += block
	}
	packet := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+padding))
	packet = append(packet, byte(padding))
	packet = append(packet, payload...)
	return append(packet, make([]byte, padding)...)
}
