package config

import (
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// mark says that the key or array element at path begins at offset.
type mark struct {
	path   string
	offset int
}

// positions are the places of all keys and array elements of a text, in the
// order of the text. A key that is part of a dotted one begins where the dotted
// one does.
type positions struct {
	marks []mark
	// explicit holds where each path begins: where it is defined, or else where
	// it is first implied, as "a" is by [a.b].
	explicit map[string]int
	// statements are the offsets at which the lines' statements begin.
	statements []int
	lines      []int // offsets at which the lines begin
	text       string
}

// lookup returns where path begins.
func (p *positions) lookup(path string) (offset int, ok bool) {
	offset, ok = p.explicit[path]
	return offset, ok
}

// at converts an offset into a line and a column, both from 1; columns count
// characters.
func (p *positions) at(offset int) (line, column int) {
	offset = min(max(offset, 0), len(p.text))
	line = sort.SearchInts(p.lines, offset+1)
	return line, 1 + utf8.RuneCountInString(p.text[p.lines[line-1]:offset])
}

// scan finds the positions of all keys in TOML text. It trusts the text to be
// valid up to the place of interest: it judges nothing and what it returns for
// invalid text is arbitrary.
func scan(text string) *positions {
	s := scanner{text: text, found: positions{text: text, explicit: make(map[string]int), lines: []int{0}}}
	for i := range len(text) {
		if text[i] == '\n' {
			s.found.lines = append(s.found.lines, i+1)
		}
	}
	s.document()
	return &s.found
}

// scanner walks over TOML text and notes where keys begin.
type scanner struct {
	text  string
	pos   int
	found positions
}

// peek returns the next byte, or 0 at the end.
func (s *scanner) peek() byte {
	if s.pos < len(s.text) {
		return s.text[s.pos]
	}
	return 0
}

// skip passes over prefix if the text goes on with it.
func (s *scanner) skip(prefix string) bool {
	if !strings.HasPrefix(s.text[min(s.pos, len(s.text)):], prefix) {
		return false
	}
	s.pos += len(prefix)
	return true
}

// blank passes over spaces, newlines and comments.
func (s *scanner) blank() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		case '#':
			s.line()
		default:
			return
		}
	}
}

// line passes over the rest of the line.
func (s *scanner) line() {
	if i := strings.IndexByte(s.text[s.pos:], '\n'); i >= 0 {
		s.pos += i
		return
	}
	s.pos = len(s.text)
}

// define notes the definition of path, imply its mention in a longer one.
func (s *scanner) define(path string, offset int) {
	s.found.marks = append(s.found.marks, mark{path, offset})
	s.found.explicit[path] = offset
}

func (s *scanner) imply(path string, offset int) {
	if _, ok := s.found.explicit[path]; !ok {
		s.found.marks = append(s.found.marks, mark{path, offset})
		s.found.explicit[path] = offset
	}
}

// document walks over all statements: table headers and keys with values.
func (s *scanner) document() {
	table := ""
	elements := make(map[string]int) // how many [[path]] there were so far
	for s.blank(); s.pos < len(s.text); s.blank() {
		s.found.statements = append(s.found.statements, s.pos)
		if s.skip("[") {
			table = s.header(elements)
		} else {
			s.keyValue(table)
		}
		s.line()
	}
}

// header walks over [a.b] or [[a.b]] behind its first bracket and returns the
// path of the table it opens. In both, each name but the last that is an array
// of tables means its newest element.
func (s *scanner) header(elements map[string]int) string {
	isArray := s.skip("[")
	s.space()
	start := s.pos
	names := s.key()
	path := ""
	for _, name := range names[:len(names)-1] {
		path = join(path, name)
		s.imply(path, start)
		if n := elements[path]; n > 0 {
			path = index(path, n-1)
		}
	}
	path = join(path, names[len(names)-1])
	if !isArray {
		s.define(path, start)
		return path
	}
	s.imply(path, start)
	n := elements[path]
	elements[path] = n + 1
	path = index(path, n)
	s.define(path, start)
	return path
}

