package config

import (
	"os"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// FuzzParse wants that no text makes Parse panic, that every problem has a
// place in the text, and that a legal file resolves for each of its nodes.
func FuzzParse(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, text string) {
		file, err := Parse("f.toml", []byte(text))
		if err != nil {
			problems, ok := err.(Problems)
			if !ok || len(problems) == 0 {
				t.Fatalf("%T instead of problems: %v", err, err)
			}
			lines := strings.Count(text, "\n") + 1
			for _, p := range problems {
				if p.Line < 1 || p.Line > lines || p.Column < 1 || p.Message == "" {
					t.Errorf("%+v in %d lines", p, lines)
				}
			}
			return
		}
		names := file.NodeNames()
		if len(names) == 0 {
			names = []string{"any"}
		}
		for _, name := range names {
			if _, err := file.ForNode(name); err != nil {
				t.Error(err)
			}
		}
	})
}

// FuzzScan wants that scanning never panics, and that it finds every key that
// the TOML library finds.
func FuzzScan(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, text string) {
		found := scan(text)
		var tree map[string]any
		if _, err := toml.Decode(text, &tree); err != nil {
			return
		}
		if strings.HasPrefix(text, utf8BOM) {
			return // readTree takes it off first
		}
		wantPositions(t, found, "", tree)
	})
}

func wantPositions(t *testing.T, found *positions, path string, v any) {
	if _, ok := found.lookup(path); !ok && path != "" {
		t.Errorf("%s has no position", path)
	}
	if table, ok := v.(map[string]any); ok {
		for name, value := range table {
			wantPositions(t, found, join(path, name), value)
		}
	}
	array, _ := elements(v)
	for i, element := range array {
		wantPositions(t, found, index(path, i), element)
	}
}

// seed adds the example and a text for each corner of TOML.
func seed(f *testing.F) {
	example, err := os.ReadFile(examplePath)
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range []string{
		string(example), "", "a", "[", "[[", "a = [", "a = {", "a = \"\"\"", "= 1", "a = [[1], {b = [2]}]",
		"'a'.\"b\\u0041\".c = 1979-05-27 07:32:00", "[[a.b]]\n[a.b.c]\n[[a.b]]", "a = 1\na = 2", "x = '''''a'''''",
		"vrrp = 1\nnode = [1]\n[[l4]]\nlisten = [1, \":80\"]", "[a]\n[b\nc = 1\n[d]\ne = [\n1\n2\n]\nf = 3",
	} {
		f.Add(text)
	}
}
