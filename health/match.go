package health

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// pattern is what an answer must contain. The zero value is content with
// anything.
type pattern struct {
	text []byte
	re   *regexp.Regexp
}

// newPattern reads what check expects of an answer.
func newPattern(check Config) (pattern, error) {
	text, err := unescape(check.Expect)
	if err != nil {
		return pattern{}, err
	}
	p := pattern{text: text}
	if check.ExpectRegexp != "" {
		if p.re, err = regexp.Compile(check.ExpectRegexp); err != nil {
			return pattern{}, fmt.Errorf("%q is no regular expression of Go (RE2): %w", check.ExpectRegexp, err)
		}
	}
	return p, nil
}

// any reports whether every answer will do.
func (p pattern) any() bool { return len(p.text) == 0 && p.re == nil }

// in reports whether answer is what is wanted.
func (p pattern) in(answer []byte) bool {
	return bytes.Contains(answer, p.text) && (p.re == nil || p.re.Match(answer))
}

// String says what is wanted.
func (p pattern) String() string {
	var wants []string
	if len(p.text) > 0 {
		wants = append(wants, quoted(p.text))
	}
	if p.re != nil {
		wants = append(wants, "a match of "+printable(p.re.String()))
	}
	return strings.Join(wants, " and ")
}

// unescape replaces each \xHH of s, in hexadecimal, by the byte it means.
func unescape(s string) ([]byte, error) {
	var b []byte
	for {
		before, rest, found := strings.Cut(s, `\x`)
		b = append(b, before...)
		if !found {
			return b, nil
		}
		if len(rest) < 2 {
			return nil, fmt.Errorf(`\x%s is no byte; write two digits, such as \x0a`, rest)
		}
		one, err := hex.DecodeString(rest[:2])
		if err != nil {
			return nil, fmt.Errorf(`\x%s is no byte; write two digits, such as \x0a`, rest[:2])
		}
		b, s = append(b, one...), rest[2:]
	}
}

// maxQuote bounds how much of an answer a reason quotes, in bytes.
const maxQuote = 60

// quoted returns the beginning of an answer for a reason, with \xHH for each byte
// that cannot be shown.
func quoted(answer []byte) string {
	answer = bytes.TrimRight(answer, "\r\n")
	more := ""
	if len(answer) > maxQuote {
		answer, more = answer[:maxQuote], "..."
	}
	var b strings.Builder
	for len(answer) > 0 {
		r, size := utf8.DecodeRune(answer)
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			for _, one := range answer[:size] {
				fmt.Fprintf(&b, `\x%02x`, one)
			}
		} else {
			b.WriteRune(r)
		}
		answer = answer[size:]
	}
	return `"` + b.String() + more + `"`
}
