package config

import (
	"regexp"
	"strconv"
	"strings"
)

// Key paths are strings such as `l7[0].route[1].hosts[0]` or `pool."my.db"`.
// The decoder and the scanner of positions both build them with join and index,
// so that equal keys have equal paths.

// join returns the path of the key name in the table at path.
func join(path, name string) string {
	if !isBare(name) {
		name = strconv.Quote(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

// index returns the path of element i of the array at path.
func index(path string, i int) string {
	return path + "[" + strconv.Itoa(i) + "]"
}

// parent returns the path of the table or array that holds path, or "".
func parent(path string) string {
	cut, quoted := 0, false
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '.' || c == '['):
			cut = i
		}
	}
	return path[:cut]
}

// within reports whether path is outer or something that outer holds.
func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (outer == "" || rest == "" || rest[0] == '.' || rest[0] == '[')
}

// arrayIndex is what index appends. It also matches inside quoted names.
var arrayIndex = regexp.MustCompile(`\[\d+\]`)

// withoutIndexes returns path as the header of a table names it. It is made for
// messages.
func withoutIndexes(path string) string { return arrayIndex.ReplaceAllString(path, "") }

// isBare reports whether name can be written as a key without quotes.
func isBare(name string) bool {
	for _, c := range []byte(name) {
		if !isBareByte(c) {
			return false
		}
	}
	return name != ""
}

func isBareByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}
