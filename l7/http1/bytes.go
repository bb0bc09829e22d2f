package http1

import "unsafe"

// What a byte may be part of.
const (
	inToken  = 1 << iota // RFC 9110, section 5.6.2
	inValue              // of a field: RFC 9110, section 5.5
	inTarget             // of a request: what is visible, and bytes beyond ASCII
	inHex
)

// kinds tells for each byte what it may be part of.
var kinds = func() (k [256]uint8) {
	for c := range 256 {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
			k[c] = inToken | inValue | inTarget
		case c > ' ' && c < 0x7f, c >= 0x80:
			k[c] = inValue | inTarget
		case c == ' ', c == '\t':
			k[c] = inValue
		}
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		k[c] |= inToken
	}
	for _, c := range "0123456789abcdefABCDEF" {
		k[c] |= inHex
	}
	return k
}()

// only reports whether all bytes of b may be part of kind.
func only(b []byte, kind uint8) bool {
	for _, c := range b {
		if kinds[c]&kind == 0 {
			return false
		}
	}
	return true
}

// IsToken reports whether s is a token (RFC 9110, section 5.6.2).
func IsToken(s string) bool {
	for i := range len(s) {
		if kinds[s[i]]&inToken == 0 {
			return false
		}
	}
	return s != ""
}

// IsHex reports whether c is a hexadecimal digit.
func IsHex(c byte) bool { return kinds[c]&inHex != 0 }

// view returns b as a string, without copying.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// trim returns b without white space at both ends (OWS: RFC 9110, section 5.6.3).
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// fold reports whether s is the lower-case name, without regard to case.
func fold(s, name string) bool {
	if len(s) != len(name) {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != name[i] {
			return false
		}
	}
	return true
}

// alike reports whether s is the lower-case name for a reader that takes all
// marks for the same, as gateways such as CGI do: content_length.
func alike(s, name string) bool {
	if len(s) != len(name) {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z':
		default:
			c = '-'
		}
		if c != name[i] {
			return false
		}
	}
	return true
}
