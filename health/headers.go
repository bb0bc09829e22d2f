package health

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Headers are fields of a request, a line "Name: value" each, in alphabetical
// order. In the file they are a table.
type Headers string

// UnmarshalTable reads the table of the file.
func (h *Headers) UnmarshalTable(table map[string]string) error {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(table)) {
		switch {
		case name == "" || strings.ContainsFunc(name, notInToken):
			return fmt.Errorf("%q is no name of a header", name)
		case strings.EqualFold(name, "Host"):
			return fmt.Errorf("the host of a check has a key of its own, host")
		case slices.ContainsFunc(ownHeaders, func(own string) bool { return strings.EqualFold(own, name) }):
			return fmt.Errorf("%s is not for a check to choose", name)
		case strings.ContainsFunc(table[name], isControl):
			return fmt.Errorf("the value of %s cannot be sent", name)
		}
		lines = append(lines, name+": "+table[name])
	}
	*h = Headers(strings.Join(lines, "\n"))
	return nil
}

// ownHeaders are those that say how the request itself is to be read, or are about
// the connection; by HTTP/2 servers refuse the latter (RFC 9113, section 8.2.2).
var ownHeaders = []string{"Connection", "Content-Length", "Transfer-Encoding", "Upgrade", "Trailer", "TE", "Keep-Alive", "Proxy-Connection"}

// notInToken reports whether a name may not contain r (RFC 9110, section 5.6.2).
func notInToken(r rune) bool {
	letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
	return !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// isControl reports whether a value may not contain r (RFC 9110, section 5.5).
func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// has reports whether there is a field of that name.
func (h Headers) has(name string) (has bool) {
	h.each(func(own, _ string) { has = has || strings.EqualFold(own, name) })
	return has
}

// each calls f for every field.
func (h Headers) each(f func(name, value string)) {
	for line := range strings.Lines(string(h)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		f(name, value)
	}
}
