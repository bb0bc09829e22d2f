package l7

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"reflect"

	"appliance/internal/pool"
	"appliance/l7/accesslog"
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
	// InterceptErrors has these files shown in the place of a server's answers too.
	InterceptErrors bool `toml:"intercept_errors"`
	// Maintenance is shown when no server is usable.
	Maintenance *Maintenance `toml:"maintenance"`
	// MaxBodySize bounds a request's body, in bytes; a larger one is answered 413.
	// Default: none is too large.
	MaxBodySize int64 `toml:"max_body_size"`
	// PerClient bounds what one client gets; default: it gets what it asks for.
	PerClient *PerClient `toml:"per_client"`
	// Allow, if it has any, are the only networks whose clients are let in; those
	// of Deny never are. All others are answered 403.
	Allow []netip.Prefix `toml:"allow"`
	Deny  []netip.Prefix `toml:"deny"`
	// BasicAuth asks for a password.
	BasicAuth *BasicAuth `toml:"basic_auth"`
	// ForwardAuth asks a server whether a request may pass.
	ForwardAuth *ForwardAuth `toml:"forward_auth"`
	// Sticky keeps a client at one server.
	Sticky *Sticky `toml:"sticky"`
	// HashBy chooses the server by a field or cookie.
	HashBy *HashBy `toml:"hash_by"`
	// Retry says when another server gets a request that has failed at one.
	Retry *Retry `toml:"retry"`
	// HSTS tells browsers to come by HTTPS alone.
	HSTS *HSTS `toml:"hsts"`
	// Compress packs answers.
	Compress *Compress `toml:"compress"`
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
	validateBodySize(at+"max_body_size", r.MaxBodySize, problem)
	r.PerClient.validate(at+"per_client", problem)
	r.BasicAuth.validate(at+"basic_auth", problem)
	r.ForwardAuth.validate(at+"forward_auth", problem)
	r.Sticky.validate(at+"sticky", problem)
	r.HashBy.validate(at+"hash_by", problem)
	r.Retry.validate(at+"retry", problem)
	r.HSTS.validate(at+"hsts", problem)
	r.Compress.validate(at+"compress", problem)
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
	if r.BasicAuth != nil {
		visit(at+"basic_auth.users_file", &r.BasicAuth.UsersFile)
	}
	if r.Sticky != nil {
		visit(at+"sticky.key_file", &r.Sticky.KeyFile)
	}
}

// rules are Rules, compiled.
type rules struct {
	request, response *headerEdits
	pages             map[int]*page
	intercept         bool // pages are for a server's answers too
	maintenance       *maintenance
	maxBody           int64 // 0: any
	clients           *clients
	allow, deny       networks
	basicAuth         *basicAuth
	forwardAuth       *forwardAuth
	sticky            *sticky
	hashBy            *HashBy
	retry             *Retry
	hsts              string // "": not sent
	compress          *compress
}

// newRules compiles rules, nil if there are none.
func newRules(cfg Rules, pools map[string]*pool.Pool) (*rules, error) {
	if reflect.ValueOf(cfg).IsZero() {
		return nil, nil
	}
	r := &rules{
		maxBody: cfg.MaxBodySize, clients: newClients(cfg.PerClient), hashBy: cfg.HashBy, intercept: cfg.InterceptErrors, retry: cfg.Retry,
		hsts: cfg.HSTS.value(), compress: newCompress(cfg.Compress),
		allow: newNetworks(cfg.Allow), deny: newNetworks(cfg.Deny),
	}
	var err error
	if r.request, err = newHeaderEdits(cfg.RequestHeaders, fields.withoutLike); err != nil {
		return nil, fmt.Errorf("request_headers: %w", err)
	}
	if r.response, err = newHeaderEdits(cfg.ResponseHeaders, fields.without); err != nil {
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
	if r.basicAuth, err = newBasicAuth(cfg.BasicAuth); err != nil {
		return nil, err
	}
	if r.forwardAuth, err = newForwardAuth(cfg.ForwardAuth, pools); err != nil {
		return nil, err
	}
	if r.sticky, err = newSticky(cfg.Sticky); err != nil {
		return nil, err
	}
	return r, nil
}

// ruled carries out an exchange that rules are for.
func (p *pipeline) ruled(ctx context.Context, st *state, to *target, ex *exchange) error {
	r := to.rules
	client := ex.peer.addr
	if r.deny.contain(client) || len(r.allow) > 0 && !r.allow.contain(client) {
		return p.refuse(ex, http.StatusForbidden)
	}
	if r.clients != nil {
		wait, ok := r.clients.enter(client, ex.now)
		if !ok {
			return p.tooMany(ex, wait)
		}
		defer r.clients.leave(client)
	}
	if r.maxBody > 0 && !limitBody(ex, r.maxBody) {
		return p.refuse(ex, http.StatusRequestEntityTooLarge)
	}
	if m := r.maintenance; m != nil && m.active && to.pool != nil {
		ex.because(accesslog.Own, nil)
		return p.maintain(ex, m)
	}
	if r.basicAuth != nil {
		user, ok, busy := r.basicAuth.user(ctx, ex)
		if busy {
			ex.because(accesslog.Denied, errBusy)
			return p.say(ex, http.StatusServiceUnavailable, field{Name: "Retry-After", Value: "1"})
		}
		if !ok {
			return p.askPassword(ex, r.basicAuth)
		}
		ex.user = user
	}
	if r.forwardAuth != nil {
		if done, err := p.permit(ctx, st, r.forwardAuth, ex); done {
			return err
		}
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

// pick returns the server that gets a request next, picked.
func (p *pipeline) pick(from *pool.Pool, ex *exchange, tried []*pool.Server) (*pool.Server, error) {
	if r := ex.rules; r != nil && r.sticky != nil && len(tried) == 0 {
		if server := r.sticky.pick(from, ex); server != nil {
			return server, nil
		}
	}
	return from.PickAt(ex.now, ex.hashed(), tried...)
}

// hashed returns the address that a pool chooses by.
func (ex *exchange) hashed() netip.Addr {
	if r := ex.rules; r != nil && r.hashBy != nil {
		return r.hashBy.address(ex)
	}
	return ex.peer.addr
}

// onAnswer adds to the fields of a server's answer what the client has to know.
func (r *rules) onAnswer(ex *exchange) {
	if r.sticky != nil {
		if f, ok := r.sticky.setCookie(ex.from, ex); ok {
			ex.out.head = append(ex.out.head, f)
		}
	}
}

// writeHead sends the head of a final answer, which is the caller's, as the rules
// want it.
func (p *pipeline) writeHead(ex *exchange, status int, head fields) error {
	if r := ex.rules; r != nil && status >= http.StatusOK {
		if r.response != nil {
			head = r.response.apply(head, ex)
		}
		if r.hsts != "" && ex.scheme == "https" {
			// Section 7.1: a client takes the first field only.
			head = append(head.without("Strict-Transport-Security"), field{Name: "Strict-Transport-Security", Value: r.hsts})
		}
		if r.compress != nil {
			var full bool
			if head, full = r.compress.begin(ex, status, head); full && r.compress.complains.may(ex.now, complainEvery) {
				p.log.Warn().Int64("max_answers", r.compress.most).Msg("answers pass unpacked: as many are being packed as may")
			}
		}
	}
	ex.trail.status = status
	return ex.answer.WriteHead(status, head)
}
