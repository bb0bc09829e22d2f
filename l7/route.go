package l7

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"appliance/internal/pool"
)

// target is where a request goes: to a pool or, if that is nil, elsewhere by a
// redirect.
type target struct {
	pool     *pool.Pool
	redirect *Redirect
}

// rule is one path of one route.
type rule struct {
	path   string // normalised; "": any
	target *target
}

func (r rule) matches(path string) bool {
	rest, ok := strings.CutPrefix(path, r.path)
	return ok && (rest == "" || r.path == "" || r.path == "/" || rest[0] == '/')
}

// table is the routes of a service, ready for looking up. Each slice has the
// longest path first, and the earlier route first among equals.
type table struct {
	exact    map[string][]rule // by host
	wildcard map[string][]rule // by what follows the "*": ".example.com"
	any      []rule
	fallback *target // nil: 404
}

// newTable builds the routes of a service from its configuration.
func newTable(cfg Config, pools map[string]*pool.Pool) (*table, error) {
	t := &table{exact: make(map[string][]rule), wildcard: make(map[string][]rule)}
	for i, r := range cfg.Routes {
		to, err := newTarget(r.Pool, r.Redirect, pools)
		if err != nil {
			return nil, fmt.Errorf("route[%d]: %w", i, err)
		}
		t.add(r, to)
	}
	var err error
	switch {
	case cfg.Redirect != nil:
		t.fallback, err = newTarget("", cfg.Redirect, pools)
	case cfg.Pool != "":
		t.fallback, err = newTarget(cfg.Pool, nil, pools)
	case len(cfg.Servers) > 0:
		t.fallback, err = newTarget(cfg.Name, nil, pools)
	}
	if err != nil {
		return nil, err
	}
	for _, rules := range t.exact {
		sortRules(rules)
	}
	for _, rules := range t.wildcard {
		sortRules(rules)
	}
	sortRules(t.any)
	return t, nil
}

func newTarget(name string, redirect *Redirect, pools map[string]*pool.Pool) (*target, error) {
	if redirect != nil {
		return &target{redirect: redirect}, nil
	}
	p, ok := pools[name]
	if !ok {
		return nil, fmt.Errorf("unknown pool %q", name)
	}
	return &target{pool: p}, nil
}

func sortRules(rules []rule) {
	slices.SortStableFunc(rules, func(a, b rule) int { return cmp.Compare(len(b.path), len(a.path)) })
}

// add enters one route, in all its hosts and paths.
func (t *table) add(r Route, to *target) {
	var rules []rule
	for _, p := range r.Paths {
		rules = append(rules, rule{normalPath(p), to})
	}
	if len(rules) == 0 {
		rules = []rule{{"", to}}
	}
	if len(r.Hosts) == 0 {
		t.any = append(t.any, rules...)
	}
	for _, h := range r.Hosts {
		h = strings.ToLower(h)
		if suffix, ok := strings.CutPrefix(h, "*"); ok {
			t.wildcard[suffix] = append(t.wildcard[suffix], rules...)
		} else {
			t.exact[h] = append(t.exact[h], rules...)
		}
	}
}

// find returns where a request for that host, in the form of normalHost, and
// target goes, nil if nowhere. "", which is no host, is not matched by routes
// with a host.
func (t *table) find(host, requestTarget string) *target {
	hosts := len(t.exact) + len(t.wildcard)
	if hosts+len(t.any) == 0 {
		return t.fallback
	}
	path := normalPath(requestTarget)
	if host != "" && hosts > 0 {
		if to := match(t.exact[host], path); to != nil {
			return to
		}
		// From the longest suffix to the shortest.
		for dot := strings.IndexByte(host, '.'); dot >= 0; {
			if to := match(t.wildcard[host[dot:]], path); to != nil {
				return to
			}
			next := strings.IndexByte(host[dot+1:], '.')
			if next < 0 {
				break
			}
			dot += 1 + next
		}
	}
	if to := match(t.any, path); to != nil {
		return to
	}
	return t.fallback
}

func match(rules []rule, path string) *target {
	for _, r := range rules {
		if r.matches(path) {
			return r.target
		}
	}
	return nil
}

// location returns the value of the Location field with which r answers a
// request; ok is false if the request has no host or target to redirect to.
// Both are checked: a Host that is no host would make the answer lead anywhere.
func (r Redirect) location(hostport, requestTarget string) (location string, ok bool) {
	host, ok := normalHost(hostport)
	if !ok || !strings.HasPrefix(requestTarget, "/") {
		return "", false
	}
	defaultPort := map[string]int{"http": 80, "https": 443}[r.Scheme]
	if r.Port != 0 && r.Port != defaultPort {
		host = fmt.Sprintf("%s:%d", host, r.Port)
	}
	return r.Scheme + "://" + host + requestTarget, true
}
