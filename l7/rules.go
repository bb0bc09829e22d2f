package l7

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
)

// Rules say what is done with requests and answers on their way. Those of a
// service hold for all its routes, key by key, as far as a route does not have
// the same key.
type Rules struct {
	// RequestHeaders change the fields that a server gets.
	RequestHeaders *HeaderRules `toml:"request_headers"`
	// ResponseHeaders change the fields that a client gets, with every final
	// answer, also those of our own.
	ResponseHeaders *HeaderRules `toml:"response_headers"`
	// ErrorPages are files, by status, that are shown for errors of our own.
	ErrorPages map[string]string `toml:"error_pages"`
	// Maintenance is shown when no server is usable.
	Maintenance *Maintenance `toml:"maintenance"`
}

// or returns r with the keys that it lacks taken from others.
func (r Rules) or(others Rules) Rules {
	own, theirs := reflect.ValueOf(&r).Elem(), reflect.ValueOf(others)
	for i := range own.NumField() {
		if own.Field(i).IsZero() {
			own.Field(i).Set(theirs.Field(i))
		}
	}
	return r
}

func (r Rules) validate(at string, problem func(key, message string)) {
	r.RequestHeaders.validate(at+"request_headers", problem)
	r.ResponseHeaders.validate(at+"response_headers", problem)
	for key := range r.ErrorPages {
		if _, err := errorStatus(key); err != nil {
			problem(at+"error_pages."+quoteKey(key), err.Error())
		}
	}
	if r.Maintenance != nil && r.Maintenance.Page == "" {
		problem(at+"maintenance.page", "a maintenance page needs a file")
	}
}

// eachFile calls visit for every file that the rules name.
func (r *Rules) eachFile(at string, visit func(key string, path *string)) {
	for _, status := range sortedKeys(r.ErrorPages) {
		path := r.ErrorPages[status]
		visit(at+"error_pages."+quoteKey(status), &path)
		r.ErrorPages[status] = path
	}
	if r.Maintenance != nil {
		visit(at+"maintenance.page", &r.Maintenance.Page)
	}
}

// rules are Rules, compiled.
type rules struct {
	request, response *headerEdits
	pages             map[int]*page
	maintenance       *maintenance
}

// newRules compiles rules, nil if there are none.
func newRules(cfg Rules) (*rules, error) {
	if reflect.ValueOf(cfg).IsZero() {
		return nil, nil
	}
	r := &rules{}
	var err error
	if r.request, err = newHeaderEdits(cfg.RequestHeaders); err != nil {
		return nil, fmt.Errorf("request_headers: %w", err)
	}
	if r.response, err = newHeaderEdits(cfg.ResponseHeaders); err != nil {
		return nil, fmt.Errorf("response_headers: %w", err)
	}
	for key, path := range cfg.ErrorPages {
		status, err := errorStatus(key)
		if err != nil {
			return nil, fmt.Errorf("error_pages: %w", err)
		}
		if r.pages == nil {
			r.pages = make(map[int]*page)
		}
		if r.pages[status], err = loadPage(path); err != nil {
			return nil, fmt.Errorf("error_pages: %w", err)
		}
	}
	if r.maintenance, err = newMaintenance(cfg.Maintenance); err != nil {
		return nil, err
	}
	return r, nil
}

// ruled carries out an exchange that rules are for.
func (p *pipeline) ruled(ctx context.Context, st *state, to *target, ex *exchange) error {
	r := to.rules
	if m := r.maintenance; m != nil && m.active && to.pool != nil {
		return p.maintain(ex, m)
	}
	return p.carry(ctx, st, to, ex)
}

// onRequest changes the fields that a server gets.
func (r *rules) onRequest(ex *exchange) {
	if r.request == nil {
		return
	}
	ex.out.request = r.request.apply(ex.out.request, ex)
	if r.request.host != nil {
		ex.out.host = r.request.host.fill(ex)
	}
}

// writeHead sends the head of a final answer, which is the caller's, as the rules
// want it.
func (p *pipeline) writeHead(ex *exchange, status int, head fields) error {
	if r := ex.rules; r != nil && status >= http.StatusOK {
		if r.response != nil {
			head = r.response.apply(head, ex)
		}
	}
	return ex.answer.WriteHead(status, head)
}
