package l7

import (
	"fmt"
	"strings"

	"appliance/internal/pool"
)

// target is where a request goes and what is done with it: to a pool or, if that
// is nil, elsewhere.
type target struct {
	pool     *pool.Pool
	up       *upstream // of the pool
	redirect *Redirect
	location template // of a redirect with To
	respond  *fixed
	files    *static
	path     *pathEdit // nil: the path stays
	rules    *rules    // nil: there are none
	label    string    // for the access log; "": what no route matches
}

// table is the routes of a service, ready for looking up. Each slice has the
// longest path first, and the earlier route first among equals.
type table struct {
	exact    map[string][]rule // by host
	wildcard map[string][]rule // by what follows the "*": ".example.com"
	any      []rule
	fallback *target // nil: 404
	own      *rules  // of the service, for what no route matches

	targets []*target           // all that there are
	rules   []*rules            // all that there are
	limits  map[string]*clients // by what they are for, see inherit
}

// newTable builds the routes of a service from its configuration.
func newTable(cfg Config, pools map[string]*pool.Pool) (*table, error) {
	t := &table{exact: make(map[string][]rule), wildcard: make(map[string][]rule), limits: make(map[string]*clients)}
	var err error
	if t.own, err = newRules(cfg.Rules, pools); err != nil {
		return nil, err
	}
	t.note("", cfg.PerClient, t.own)
	for i, r := range cfg.Routes {
		to, err := newTarget(r, cfg.Rules, t.own, pools)
		if err == nil {
			t.targets = append(t.targets, to)
			t.note(fmt.Sprintf("%q %q %q %q %q", r.Hosts, r.Paths, r.Methods, r.Headers, r.Query), r.PerClient, to.rules)
			err = t.add(r, to)
		}
		if err != nil {
			return nil, fmt.Errorf("route[%d]: %w", i, err)
		}
	}
	rest := Route{Pool: cfg.Pool, Redirect: cfg.Redirect}
	if rest.Pool == "" && len(cfg.Servers) > 0 {
		rest.Pool = cfg.Name
	}
	if rest.Pool != "" || rest.Redirect != nil {
		if t.fallback, err = newTarget(rest, cfg.Rules, t.own, pools); err != nil {
			return nil, err
		}
		t.targets = append(t.targets, t.fallback)
		t.note("", nil, t.fallback.rules)
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

// note remembers rules, and what the bound for clients that they have of their
// own is for.
func (t *table) note(of string, own *PerClient, r *rules) {
	if r == nil {
		return
	}
	t.rules = append(t.rules, r)
	if own != nil && r.clients != nil {
		t.limits[of] = r.clients
	}
}

// connect gives all that goes to a pool the upstream to it.
func (t *table) connect(upstreamTo func(*pool.Pool) *upstream) {
	for _, to := range t.targets {
		if to.pool != nil {
			to.up = upstreamTo(to.pool)
		}
	}
	for _, r := range t.rules {
		if r.forwardAuth != nil {
			r.forwardAuth.up = upstreamTo(r.forwardAuth.pool)
		}
	}
}

// inherit goes on counting where the table before left off, for the service and
// for routes that match the same requests, if the bounds are the same: a reload is
// no reason to let a client begin anew.
func (t *table) inherit(before *table) {
	for of, c := range t.limits {
		old := before.limits[of]
		if old == nil || old.limit != c.limit {
			continue
		}
		t.limits[of] = old
		for _, r := range t.rules {
			if r.clients == c {
				r.clients = old
			}
		}
	}
}

// newTarget compiles what a route does; common are the rules of its service, and
// own the same, compiled.
func newTarget(r Route, common Rules, own *rules, pools map[string]*pool.Pool) (*target, error) {
	to := &target{redirect: r.Redirect, label: r.label()}
	var err error
	if to.rules, err = newRules(r.Rules.or(common), pools); err != nil {
		return nil, err
	}
	if own != nil {
		// What routes share they count and remember together.
		if r.PerClient == nil {
			to.rules.clients = own.clients
		}
		if r.BasicAuth == nil {
			to.rules.basicAuth = own.basicAuth
		}
		if r.Compress == nil {
			to.rules.compress = own.compress
		}
	}
	if to.path, err = newPathEdit(r); err != nil {
		return nil, err
	}
	switch {
	case r.Redirect != nil:
		to.location, err = newTemplate(r.Redirect.To)
		return to, err
	case r.Respond != nil:
		to.respond = newFixed(r.Respond)
		return to, nil
	case r.Files != nil:
		to.files = &static{root: r.Files.Root, index: r.Files.EffectiveIndex()}
		if r.Pool == "" {
			return to, nil
		}
	}
	p, ok := pools[r.Pool]
	if !ok {
		return nil, fmt.Errorf("unknown pool %q", r.Pool)
	}
	to.pool = p
	return to, nil
}

// label returns the first host and path of a route, by which people know it.
func (r Route) label() string {
	label := ""
	if len(r.Hosts) > 0 {
		label = strings.ToLower(r.Hosts[0])
	}
	if len(r.Paths) > 0 {
		label += r.Paths[0]
	}
	return label
}

// add enters one route, in all its hosts and paths.
func (t *table) add(r Route, to *target) error {
	conditions, err := newConditions(r)
	if err != nil {
		return err
	}
	var rules []rule
	for _, p := range r.Paths {
		one, err := newRule(p)
		if err != nil {
			return err
		}
		rules = append(rules, one)
	}
	if len(rules) == 0 {
		rules = []rule{{kind: pathPrefix}}
	}
	for i := range rules {
		rules[i].conditions, rules[i].target = conditions, to
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
	return nil
}

// find returns where a request for that host, in the form of normalHost, goes,
// nil if nowhere. "", which is no host, is not matched by routes with a host.
func (t *table) find(host string, ex *exchange) *target {
	hosts := len(t.exact) + len(t.wildcard)
	if hosts+len(t.any) == 0 {
		return t.fallback
	}
	path := normalPath(ex.target)
	if host != "" && hosts > 0 {
		if to := match(t.exact[host], path, ex); to != nil {
			return to
		}
		// From the longest suffix to the shortest.
		for dot := strings.IndexByte(host, '.'); dot >= 0; {
			if to := match(t.wildcard[host[dot:]], path, ex); to != nil {
				return to
			}
			next := strings.IndexByte(host[dot+1:], '.')
			if next < 0 {
				break
			}
			dot += 1 + next
		}
	}
	if to := match(t.any, path, ex); to != nil {
		return to
	}
	return t.fallback
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
