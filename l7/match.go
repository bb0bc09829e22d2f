package l7

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// The ways in which a path of a route is compared, in the order in which they
// are tried.
const (
	pathExact = iota
	pathRegexp
	pathPrefix
)

// rule is one path of one route.
type rule struct {
	kind       int
	path       string // normalised; "": any
	re         *regexp.Regexp
	conditions *conditions // nil: none
	target     *target
}

// newRule reads a path as a route has it: "= /x" is that path alone, "~ x" a
// regular expression, all others are prefixes.
func newRule(path string) (rule, error) {
	if exact, ok := strings.CutPrefix(path, "="); ok {
		exact = strings.TrimSpace(exact)
		if !strings.HasPrefix(exact, "/") {
			return rule{}, fmt.Errorf("%q does not begin with a slash behind the =", path)
		}
		return rule{kind: pathExact, path: normalPath(exact)}, nil
	}
	if expr, ok := strings.CutPrefix(path, "~"); ok {
		re, err := compileRegexp(strings.TrimSpace(expr))
		return rule{kind: pathRegexp, re: re}, err
	}
	if !strings.HasPrefix(path, "/") {
		return rule{}, fmt.Errorf("%q does not begin with a slash; \"= /x\" is one path alone, \"~ ^/x\" a regular expression", path)
	}
	return rule{kind: pathPrefix, path: normalPath(path)}, nil
}

// compileRegexp compiles a regular expression of the file. Its dot matches a line
// feed too, or one in a path would let the request slip past.
func compileRegexp(expr string) (*regexp.Regexp, error) {
	if expr == "" {
		return nil, errors.New("the regular expression is empty")
	}
	re, err := regexp.Compile("(?s)" + expr)
	if err != nil {
		return nil, fmt.Errorf("%q is no regular expression: %s (the syntax is RE2)", expr, strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return re, nil
}

// sortRules puts the rules in the order in which they are tried: exact paths,
// regular expressions as the file has them, prefixes with the longest first; the
// earlier route first among equals.
func sortRules(rules []rule) {
	slices.SortStableFunc(rules, func(a, b rule) int {
		if a.kind != b.kind || a.kind != pathPrefix {
			return cmp.Compare(a.kind, b.kind)
		}
		return cmp.Compare(len(b.path), len(a.path))
	})
}

// match returns where the first rule leads that a request satisfies.
func match(rules []rule, path string, ex *exchange) *target {
	for i := range rules {
		if r := &rules[i]; r.matches(path) && (r.conditions == nil || r.conditions.hold(ex)) {
			return r.target
		}
	}
	return nil
}

func (r *rule) matches(path string) bool {
	switch r.kind {
	case pathExact:
		return path == r.path
	case pathRegexp:
		return r.re.MatchString(path)
	}
	rest, ok := strings.CutPrefix(path, r.path)
	return ok && (rest == "" || r.path == "" || r.path == "/" || rest[0] == '/')
}

// conditions are what a route asks of a request besides its host and path.
type conditions struct {
	methods []string
	headers []wanted
	query   []wanted
}

// wanted is a field or a parameter with the value that it must have.
type wanted struct {
	name  string
	value string         // "*": any
	re    *regexp.Regexp // instead of value
}

// newConditions compiles those of a route, nil if it has none.
func newConditions(r Route) (*conditions, error) {
	if len(r.Methods)+len(r.Headers)+len(r.Query) == 0 {
		return nil, nil
	}
	c := &conditions{methods: r.Methods}
	var err error
	if c.headers, err = newWanted(r.Headers); err == nil {
		c.query, err = newWanted(r.Query)
	}
	return c, err
}

func newWanted(values map[string]string) ([]wanted, error) {
	var list []wanted
	for _, name := range sortedKeys(values) {
		w := wanted{name: name, value: values[name]}
		if expr, ok := strings.CutPrefix(w.value, "~"); ok {
			re, err := compileRegexp(strings.TrimSpace(expr))
			if err != nil {
				return nil, err
			}
			w.re = re
		}
		list = append(list, w)
	}
	return list, nil
}

func (w *wanted) is(value string) bool {
	if w.re != nil {
		return w.re.MatchString(value)
	}
	return w.value == "*" || w.value == value
}

// hold reports whether ex satisfies all of them.
func (c *conditions) hold(ex *exchange) bool {
	if len(c.methods) > 0 && !slices.Contains(c.methods, ex.method) &&
		(ex.method != http.MethodHead || !slices.Contains(c.methods, http.MethodGet)) {
		return false
	}
	for i := range c.headers {
		if w := &c.headers[i]; !slices.ContainsFunc(ex.fields, func(f field) bool { return strings.EqualFold(f.Name, w.name) && w.is(f.Value) }) {
			return false
		}
	}
	for i := range c.query {
		if !c.query[i].inQuery(ex.target) {
			return false
		}
	}
	return true
}

// inQuery reports whether a target has the wanted parameter.
func (w *wanted) inQuery(target string) bool {
	_, rest, more := strings.Cut(target, "?")
	for more {
		var pair string
		pair, rest, more = strings.Cut(rest, "&")
		name, value, _ := strings.Cut(pair, "=")
		if unescapeQuery(name) == w.name && w.is(unescapeQuery(value)) {
			return true
		}
	}
	return false
}

// unescapeQuery decodes a part of a query; what cannot be decoded stays.
func unescapeQuery(s string) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	if decoded, err := url.QueryUnescape(s); err == nil {
		return decoded
	}
	return s
}
