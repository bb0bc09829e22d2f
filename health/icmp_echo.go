package health

import "encoding/binary"

// Types of ICMP messages (RFC 792) and of ICMPv6 (RFC 4443).
const (
	echoRequest  = 8
	echoReply    = 0
	echoRequest6 = 128
	echoReply6   = 129
)

// echoLen is the length of an echo message of ours in bytes: its header, and
// eight bytes of data.
const echoLen = 8 + 8

// echo is one echo request. Its data is random, which tells its answer from
// those to others, whatever the kernel makes of the identifier.
type echo struct {
	v6     bool
	random uint64
}

func newEcho(v6 bool, random uint64) echo { return echo{v6, random} }

// packet returns the message. The checksum of ICMPv6 is left to the kernel,
// which knows the addresses that go into it.
func (e echo) packet() []byte {
	p := make([]byte, echoLen)
	p[0] = echoRequest
	if e.v6 {
		p[0] = echoRequest6
	}
	binary.BigEndian.PutUint16(p[4:], uint16(e.random)) // identifier
	binary.BigEndian.PutUint16(p[6:], 1)                // sequence number
	binary.BigEndian.PutUint64(p[8:], e.random)
	if !e.v6 {
		binary.BigEndian.PutUint16(p[2:], internetChecksum(p))
	}
	return p
}

// answeredBy reports whether p, as a socket of either kind returns it, is the
// answer to e. Only raw sockets for IPv4 put the IP header before it.
func (e echo) answeredBy(p []byte) bool {
	want := byte(echoReply6)
	if !e.v6 {
		want = echoReply
		// No echo reply begins with a 4: that is the version in an IP header.
		if len(p) > 0 && p[0]>>4 == 4 {
			p = p[min(len(p), int(p[0]&15)*4):]
		}
	}
	return len(p) >= echoLen && p[0] == want && p[1] == 0 && binary.BigEndian.Uint64(p[8:]) == e.random
}

// internetChecksum returns the checksum of RFC 1071 over p, whose own field is
// zero; the length of p is even.
func internetChecksum(p []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(p); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
