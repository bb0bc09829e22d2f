package accesslog

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Format is how a line is written.
type Format string

// The formats.
const (
	JSON     Format = "json"     // one object a line
	Common   Format = "common"   // the common log format of Apache
	Combined Format = "combined" // the same with referer and user agent
)

// Validate returns why f is no format.
func (f Format) Validate() error {
	switch f {
	case JSON, Common, Combined:
		return nil
	}
	return fmt.Errorf("unknown format %q; known: json, common, combined", string(f))
}

// maxText is what is shown of a string that a client chose, in bytes.
const maxText = 4 << 10

// Append appends the line for r to b, with its end. A format that has no place
// for r leaves b as it is: the common ones know only requests.
//
// Whatever clients send, a line is one line of printable ASCII, and what stands
// in quotes ends where the quotes do.
func (f Format) Append(b []byte, r *Record, c *Clock) []byte {
	switch f {
	case Common, Combined:
		if r.End == TLSFailed {
			return b
		}
		return appendCommon(b, r, c, f == Combined)
	}
	return appendJSON(b, r, c)
}

// Clock writes times; it remembers the text of the latest second. The zero value
// is ready, any number of goroutines may use it.
type Clock struct{ last atomic.Pointer[second] }

type second struct {
	unix         int64
	json, common string
}

func (c *Clock) at(t time.Time) *second {
	unix := t.Unix()
	if s := c.last.Load(); s != nil && s.unix == unix {
		return s
	}
	s := &second{unix, t.UTC().Format("2006-01-02T15:04:05"), t.Local().Format("02/Jan/2006:15:04:05 -0700")}
	c.last.Store(s)
	return s
}

func appendJSON(b []byte, r *Record, c *Clock) []byte {
	b = append(b, `{"time":"`...)
	b = append(b, c.at(r.Time).json...)
	b = appendFraction(b, int64(r.Time.Nanosecond())/1e6, 3)
	b = append(b, `Z"`...)
	b = text(b, `,"service":"`, r.Service)
	b = text(b, `,"client":"`, r.Client)
	b = text(b, `,"proxy":"`, r.Proxy)
	b = text(b, `,"id":"`, r.ID)
	b = text(b, `,"user":"`, r.User)
	b = text(b, `,"method":"`, r.Method)
	b = text(b, `,"scheme":"`, r.Scheme)
	b = text(b, `,"host":"`, r.Host)
	b = text(b, `,"target":"`, r.Target)
	b = text(b, `,"protocol":"`, r.Protocol)
	b = text(b, `,"start":"`, r.Start)
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(r.Status), 10)
	b = append(b, `,"bytes_in":`...)
	b = strconv.AppendInt(b, r.BytesIn, 10)
	b = append(b, `,"bytes_out":`...)
	b = strconv.AppendInt(b, r.BytesOut, 10)
	b = text(b, `,"route":"`, r.Route)
	b = text(b, `,"pool":"`, r.Pool)
	b = text(b, `,"server":"`, r.Server)
	b = seconds(b, `,"head_seconds":`, r.Head)
	b = seconds(b, `,"wait_seconds":`, r.Wait)
	b = seconds(b, `,"connect_seconds":`, r.Connect)
	b = seconds(b, `,"first_byte_seconds":`, r.FirstByte)
	b = seconds(b, `,"total_seconds":`, r.Total)
	if r.Retries > 0 {
		b = append(b, `,"retries":`...)
		b = strconv.AppendInt(b, int64(r.Retries), 10)
	}
	b = text(b, `,"tls_version":"`, r.TLSVersion)
	b = text(b, `,"tls_cipher":"`, r.TLSCipher)
	b = text(b, `,"tls_sni":"`, r.SNI)
	if r.Resumed {
		b = append(b, `,"tls_resumed":true`...)
	}
	b = text(b, `,"tls_client":"`, r.TLSClient)
	b = text(b, `,"referer":"`, r.Referer)
	b = text(b, `,"user_agent":"`, r.UserAgent)
	b = text(b, `,"end":"`, string(r.End))
	b = text(b, `,"problem":"`, r.Problem)
	return append(b, "}\n"...)
}

// text appends a member of an object, unless its value is empty; key has all up
// to the quotes before that.
func text(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}
	return append(appendEscaped(append(b, key...), value), '"')
}

