package config

import (
	"encoding"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// optionZero, in a toml tag behind the key's name, lets the key be given as 0 or
// "0s". Elsewhere the zero value stands for a default, and writing it down is a
// mistake.
const optionZero = "zero"

// treeDecoder is implemented by types that read their value themselves.
type treeDecoder interface {
	decodeTree(r *report, path string, v any)
}

// tableUnmarshaler is implemented by types outside of this package that are
// spelled as a table of strings.
type tableUnmarshaler interface {
	UnmarshalTable(table map[string]string) error
}

// defaulter is implemented by types whose defaults are not the zero value.
type defaulter interface{ setDefaults() }

// decode stores the value v of the tree, found at path, in dst and records what
// cannot be stored. It knows durations, addresses and their like, and takes
// int64 for a size in bytes, which the file spells "64KiB". An element that
// cannot be read keeps its place in its array, so that paths stay true.
func (r *report) decode(path string, v any, dst reflect.Value) {
	if dst.Kind() == reflect.Pointer {
		dst.Set(reflect.New(dst.Type().Elem()))
		r.decode(path, v, dst.Elem())
		return
	}
	if d, ok := dst.Addr().Interface().(defaulter); ok {
		d.setDefaults()
	}
	if d, ok := dst.Addr().Interface().(treeDecoder); ok {
		d.decodeTree(r, path, v)
		return
	}
	if u, ok := dst.Addr().Interface().(tableUnmarshaler); ok {
		r.decodeStrings(path, v, u)
		return
	}
	if read, ok := stringReaders[dst.Type()]; ok {
		r.decodeString(path, v, dst, read)
		return
	}
	if u, ok := dst.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if s, isString := v.(string); isString {
			if err := u.UnmarshalText([]byte(s)); err != nil {
				r.unreadable(path, "%v", err)
			}
			return
		}
	}
	r.decodeKind(path, v, dst)
}

// decodeString reads one of the types that the file spells as strings.
func (r *report) decodeString(path string, v any, dst reflect.Value, read stringReader) {
	s, ok := v.(string)
	if !ok {
		r.wrongType(path, v, dst.Type())
		return
	}
	value, err := read(s)
	if err != nil {
		r.unreadable(path, "%v", err)
		return
	}
	dst.Set(reflect.ValueOf(value))
}

// decodeStrings reads a table whose values are strings.
func (r *report) decodeStrings(path string, v any, u tableUnmarshaler) {
	table, ok := v.(map[string]any)
	if !ok {
		r.unreadable(path, "want a table of strings, got %s", typeName(v))
		return
	}
	texts := make(map[string]string, len(table))
	for _, name := range slices.Sorted(maps.Keys(table)) {
		text, ok := table[name].(string)
		if !ok {
			r.unreadable(join(path, name), "want a string, got %s", typeName(table[name]))
			return
		}
		texts[name] = text
	}
	if err := u.UnmarshalTable(texts); err != nil {
		r.unreadable(path, "%v", err)
	}
}

// decodeKind reads everything that is decided by its kind alone.
func (r *report) decodeKind(path string, v any, dst reflect.Value) {
	switch dst.Kind() {
	case reflect.Struct:
		if table, ok := v.(map[string]any); ok {
			r.decodeStruct(path, table, dst)
			return
		}
	case reflect.Map:
		if table, ok := v.(map[string]any); ok {
			r.decodeMap(path, table, dst)
			return
		}
	case reflect.Slice:
		if array, ok := elements(v); ok {
			dst.Set(reflect.MakeSlice(dst.Type(), len(array), len(array)))
			for i, element := range array {
				r.decode(index(path, i), element, dst.Index(i))
			}
			return
		}
	case reflect.String:
		if s, ok := v.(string); ok {
			dst.SetString(s)
			return
		}
	case reflect.Bool:
		if b, ok := v.(bool); ok {
			dst.SetBool(b)
			return
		}
	case reflect.Int:
		if i, ok := v.(int64); ok {
			dst.SetInt(i)
			return
		}
	}
	r.wrongType(path, v, dst.Type())
}

// elements returns the elements of an array, which the TOML library hands out
// in two types.
func elements(v any) ([]any, bool) {
	switch v := v.(type) {
	case []any:
		return v, true
	case []map[string]any:
		array := make([]any, len(v))
		for i, table := range v {
			array[i] = table
		}
		return array, true
	}
	return nil, false
}