// keyValue walks over "key = value" in the table at path.
func (s *scanner) keyValue(path string) {
	start := s.pos
	names := s.key()
	for i, name := range names {
		path = join(path, name)
		if i < len(names)-1 {
			s.imply(path, start)
		}
	}
	s.define(path, start)
	s.space()
	s.skip("=")
	s.space()
	s.value(path)
}

// space passes over spaces and tabs.
func (s *scanner) space() {
	for s.peek() == ' ' || s.peek() == '\t' {
		s.pos++
	}
}

// key walks over a key and returns the names between its dots, at least one.
func (s *scanner) key() []string {
	var names []string
	for {
		s.space()
		switch s.peek() {
		case '"', '\'':
			names = append(names, s.quoted())
		default:
			start := s.pos
			for s.pos < len(s.text) && isBareByte(s.text[s.pos]) {
				s.pos++
			}
			names = append(names, s.text[start:s.pos])
		}
		s.space()
		if !s.skip(".") {
			return names
		}
	}
}

// value walks over the value of the key or element at path.
func (s *scanner) value(path string) {
	switch s.peek() {
	case '"', '\'':
		s.quoted()
	case '[':
		s.pos++
		s.array(path)
	case '{':
		s.pos++
		s.table(path)
	default:
		for s.pos < len(s.text) && !strings.ContainsRune(",]}#\r\n", rune(s.text[s.pos])) {
			s.pos++
		}
	}
}

// array walks over an array behind its bracket.
func (s *scanner) array(path string) {
	for i := 0; s.more(']'); i++ {
		element := index(path, i)
		s.define(element, s.pos)
		s.value(element)
	}
}

// table walks over an inline table behind its brace.
func (s *scanner) table(path string) {
	for s.more('}') {
		s.keyValue(path)
	}
}

// more passes over what separates the members of an array or inline table and
// reports whether another member follows; if not it is past the end.
func (s *scanner) more(end byte) bool {
	s.blank()
	if s.skip(",") {
		s.blank()
	}
	switch s.peek() {
	case 0:
		return false
	case end:
		s.pos++
		return false
	case ',', ']', '}', '=':
		// Only invalid text gets here. Nobody would consume this byte.
		s.pos = len(s.text)
		return false
	}
	return true
}

// quoted walks over a string of any of the four kinds and returns what it says;
// for the multi-line kinds, which cannot be keys, that is not exact.
func (s *scanner) quoted() string {
	quote := s.text[s.pos : s.pos+1]
	end := quote
	if long := strings.Repeat(quote, 3); strings.HasPrefix(s.text[s.pos:], long) {
		end = long
	}
	s.pos += len(end)
	start := s.pos
	for s.pos < len(s.text) && !strings.HasPrefix(s.text[s.pos:], end) {
		if quote == `"` && s.text[s.pos] == '\\' {
			s.pos++
		}
		s.pos++
	}
	s.pos = min(s.pos, len(s.text))
	content := s.text[start:s.pos]
	s.skip(end)
	if len(end) == 3 {
		// A multi-line string may end with one or two quotes of its own.
		for range 2 {
			s.skip(quote)
		}
	}
	if quote == `"` {
		return unescape(content)
	}
	return content
}

// unescape replaces the escape sequences of a basic string.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	simple := map[byte]byte{'b': '\b', 't': '\t', 'n': '\n', 'f': '\f', 'r': '\r', 'e': 0x1b}
	digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		if c, ok := simple[s[i]]; ok {
			b.WriteByte(c)
			continue
		}
		n, ok := digits[s[i]]
		if !ok || i+n >= len(s) {
			b.WriteByte(s[i])
			continue
		}
		code, err := strconv.ParseUint(s[i+1:i+1+n], 16, 32)
		if err == nil {
			b.WriteRune(rune(code))
		}
		i += n
	}
	return b.String()
}
