package l7

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"
)

// Rewrite makes another path of one. Match is a regular expression for the path
// as routes compare it: decoded, without dot segments and slash at the end. What
// it matches becomes To, in which $1 or ${1} is what the first group matched. The
// query stays.
type Rewrite struct {
	Match string `toml:"match"`
	To    string `toml:"to"`
}

func (r *Rewrite) validate(at string, problem func(key, message string)) {
	if r == nil {
		return
	}
	if _, err := compileRegexp(r.Match); err != nil {
		problem(at+".match", err.Error())
	}
	if strings.ContainsAny(r.To, "?#") {
		problem(at+".to", fmt.Sprintf("%q has a ? or #; a path is rewritten, and its query stays", r.To))
	}
}

// pathEdit changes the path that a server or a folder is asked for.
type pathEdit struct {
	strip string // normalised; "": nothing
	re    *regexp.Regexp
	to    string
}

// newPathEdit compiles what a route says about its path, nil if that is nothing.
func newPathEdit(r Route) (*pathEdit, error) {
	if r.StripPrefix == "" && r.Rewrite == nil {
		return nil, nil
	}
	e := &pathEdit{}
	if r.StripPrefix != "" {
		e.strip = normalPath(r.StripPrefix)
	}
	if r.Rewrite != nil {
		re, err := compileRegexp(r.Rewrite.Match)
		if err != nil {
			return nil, fmt.Errorf("rewrite: %w", err)
		}
		e.re, e.to = re, r.Rewrite.To
	}
	return e, nil
}

func validateStripPrefix(at, prefix string, problem func(key, message string)) {
	if prefix != "" && (!strings.HasPrefix(prefix, "/") || normalPath(prefix) == "/" || strings.ContainsAny(prefix, "?#")) {
		problem(at, fmt.Sprintf("%q is no prefix of a path, such as \"/api\"", prefix))
	}
}

var errBadEscape = errors.New("the path has a malformed escape")

// apply returns the target with its path changed.
func (e *pathEdit) apply(target string) (string, error) {
	if !strings.HasPrefix(target, "/") {
		return target, nil
	}
	raw, query := target[:len(target)-lenQuery(target)], target[len(target)-lenQuery(target):]
	decoded, err := url.PathUnescape(raw)
	if err != nil {
		return "", errBadEscape // nobody knows what the server would take it for
	}
	clean := path.Clean(decoded)
	slash := clean != "/" && strings.HasSuffix(decoded, "/")
	if e.re == nil {
		// A path that says nothing in two ways keeps its own spelling.
		if rest, ok := cutPath(raw, e.strip); ok && (clean == decoded || slash && clean == decoded[:len(decoded)-1]) {
			return atLeastSlash(rest) + query, nil
		}
	}
	if rest, ok := cutPath(clean, e.strip); ok {
		clean = atLeastSlash(rest)
	}
	if e.re != nil {
		clean = path.Clean("/" + e.re.ReplaceAllString(clean, e.to))
	}
	if slash && clean != "/" {
		clean += "/"
	}
	return (&url.URL{Path: clean}).EscapedPath() + query, nil
}

// cutPath removes a prefix of whole segments.
func cutPath(p, prefix string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(p, prefix)
	return rest, ok && (rest == "" || rest[0] == '/')
}

func atLeastSlash(p string) string {
	if p == "" {
		return "/"
	}
	return p
}
