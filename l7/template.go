package l7

import (
	"fmt"
	"slices"
	"strings"
)

// variables are what a text of the file may name in braces.
var variables = []struct {
	name  string
	value func(ex *exchange) string
}{
	{"cert_der", certValue(certDER)},
	{"cert_fingerprint", certValue(certFingerprint)},
	{"cert_name", certValue(certName)},
	{"cert_serial", certValue(certSerial)},
	{"cert_subject", certValue(certSubject)},
	{"client", func(ex *exchange) string { return ex.peer.text }},
	{"host", func(ex *exchange) string { host, _ := normalHost(ex.host); return host }},
	{"method", func(ex *exchange) string { return ex.method }},
	{"path", func(ex *exchange) string { path, _, _ := strings.Cut(ex.target, "?"); return path }},
	{"query", func(ex *exchange) string { return ex.target[len(ex.target)-lenQuery(ex.target):] }},
	{"request_id", func(ex *exchange) string { return ex.id }},
	{"scheme", func(ex *exchange) string { return ex.scheme }},
	{"server", func(ex *exchange) string {
		if ex.server == nil {
			return ""
		}
		return ex.server.Label()
	}},
	{"user", func(ex *exchange) string { return ex.user }},
}

// lenQuery returns the length of a target's query, its question mark included.
func lenQuery(target string) int {
	if i := strings.IndexByte(target, '?'); i >= 0 {
		return len(target) - i
	}
	return 0
}

// template is a text with variables, ready to be filled in.
type template struct {
	text  string // all of it, if parts is empty
	parts []templatePart
}

type templatePart struct {
	text  string // before the variable
	value func(ex *exchange) string
}

// newTemplate compiles a text. A word in braces is a variable and must be known;
// all other braces stand for themselves, as in a field whose value is JSON.
func newTemplate(text string) (template, error) {
	t := template{text: text}
	rest, from := text, 0
	for {
		open := strings.IndexByte(rest[from:], '{')
		if open < 0 {
			break
		}
		open += from
		length := strings.IndexByte(rest[open:], '}')
		if length < 0 {
			break
		}
		name := rest[open+1 : open+length]
		if !isWord(name) {
			from = open + 1
			continue
		}
		i := slices.IndexFunc(variables, func(v struct {
			name  string
			value func(ex *exchange) string
		}) bool {
			return v.name == name
		})
		if i < 0 {
			var known []string
			for _, v := range variables {
				known = append(known, "{"+v.name+"}")
			}
			return template{}, fmt.Errorf("unknown variable {%s}; known: %s", name, strings.Join(known, ", "))
		}
		t.parts = append(t.parts, templatePart{rest[:open], variables[i].value})
		rest, from = rest[open+length+1:], 0
	}
	if len(t.parts) > 0 {
		t.text = rest
	}
	return t, nil
}

func isWord(s string) bool {
	for _, c := range []byte(s) {
		if c < 'a' || c > 'z' {
			if c != '_' {
				return false
			}
		}
	}
	return s != ""
}

// fill returns the text for an exchange. A text without variables costs nothing.
func (t *template) fill(ex *exchange) string {
	if len(t.parts) == 0 {
		return t.text
	}
	var b strings.Builder
	for i := range t.parts {
		b.WriteString(t.parts[i].text)
		b.WriteString(t.parts[i].value(ex))
	}
	b.WriteString(t.text)
	return b.String()
}
