package health

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

// The first byte of a payload tells what kind of answer it is.
const (
	mysqlOK     = 0x00
	mysqlMore   = 0x01
	mysqlSwitch = 0xfe
	mysqlError  = 0xff
)

// Capabilities of a server or a client, as far as a check needs them.
const (
	clientLongPassword     = 1 << 0
	clientProtocol41       = 1 << 9
	clientSSL              = 1 << 11
	clientSecureConnection = 1 << 15
	clientPluginAuth       = 1 << 19
	clientConnectAttrs     = 1 << 20
)

// greeting is the first packet of a server, the protocol's HandshakeV10, as
// far as a check needs it.
type greeting struct {
	Version      string
	Capabilities uint32
	Plugin       string // the server's default way to log in; may be empty
}

// readableVersion returns the version without the 5.5.5 that MariaDB puts
// before its own for the sake of old replicas.
func (g greeting) readableVersion() string { return strings.TrimPrefix(g.Version, "5.5.5-") }

// The fixed parts of a greeting, in bytes: what stands between the version and
// the second part of the random data, and that second part, which is longer
// only where the server says so.
const (
	greetingMiddle     = 4 + 8 + 1 + 2 + 1 + 2 + 2 + 1 + 10
	greetingSecondPart = 13
)

// parseGreeting reads the payload of a server's first packet. A server that
// refuses the connection sends an error instead; that is a *refusal.
func parseGreeting(payload []byte) (greeting, error) {
	if len(payload) == 0 {
		return greeting{}, errGarbled
	}
	switch payload[0] {
	case 10:
	case mysqlError:
		return greeting{}, parseRefusal(payload)
	default:
		return greeting{}, errGarbled
	}
	version, rest, ok := bytes.Cut(payload[1:], []byte{0})
	if !ok || len(rest) < greetingMiddle+greetingSecondPart {
		return greeting{}, errGarbled
	}
	// connection id 4, random data 8, filler 1, then: capabilities (low) 2,
	// character set 1, status 2, capabilities (high) 2, length of all random
	// data 1, reserved 10.
	low, high := binary.LittleEndian.Uint16(rest[13:]), binary.LittleEndian.Uint16(rest[18:])
	g := greeting{Version: string(version), Capabilities: uint32(high)<<16 | uint32(low)}
	if g.Capabilities&clientProtocol41 == 0 {
		return greeting{}, fmt.Errorf("server version %s speaks a protocol older than MySQL 4.1", printable(g.readableVersion()))
	}
	if g.Capabilities&clientPluginAuth != 0 {
		secondPart := max(greetingSecondPart, int(rest[20])-8)
		if len(rest) < greetingMiddle+secondPart {
			return greeting{}, errGarbled
		}
		// Some old servers leave out the NUL at the end.
		plugin, _, _ := bytes.Cut(rest[greetingMiddle+secondPart:], []byte{0})
		g.Plugin = string(plugin)
	}
	return g, nil
}

// refusal is an error packet of a server.
type refusal struct {
	Code    uint16
	State   string // SQLSTATE, five characters; empty in a greeting
	Message string
}

// Error returns the server's words and its code.
func (r *refusal) Error() string { return fmt.Sprintf("%s (error %d)", printable(r.Message), r.Code) }

// parseRefusal reads the payload of an error packet; the error is a *refusal,
// or errGarbled when payload is none.
func parseRefusal(payload []byte) error {
	if len(payload) < 4 || payload[0] != mysqlError {
		return errGarbled
	}
	r := &refusal{Code: binary.LittleEndian.Uint16(payload[1:])}
	message := payload[3:]
	if message[0] == '#' {
		if len(message) < 6 {
			return errGarbled
		}
		r.State, message = string(message[1:6]), message[6:]
	}
	r.Message = string(message)
	return r
}
