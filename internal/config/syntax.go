package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/BurntSushi/toml"
)

// maxBrokenStatements bounds how many statements of one file are left out to
// find the next error: the work grows with the square of a file that is no TOML.
const maxBrokenStatements = 100

// utf8BOM may precede the text; it is no part of the first line.
const utf8BOM = "\xef\xbb\xbf"

// statementStart matches a line that most likely begins a statement of its own.
var statementStart = regexp.MustCompile(`^\s*(\[+\s*[A-Za-z]|[A-Za-z0-9_."'-]+\s*=)`)

// readTree turns text into a tree of plain values and returns it with a report
// for the later stages, in which the syntax errors are recorded.
//
// The TOML library stops at the first error. To find the others, the statement
// that holds it is replaced by spaces, which moves nothing, and the rest is read
// again.
func readTree(name, text string) (map[string]any, *report) {
	text = strings.TrimPrefix(text, utf8BOM)
	r := &report{file: name}
	brokenUntil := -1 // the offset at which the newest replaced text ended
	for left := maxBrokenStatements; ; left-- {
		r.positions = scan(text)
		var tree map[string]any
		_, err := toml.Decode(text, &tree)
		var broken toml.ParseError
		if !errors.As(err, &broken) {
			if err != nil {
				r.unreadable("", "%v", err)
			}
			return tree, r
		}
		offset := min(max(broken.Position.Start, 0), len(text))
		from, to := r.positions.statement(offset)
		key := r.positions.near(offset, broken.LastKey)
		duplicate := strings.Contains(broken.Message, "already")
		// What comes right behind a broken statement is most likely the rest of
		// it.
		rest := brokenUntil >= 0 && from <= brokenUntil+1 && !statementStart.MatchString(text[from:to])
		switch {
		case duplicate:
			r.syntax(key.offset, key.path, r.positions.duplicateMessage(key))
		case !rest:
			r.syntax(offset, key.path, r.positions.explain(broken.Message, from, offset))
		}
		if !duplicate {
			brokenUntil = to
		}
		// Without the second of two equal statements the file lacks nothing.
		if !duplicate || !opens(text[from:to], key.offset-from) {
			r.partial = true
		}
		if strings.TrimSpace(text[from:to]) == "" || left == 0 {
			r.partial = true
			return nil, r
		}
		text = text[:from] + blanked(text[from:to]) + text[to:]
	}
}

// syntax records a problem at an offset.
func (r *report) syntax(offset int, path, message string) {
	line, column := r.positions.at(offset)
	r.problems = append(r.problems, Problem{File: r.file, Line: line, Column: column, Key: path, Message: message})
}

// explain says what is wrong with a statement, which begins at from, to people who
// may not know TOML.
func (p *positions) explain(message string, from, offset int) string {
	message = strings.TrimSuffix(message, ".")
	statement := p.text[from:]
	word := strings.TrimLeft(statement, " \t[")
	if end := strings.IndexFunc(word, func(c rune) bool { return c > 127 || !isBareByte(byte(c)) }); end >= 0 {
		word = word[:end]
	}
	switch {
	case strings.HasPrefix(message, "expected '.' or '='"):
		message = "a line must be NAME = VALUE, or begin a table such as [pool.web]"
		if f, ok := foreignWord("", word); ok {
			message += "; " + f.text
		}
	case strings.HasPrefix(message, "expected a top-level item to end"):
		message = "something follows the value; only a comment may"
		if strings.HasPrefix(p.text[offset:], ";") {
			message = "a line has no ; at its end"
		}
	case strings.HasPrefix(message, "expected value but found"):
		message += "; texts stand in straight quotes, as in \"eth0\", and the others are numbers, true and false"
	case message == "strings cannot contain newlines":
		message += "; the quote that ends it is missing"
	}
	return message
}

// blanked returns s with everything but its line ends replaced by spaces.
func blanked(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c != '\n' && c != '\r' {
			b[i] = ' '
		}
	}
	return string(b)
}

// statement returns where the statement begins that holds offset, and the end
// of the line that does. A table header takes all lines up to the next header
// along, since they would fall to the table before it.
func (p *positions) statement(offset int) (from, to int) {
	line, _ := p.at(offset)
	from = p.lines[line-1]
	for _, s := range p.statements {
		if s > offset {
			break
		}
		if startLine, _ := p.at(s); startLine <= line {
			from = p.lines[startLine-1]
		}
	}
	end := func(line int) int {
		if line < len(p.lines) {
			return p.lines[line] - 1
		}
		return len(p.text)
	}
	to = max(from, end(line))
	if !strings.HasPrefix(strings.TrimSpace(p.text[from:to]), "[") {
		return from, to
	}
	for line < len(p.lines) && !strings.HasPrefix(strings.TrimSpace(p.text[p.lines[line]:end(line+1)]), "[") {
		line++
		to = end(line)
	}
	return from, to
}

// opens reports whether a statement begins with the key at offset.
func opens(statement string, offset int) bool {
	return offset >= 0 && offset <= len(statement) && strings.Trim(statement[:offset], " \t[") == ""
}

// near returns the key on the line of offset that is the last one to begin
// before it; without one, otherwise.
func (p *positions) near(offset int, otherwise string) mark {
	line, _ := p.at(offset)
	for i := len(p.marks) - 1; i >= 0; i-- {
		if m := p.marks[i]; m.offset <= offset && m.offset >= p.lines[line-1] {
			return m
		}
	}
	return mark{otherwise, offset}
}

// duplicateMessage says that a key was defined before.
func (p *positions) duplicateMessage(key mark) string {
	for _, m := range p.marks {
		if m.path == key.path && m.offset < key.offset {
			line, _ := p.at(m.offset)
			return fmt.Sprintf("defined a second time; the first is in line %d", line)
		}
	}
	return "defined a second time, or as two different things"
}
