package config

import (
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"appliance/l7"
)

const examplePath = "../../appliance.toml.example"

// commented is a line of the example that is a key behind its #.
var commented = regexp.MustCompile(`(?m)^#([a-z_]+ *=)`)

// exampleTexts returns the example as it is and with all commented keys set.
func exampleTexts(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(examplePath)
	if err != nil {
		t.Fatal(err)
	}
	all := commented.ReplaceAllString(string(text), "$1")
	if all == string(text) {
		t.Fatal("no line of the example is a commented key")
	}
	return map[string]string{"as it is": string(text), "all keys set": all}
}

func TestExampleIsValid(t *testing.T) {
	for name, text := range exampleTexts(t) {
		f, err := Parse("appliance.toml.example", []byte(text))
		if err != nil {
			t.Errorf("%s:\n%v", name, err)
			continue
		}
		for _, node := range []string{"lb01", "lb02"} {
			if _, err := f.ForNode(node); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// Whoever follows the README or docs/migrating.md copies their files.
func TestFilesOfTheDocumentsAreValid(t *testing.T) {
	blocks := tomlBlocks(t, "../../README.md")
	for _, block := range blocks {
		mustSuit(t, block, "lb01", "lb02")
	}
	blocks = tomlBlocks(t, "../../docs/migrating.md")
	if len(blocks) != 2 {
		t.Fatalf("docs/migrating.md shows %d files; the second one is to be the peer link", len(blocks))
	}
	mustSuit(t, blocks[0], "lb02")
	mustSuit(t, regexp.MustCompile(`(?m)^ *keepalived = .*$`).ReplaceAllString(blocks[0], "")+blocks[1], "lb01", "lb02")
}

// tomlBlocks returns the TOML that a document shows.
func tomlBlocks(t *testing.T, path string) (texts []string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?ms)^ *```toml\n(.*?)^ *```$").FindAllSubmatch(text, -1) {
		texts = append(texts, string(block[1]))
	}
	if len(texts) == 0 {
		t.Fatalf("%s shows no file", path)
	}
	return texts
}

// mustSuit fails the test unless a file is right for nodes.
func mustSuit(t *testing.T, text string, nodes ...string) {
	t.Helper()
	f, err := Parse("f.toml", []byte(text))
	if err != nil {
		t.Errorf("%v\n%s", err, text)
		return
	}
	for _, node := range nodes {
		if n, err := f.ForNode(node); err != nil || len(n.VRRP) == 0 || len(n.Pools) == 0 {
			t.Errorf("node %s: %+v, %v", node, n, err)
		}
	}
}

// The example claims that its commented keys show the defaults.
func TestExampleShowsTheDefaults(t *testing.T) {
	texts := exampleTexts(t)
	var nodes []*Node
	for _, name := range []string{"as it is", "all keys set"} {
		f, err := Parse(name, []byte(texts[name]))
		if err != nil {
			t.Fatal(err)
		}
		n, err := f.ForNode("lb01")
		if err != nil {
			t.Fatal(err)
		}
		for i := range n.VRRP {
			n.VRRP[i].Interface = "" // has no fixed default
		}
		nodes = append(nodes, n)
	}
	plain, set := nodes[0], nodes[1]
	same := func(what string, a, b any) {
		t.Helper()
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s: by default\n%+v\nas shown\n%+v", what, a, b)
		}
	}
	same("vrrp", plain.VRRP, set.VRRP)
	set.Admin.Allow = nil // has no default
	same("admin", plain.Admin, set.Admin)
	same("handover", plain.Handover, set.Handover)
	for i, s := range plain.L4 {
		a, b := s.Timeouts, set.L4[i].Timeouts
		same("l4 timeouts", []any{a.EffectiveConnect(), a.EffectiveIdle(), a.EffectiveHalfClose()},
			[]any{b.EffectiveConnect(), b.EffectiveIdle(), b.EffectiveHalfClose()})
	}
	for i, s := range plain.L7 {
		other := set.L7[i]
		a, b := s.Timeouts, other.Timeouts
		same("l7 timeouts", []any{a.EffectiveHeader(), a.EffectiveIdle(), a.EffectiveConnect(), a.EffectiveResponse()},
			[]any{b.EffectiveHeader(), b.EffectiveIdle(), b.EffectiveConnect(), b.EffectiveResponse()})
		same("max_header_size", s.EffectiveMaxHeaderSize(), other.EffectiveMaxHeaderSize())
		h, g := s.HTTP2, other.HTTP2
		same("http2", []any{h.EffectiveEnabled(s.TLS != nil), h.EffectiveMaxStreams(), h.EffectiveWindow(), h.EffectiveMaxNuisance()},
			[]any{g.EffectiveEnabled(s.TLS != nil), g.EffectiveMaxStreams(), g.EffectiveWindow(), g.EffectiveMaxNuisance()})
		if s.Redirect != nil {
			same("redirect status", s.Redirect.EffectiveStatus(), other.Redirect.EffectiveStatus())
		}
	}
	o, p := plain.Pools["mysql"].Outlier, set.Pools["mysql"].Outlier
	same("outlier", []any{o.EffectiveConsecutiveFailures(), o.EffectiveBase(), o.EffectiveMax(), o.EffectiveMaxEjectedPercent()},
		[]any{p.EffectiveConsecutiveFailures(), p.EffectiveBase(), p.EffectiveMax(), p.EffectiveMaxEjectedPercent()})
	a, b := plain.Pools["mysql"].Check, set.Pools["mysql"].Check
	same("check", []any{a.EffectiveInterval(), a.EffectiveTimeout(), a.EffectiveJitter(), a.EffectiveRise(), a.EffectiveFall()},
		[]any{b.EffectiveInterval(), b.EffectiveTimeout(), b.EffectiveJitter(), b.EffectiveRise(), b.EffectiveFall()})
}

