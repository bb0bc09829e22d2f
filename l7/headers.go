package l7

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"appliance/l7/http1"
)

// HeaderRules change the fields of a head: first those of Remove go, then those
// of Set take the place of all of their name, then those of Add come in addition.
// The values may have variables; one that is empty then is left out.
type HeaderRules struct {
	Set    map[string]string `toml:"set"`
	Add    map[string]string `toml:"add"`
	Remove []string          `toml:"remove"`
}

func (h *HeaderRules) validate(at string, problem func(key, message string)) {
	if h == nil {
		return
	}
	for i, name := range h.Remove {
		if err := ruledField(name); err != nil {
			problem(fmt.Sprintf("%s.remove[%d]", at, i), err.Error())
		}
	}
	for key, values := range map[string]map[string]string{"set": h.Set, "add": h.Add} {
		for name, value := range values {
			err := ruledField(name)
			if err == nil {
				err = validText(value)
			}
			if err == nil {
				_, err = newTemplate(value)
			}
			if err != nil {
				problem(at+"."+key+"."+quoteKey(name), err.Error())
			}
		}
	}
}

// ruledField returns why a rule may not touch a field: it is none, or is what
// the wire decides about.
func ruledField(name string) error {
	if !http1.IsToken(name) {
		return fmt.Errorf("%q is no name of a field", name)
	}
	if k := kindOf(name); k != kindPlain && k != kindStatement || strings.EqualFold(name, "Content-Length") {
		return fmt.Errorf("%s tells where a message ends or what the next hop may do; no rule changes it", name)
	}
	return nil
}

// validText reports a text that cannot be a field's value.
func validText(value string) error {
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return fmt.Errorf("%q has a control character; a field's value cannot", value)
	}
	if strings.TrimSpace(value) != value {
		return fmt.Errorf("%q begins or ends with a blank; a field's value cannot", value)
	}
	return nil
}

// quoteKey returns a name as a path of keys has it.
func quoteKey(name string) string {
	for _, c := range []byte(name) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return fmt.Sprintf("%q", name)
		}
	}
	return name
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// headerEdits are header rules, compiled.
type headerEdits struct {
	// without takes the fields of a name away: with a request's go those that servers
	// may take for them.
	without func(fs fields, name string) fields
	remove  []string // those that are set included
	add     []headerEdit
	host    *template // what Host is set to; it is not among a request's fields
	// identity are those that tell who the client has proved to be; nil: none.
	identity *headerEdits
}

type headerEdit struct {
	name  string
	value template
}

// newHeaderEdits compiles rules that validate found no fault with.
func newHeaderEdits(h *HeaderRules, without func(fs fields, name string) fields) (*headerEdits, error) {
	if h == nil {
		return nil, nil
	}
	e := &headerEdits{without: without, remove: slices.Clone(h.Remove)}
	for _, values := range []map[string]string{h.Set, h.Add} {
		for _, name := range sortedKeys(values) {
			value, err := newTemplate(values[name])
			if err != nil {
				return nil, err
			}
			if strings.EqualFold(name, "Host") {
				e.host = &value
				continue
			}
			e.add = append(e.add, headerEdit{name, value})
		}
	}
	e.remove = append(e.remove, sortedKeys(h.Set)...)
	for _, name := range sortedKeys(h.Set) {
		if tellsWho(h.Set[name]) {
			e.identity = e.identity.with(e, name)
		}
	}
	return e, nil
}

// with returns e, nil if it is empty, with the edits of all that are for the field
// of that name.
func (e *headerEdits) with(all *headerEdits, name string) *headerEdits {
	if e == nil {
		e = &headerEdits{without: all.without}
	}
	e.remove = append(e.remove, name)
	for _, edit := range all.add {
		if edit.name == name {
			e.add = append(e.add, edit)
		}
	}
	return e
}

// apply changes fs, which is the caller's, and returns it.
func (e *headerEdits) apply(fs fields, ex *exchange) fields {
	for _, name := range e.remove {
		fs = e.without(fs, name)
	}
	for i := range e.add {
		if value := e.add[i].value.fill(ex); value != "" {
			fs = append(fs, field{Name: e.add[i].name, Value: value})
		}
	}
	return fs
}

// without removes all fields of that name from f, which is the caller's.
func (f fields) without(name string) fields {
	return slices.DeleteFunc(f, func(f field) bool { return strings.EqualFold(f.Name, name) })
}

// withoutLike is without, also of what a server may take for a field of that name.
func (f fields) withoutLike(name string) fields {
	return slices.DeleteFunc(f, func(f field) bool { return sameVariable(f.Name, name) })
}
