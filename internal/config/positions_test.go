package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

func TestScan(t *testing.T) {
	tests := []struct {
		name string
		text string
		want string // path line:column, in any order, blanks between
	}{
		{"table and key", "[node.lb01]\n  priority = 1\n", "node 1:2; node.lb01 1:2; node.lb01.priority 2:3"},
		{"arrays of tables", "[[l7]]\nname = 'a'\n[[l7.route]]\npool = 'p'\n[[l7.route]]\n[l7.tls]\n[[l7]]\n[[ l7 . route ]]\n",
			"l7 1:3; l7[0] 1:3; l7[0].name 2:1; l7[0].route 3:3; l7[0].route[0] 3:3; l7[0].route[0].pool 4:1; " +
				"l7[0].route[1] 5:3; l7[0].tls 6:2; l7[1] 7:3; l7[1].route 8:4; l7[1].route[0] 8:4"},
		{"dotted keys", "a.b . c = 1\na.d = 2\n", "a 1:1; a.b 1:1; a.b.c 1:1; a.d 2:1"},
		{"a table after its child", "[a.b]\n[a]\nc = 1\n", "a 2:2; a.b 1:2; a.c 3:1"},
		{"inline tables", "x = { a = 1, b.c = { d = [] } }\n", "x 1:1; x.a 1:7; x.b 1:14; x.b.c 1:14; x.b.c.d 1:22"},
		{"arrays", "x = [ # one\n  1, # two, [3\n  [ 2, { a = 3 } ],\n]\ny = 1\n",
			"x 1:1; x[0] 2:3; x[1] 3:3; x[1][0] 3:5; x[1][1] 3:8; x[1][1].a 3:10; y 5:1"},
		{"quoted keys", `"a.b" = 1` + "\n" + `'c d'."\u00e9\"" = 2` + "\n" + `"" = 3`,
			`"a.b" 1:1; "c d" 2:1; "c d"."é\"" 2:1; "" 3:1`},
		{"strings", "a = \"]}#'\\\"\" \nb = ['\"', \"'\"]\nc = 1\n", "a 1:1; b 2:1; b[0] 2:6; b[1] 2:11; c 3:1"},
		{"multi-line strings", "a = \"\"\"\nx = 1 \\\"\"\" \"\"\"\"\nb = '''\n[y]\n''z'''''\nc = 1\n", "a 1:1; b 3:1; c 6:1"},
		{"comments", "# [a]\n[b] # [c]\n# d = 1\ne = 1 # f = 2\n", "b 2:2; b.e 4:1"},
		{"CRLF", "[a]\r\nb = 1\r\nc = [\r\n1]\r\n", "a 1:2; a.b 2:1; a.c 3:1; a.c[0] 4:1"},
		{"columns count characters", "x = [\"äöü\", 1]\n", "x 1:1; x[0] 1:6; x[1] 1:13"},
		{"dates and floats", "a = [1979-05-27 07:32:00, 1e5, -inf]\nb = 07:32:00\n", "a 1:1; a[0] 1:6; a[1] 1:27; a[2] 1:32; b 2:1"},
		{"no newline at the end", "a = 1", "a 1:1"},
		{"empty", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var tree map[string]any
			if _, err := toml.Decode(tt.text, &tree); err != nil {
				t.Fatalf("the test is wrong: %v", err)
			}
			found := scan(tt.text)
			want := make(map[string]bool)
			for w := range strings.SplitSeq(tt.want, "; ") {
				if w != "" {
					want[w] = true
				}
			}
			for path, offset := range found.explicit {
				line, column := found.at(offset)
				got := fmt.Sprintf("%s %d:%d", path, line, column)
				if !want[got] {
					t.Errorf("unexpected %s", got)
				}
				delete(want, got)
			}
			for w := range want {
				t.Errorf("missing %s", w)
			}
		})
	}
}

func TestPaths(t *testing.T) {
	path := join(index(join(join("", "pool"), "a.b[0]"), 3), "x")
	want := []string{`pool."a.b[0]"[3].x`, `pool."a.b[0]"[3]`, `pool."a.b[0]"`, "pool", ""}
	for i, w := range want {
		if path != w {
			t.Errorf("step %d: got %s, want %s", i, path, w)
		}
		path = parent(path)
	}
	for _, tt := range []struct {
		path, outer string
		want        bool
	}{
		{"a.b", "a", true}, {"a[0]", "a", true}, {"a", "a", true}, {"ab", "a", false}, {"a", "a.b", false}, {"a", "", true},
	} {
		if got := within(tt.path, tt.outer); got != tt.want {
			t.Errorf("within(%q, %q) = %v", tt.path, tt.outer, got)
		}
	}
}