// chosenName matches paths that end in a name of the user's choice.
var chosenName = regexp.MustCompile(`^(node|pool)\.\w+|^vrrp\.priority\.\w+`)

func TestExampleHasEveryKey(t *testing.T) {
	shown := make(map[string]bool)
	for path := range scan(exampleTexts(t)["all keys set"]).explicit {
		path = withoutIndexes(path)
		path = chosenName.ReplaceAllStringFunc(path, func(s string) string { return s[:strings.LastIndex(s, ".")] + ".NAME" })
		shown[path] = true
	}
	known := make(map[string]bool)
	collectKeys(reflect.TypeFor[File](), "", known)
	if len(known) < 60 {
		t.Fatalf("only %d keys are known: %v", len(known), slices.Sorted(maps.Keys(known)))
	}
	for _, path := range slices.Sorted(maps.Keys(known)) {
		if !shown[path] {
			t.Errorf("the example does not show %s", path)
		}
	}
}

// allowAbsent are keys the example need not show, because they are those of
// another table, which it refers to, or are refused in theirs.
func allowAbsent(path string) bool {
	for _, p := range []string{"l4.servers.", "l7.servers.", "l4.check.", "l7.check.", "l7.redirect.to", "l7.route.per_client.max_connections"} {
		if strings.HasPrefix(path, p) {
			return true
		}
	}
	// The rules of a service are those of its routes.
	rest, ok := strings.CutPrefix(path, "l7.")
	return ok && slices.ContainsFunc(fieldsOf(reflect.TypeFor[l7.Rules]()), func(f field) bool { return within(rest, f.name) })
}

// collectKeys adds the paths of all keys that a type knows to known.
func collectKeys(t reflect.Type, path string, known map[string]bool) {
	if _, isString := stringReaders[t]; isString {
		return
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		collectKeys(t.Elem(), path, known)
	case reflect.Map:
		collectKeys(t.Elem(), path+".NAME", known)
	case reflect.Struct:
		for _, f := range fieldsOf(t) {
			at := strings.TrimPrefix(path+"."+f.name, ".")
			if allowAbsent(at) {
				continue
			}
			known[at] = true
			collectKeys(t.FieldByIndex(f.index).Type, at, known)
		}
	}
}