// seconds appends a member of an object, unless d is below zero.
func seconds(b []byte, key string, d time.Duration) []byte {
	if d < 0 {
		return b
	}
	b = strconv.AppendInt(append(b, key...), int64(d/time.Second), 10)
	return appendFraction(b, int64(d%time.Second)/1e3, 6)
}

// appendFraction appends what stands behind a number: a point and that many
// digits.
func appendFraction(b []byte, n int64, digits int) []byte {
	b = append(b, ".000000"[:digits+1]...)
	for i := len(b) - 1; n > 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
	return b
}

// plain are the bytes that stand for themselves everywhere.
var plain = func() (is [256]bool) {
	for c := ' '; c <= '~'; c++ {
		is[c] = c != '"' && c != '\\'
	}
	return is
}()

const hex = "0123456789abcdef"

// appendEscaped appends s as it stands in a string of JSON, all of it ASCII:
// there are more line ends and orders to a terminal among the other characters
// than one would think. What is no UTF-8 becomes U+FFFD.
func appendEscaped(b []byte, s string) []byte {
	s, cut := shortened(s)
	for i := 0; i < len(s); {
		from := i
		for i < len(s) && plain[s[i]] {
			i++
		}
		b = append(b, s[from:i]...)
		if i == len(s) {
			break
		}
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
			i++
		case c < utf8.RuneSelf:
			b = append16(b, rune(c))
			i++
		default:
			r, size := utf8.DecodeRuneInString(s[i:])
			i += size
			if r > 0xffff {
				r -= 0x10000
				b = append16(append16(b, 0xd800+r>>10), 0xdc00+r&0x3ff)
			} else {
				b = append16(b, r)
			}
		}
	}
	if cut {
		b = append(b, "..."...)
	}
	return b
}

// append16 appends one unit of UTF-16 as JSON escapes it.
func append16(b []byte, r rune) []byte {
	return append(b, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}

// shortened returns as much of s as is shown.
func shortened(s string) (_ string, cut bool) {
	if len(s) <= maxText {
		return s, false
	}
	n := maxText
	for n > maxText-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n], true
}

func appendCommon(b []byte, r *Record, c *Clock, combined bool) []byte {
	b = appendWord(b, r.Client)
	b = append(b, " - "...)
	b = appendWord(b, r.User)
	b = append(b, " ["...)
	b = append(b, c.at(r.Time).common...)
	b = append(b, `] "`...)
	switch {
	case r.Method != "":
		b = append(appendHex(b, r.Method), ' ')
		b = append(appendHex(b, r.Target), ' ')
		b = appendHex(b, r.Protocol)
	case r.Start != "":
		b = appendHex(b, r.Start)
	default:
		b = append(b, '-')
	}
	b = append(b, `" `...)
	b = append(b, byte('0'+r.Status/100%10), byte('0'+r.Status/10%10), byte('0'+r.Status%10), ' ')
	b = strconv.AppendInt(b, r.BytesOut, 10)
	if combined {
		b = appendQuoted(append(b, ' '), r.Referer)
		b = appendQuoted(append(b, ' '), r.UserAgent)
	}
	return append(b, '\n')
}

// appendWord appends s as a word, "-" if it is empty.
func appendWord(b []byte, s string) []byte {
	if s == "" {
		return append(b, '-')
	}
	from := len(b)
	b = appendHex(b, s)
	for i := from; i < len(b); i++ {
		if b[i] == ' ' {
			b = append(b, "   "...)
			copy(b[i+4:], b[i+1:])
			copy(b[i:], `\x20`)
		}
	}
	return b
}

// appendQuoted appends s in quotes, "-" if it is empty.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	if s == "" {
		b = append(b, '-')
	}
	return append(appendHex(b, s), '"')
}

// appendHex appends s as nginx escapes it: what is no printable ASCII, quotes and
// backslashes are \xHH.
func appendHex(b []byte, s string) []byte {
	s, cut := shortened(s)
	for i := 0; i < len(s); i++ {
		if c := s[i]; plain[c] {
			b = append(b, c)
		} else {
			b = append(b, '\\', 'x', hex[c>>4], hex[c&15])
		}
	}
	if cut {
		b = append(b, "..."...)
	}
	return b
}