func (r *report) decodeMap(path string, table map[string]any, dst reflect.Value) {
	dst.Set(reflect.MakeMapWithSize(dst.Type(), len(table)))
	for _, name := range slices.Sorted(maps.Keys(table)) {
		if name == "" {
			r.unreadable(join(path, name), "the name is empty")
			continue
		}
		value := reflect.New(dst.Type().Elem()).Elem()
		r.decode(join(path, name), table[name], value)
		dst.SetMapIndex(reflect.ValueOf(name), value)
	}
}

func (r *report) decodeStruct(path string, table map[string]any, dst reflect.Value) {
	known := fieldsOf(dst.Type())
	for _, name := range slices.Sorted(maps.Keys(table)) {
		at := join(path, name)
		i := slices.IndexFunc(known, func(f field) bool { return f.name == name })
		if i < 0 {
			r.unknownKey(path, name, known)
			continue
		}
		f := known[i]
		value := dst.FieldByIndex(f.index)
		before := len(r.problems)
		r.decode(at, table[name], value)
		if before == len(r.problems) && !f.zero && value.IsZero() {
			r.refuseZero(at, value)
		}
	}
}

// refuseZero reports a zero that was written down where it would count as left
// out.
func (r *report) refuseZero(path string, value reflect.Value) {
	switch value.Kind() {
	case reflect.String:
		r.unreadable(path, "must not be empty")
	case reflect.Int, reflect.Int64:
		r.unreadable(path, "must not be 0; leave the key out for its default")
	}
}

// unknownKey reports a key that the table at path does not have.
func (r *report) unknownKey(path, name string, known []field) {
	var names []string
	for _, f := range known {
		names = append(names, f.name)
	}
	at := join(path, name)
	if f, ok := foreignWord(path, name); ok {
		r.add(at, "unknown key; "+f.text)
		// That its own key is missing need not be said as well.
		if f.key != "" {
			r.bad = append(r.bad, join(path, f.key))
		}
		return
	}
	if meant, ok := closest(name, names); ok {
		r.add(at, "unknown key; did you mean "+meant+"?")
		// That the meant one is missing need not be said as well.
		r.bad = append(r.bad, join(path, meant))
		return
	}
	r.add(at, "unknown key; known here: "+strings.Join(names, ", "))
}

// field is one key that a struct knows.
type field struct {
	name  string
	index []int
	zero  bool
}

// fieldsOf returns the keys of a struct in the order of their fields. The keys
// of embedded structs are its own.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		tag, tagged := f.Tag.Lookup("toml")
		if f.Anonymous && !tagged {
			for _, inner := range fieldsOf(f.Type) {
				inner.index = append([]int{i}, inner.index...)
				fields = append(fields, inner)
			}
			continue
		}
		options := strings.Split(tag, ",")
		if !tagged || options[0] == "-" {
			continue
		}
		fields = append(fields, field{
			name:  options[0],
			index: []int{i},
			zero:  slices.Contains(options, optionZero),
		})
	}
	return fields
}

// wrongType reports that v is not of the type that the file spells want.
func (r *report) wrongType(path string, v any, want reflect.Type) {
	hint := ""
	if want.Kind() == reflect.Slice {
		switch v := v.(type) {
		case string:
			hint = `; write ["` + v + `"]`
		case map[string]any:
			if want.Elem().Kind() == reflect.Struct {
				hint = "; write [[" + withoutIndexes(path) + "]] for each"
			}
		}
	}
	r.unreadable(path, "want %s, got %s%s", describe(want), typeName(v), hint)
}

// describe names the type that a key wants, in the words of TOML.
func describe(t reflect.Type) string {
	if example, ok := stringExamples[t]; ok {
		return `a string such as "` + example + `"`
	}
	switch t.Kind() {
	case reflect.Struct:
		if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
			return "a string or a table"
		}
		return "a table"
	case reflect.Map:
		return "a table"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct && stringExamples[t.Elem()] == "" {
			return "an array of tables"
		}
		return "an array"
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "an integer"
	}
	return "a string"
}

// typeName names the type of a value of the tree, in the words of TOML.
func typeName(v any) string {
	switch v.(type) {
	case string:
		return "string"
	case int64:
		return "integer"
	case float64:
		return "float"
	case bool:
		return "boolean"
	case time.Time:
		return "date or time"
	case map[string]any:
		return "table"
	}
	return "array"
}
