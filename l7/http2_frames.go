package l7

import (
	"encoding/binary"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Frames are read by a http2.Framer, which checks them, and written here, behind
// each other into one buffer.

const (
	frameHeaderSize = 9
	// frameMost is the largest payload of a frame, in either direction: what
	// SETTINGS_MAX_FRAME_SIZE is unless somebody says otherwise.
	frameMost = 16 << 10
)

// appendFrame appends the header of a frame whose payload has n bytes (RFC 9113,
// section 4.1).
func appendFrame(b []byte, n int, kind http2.FrameType, flags http2.Flags, stream uint32) []byte {
	b = append(b, byte(n>>16), byte(n>>8), byte(n), byte(kind), byte(flags))
	return binary.BigEndian.AppendUint32(b, stream)
}

// appendHead appends a block of fields: a frame HEADERS, and frames CONTINUATION
// if it is too large for one.
func appendHead(b []byte, stream uint32, block []byte, end bool) []byte {
	kind, flags := http2.FrameHeaders, http2.Flags(0)
	if end {
		flags = http2.FlagHeadersEndStream
	}
	for len(block) > frameMost {
		b = append(appendFrame(b, frameMost, kind, flags, stream), block[:frameMost]...)
		block = block[frameMost:]
		kind, flags = http2.FrameContinuation, 0
	}
	return append(appendFrame(b, len(block), kind, flags|http2.FlagHeadersEndHeaders, stream), block...)
}

// appendData appends a frame DATA; p is at most frameMost bytes.
func appendData(b []byte, stream uint32, p []byte, end bool) []byte {
	flags := http2.Flags(0)
	if end {
		flags = http2.FlagDataEndStream
	}
	return append(appendFrame(b, len(p), http2.FrameData, flags, stream), p...)
}

func appendReset(b []byte, stream uint32, code http2.ErrCode) []byte {
	b = appendFrame(b, 4, http2.FrameRSTStream, 0, stream)
	return binary.BigEndian.AppendUint32(b, uint32(code))
}

func appendWindowUpdate(b []byte, stream uint32, n int) []byte {
	b = appendFrame(b, 4, http2.FrameWindowUpdate, 0, stream)
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

func appendSettings(b []byte, settings ...http2.Setting) []byte {
	b = appendFrame(b, 6*len(settings), http2.FrameSettings, 0, 0)
	for _, s := range settings {
		b = binary.BigEndian.AppendUint16(b, uint16(s.ID))
		b = binary.BigEndian.AppendUint32(b, s.Val)
	}
	return b
}

func appendSettingsAck(b []byte) []byte {
	return appendFrame(b, 0, http2.FrameSettings, http2.FlagSettingsAck, 0)
}

func appendPing(b []byte, ack bool, data [8]byte) []byte {
	flags := http2.Flags(0)
	if ack {
		flags = http2.FlagPingAck
	}
	return append(appendFrame(b, 8, http2.FramePing, flags, 0), data[:]...)
}

func appendGoAway(b []byte, last uint32, code http2.ErrCode) []byte {
	b = appendFrame(b, 8, http2.FrameGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	return binary.BigEndian.AppendUint32(b, uint32(code))
}

// Heads are compressed without a table of their own (RFC 7541, section 6.2.2), as
// nginx and HAProxy do: names and values that are in the static table are short,
// others are written out. So a block depends on nothing that was sent before, and
// the strings of an exchange are not kept.

// appendTableSize says that there is no such table: the other side may have
// asked for a smaller one and wait for the word (RFC 7541, section 4.2).
func appendTableSize(b []byte) []byte { return append(b, 0x20) }

// appendStatus appends the field :status.
func appendStatus(b []byte, status int) []byte {
	for i, known := range staticStatus {
		if known == status {
			return append(b, 0x80|byte(8+i))
		}
	}
	return append(b, 8, 3, byte('0'+status/100), byte('0'+status/10%10), byte('0'+status%10))
}

// staticStatus are the statuses from index 8 of the static table on.
var staticStatus = [...]int{200, 204, 206, 304, 400, 404, 500}

// appendHeaderField appends a field, with its name in lower case.
func appendHeaderField(b []byte, name, value string) []byte {
	var lower [32]byte
	n := len(name)
	if n <= len(lower) {
		for i := range n {
			lower[i] = lowerCase(name[i])
		}
		if index := staticNames[string(lower[:n])]; index > 0 {
			return appendString(appendInteger(b, 0, 4, index), value)
		}
	}
	b = appendInteger(append(b, 0), 0, 7, n)
	for i := range n {
		b = append(b, lowerCase(name[i]))
	}
	return appendString(b, value)
}

func lowerCase(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// appendString appends a literal string (RFC 7541, section 5.2).
func appendString(b []byte, s string) []byte {
	if n := hpack.HuffmanEncodeLength(s); n < uint64(len(s)) {
		return hpack.AppendHuffmanString(appendInteger(b, 0x80, 7, int(n)), s)
	}
	return append(appendInteger(b, 0, 7, len(s)), s...)
}

// appendInteger appends n with a prefix of that many bits, beside which the first
// byte has mark (RFC 7541, section 5.1).
func appendInteger(b []byte, mark byte, bits, n int) []byte {
	most := 1<<bits - 1
	if n < most {
		return append(b, mark|byte(n))
	}
	b = append(b, mark|byte(most))
	for n -= most; n >= 0x80; n >>= 7 {
		b = append(b, 0x80|byte(n))
	}
	return append(b, byte(n))
}

// staticNames are the names of the static table (RFC 7541, appendix A).
var staticNames = map[string]int{
	":authority": 1, ":method": 2, ":path": 4, ":scheme": 6, ":status": 8,
	"accept-charset": 15, "accept-encoding": 16, "accept-language": 17, "accept-ranges": 18, "accept": 19,
	"access-control-allow-origin": 20, "age": 21, "allow": 22, "authorization": 23, "cache-control": 24,
	"content-disposition": 25, "content-encoding": 26, "content-language": 27, "content-length": 28,
	"content-location": 29, "content-range": 30, "content-type": 31, "cookie": 32, "date": 33, "etag": 34,
	"expect": 35, "expires": 36, "from": 37, "host": 38, "if-match": 39, "if-modified-since": 40,
	"if-none-match": 41, "if-range": 42, "if-unmodified-since": 43, "last-modified": 44, "link": 45,
	"location": 46, "max-forwards": 47, "proxy-authenticate": 48, "proxy-authorization": 49, "range": 50,
	"referer": 51, "refresh": 52, "retry-after": 53, "server": 54, "set-cookie": 55,
	"strict-transport-security": 56, "transfer-encoding": 57, "user-agent": 58, "vary": 59, "via": 60,
	"www-authenticate": 61,
}
