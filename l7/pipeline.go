package l7

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/pool"
	"appliance/l7/accesslog"
)

// errAborted says that the exchange cannot be brought to a proper end: the
// client is gone, or has seen the beginning of an answer whose rest is lost.
var errAborted = errors.New("exchange aborted")

// pipeline is what happens between a door and an upstream, for one service.
type pipeline struct {
	log    zerolog.Logger
	count  counters
	budget budget
}

// serve answers ex in accordance with st. ctx ends when everything is to end. On
// an error, which wraps errAborted or comes from the answer's writer, the door
// must make sure that the client does not take what it has for a whole answer.
func (p *pipeline) serve(ctx context.Context, st *state, ex *exchange) error {
	p.count.requests.Add(1)
	p.count.current.Add(1)
	defer p.count.current.Add(-1)
	ex.count, ex.rules = &p.count, nil
	st.access.begin(ex)
	err := p.route(ctx, st, ex)
	if w, ok := ex.answer.(*packedAnswer); ok {
		w.end() // if it has broken off
	}
	ex.trail.settle(ctx, ex, err)
	p.count.ended(ex.trail.end)
	if a := ex.trail.log; a != nil {
		a.finish(ex)
	}
	return err
}

// route finds out where ex goes.
func (p *pipeline) route(ctx context.Context, st *state, ex *exchange) error {
	if ex.method == http.MethodConnect {
		return p.refuse(ex, http.StatusNotImplemented)
	}
	if !validTarget(ex.method, ex.target) {
		return p.reject(ex)
	}
	if err := st.clients.admit(ex.peer.session, ex.now); err != nil {
		ex.because(accesslog.Denied, err)
		return p.refuse(ex, http.StatusForbidden)
	}
	if !st.identity.identify(ex) {
		return p.reject(ex)
	}
	if st.identity.via.loops(ex.fields) {
		ex.because(accesslog.BadRequest, errLoop)
		return p.refuse(ex, http.StatusLoopDetected)
	}
	host, ok := normalHost(ex.host)
	if !ok && !(ex.host == "" && ex.mayLackHost) {
		return p.reject(ex)
	}
	if len(st.cfg.Routes) > 0 { // or nobody compares paths
		if ex.target, ok = plainTarget(ex.target); !ok {
			return p.reject(ex)
		}
	}
	to := st.routes.find(host, ex)
	if to == nil {
		ex.rules = st.routes.own
		return p.refuse(ex, http.StatusNotFound)
	}
	ex.trail.route = to.label
	if to.rules != nil {
		ex.rules = to.rules
		return p.ruled(ctx, st, to, ex)
	}
	return p.carry(ctx, st, to, ex)
}

// carry brings an exchange to where it goes.
func (p *pipeline) carry(ctx context.Context, st *state, to *target, ex *exchange) error {
	switch {
	case to.redirect != nil:
		location, ok := to.redirect.location(ex.host, ex.target)
		if to.redirect.To != "" {
			location, ok = to.location.fill(ex), ex.host != "" && strings.HasPrefix(ex.target, "/")
		}
		if !ok {
			return p.refuse(ex, http.StatusBadRequest)
		}
		ex.because(accesslog.Own, nil)
		return p.say(ex, to.redirect.EffectiveStatus(), field{Name: "Location", Value: location})
	case to.respond != nil:
		ex.because(accesslog.Own, nil)
		return p.tell(ex, to.respond.status, to.respond.page)
	}
	ex.out.target, ex.out.host = ex.target, ex.host
	if to.path != nil {
		var err error
		if ex.out.target, err = to.path.apply(ex.target); err != nil {
			return p.refuse(ex, http.StatusBadRequest)
		}
	}
	if to.files != nil {
		return p.file(ctx, st, to, ex)
	}
	return p.forward(ctx, st, to, ex)
}

// refuse answers with an error of our own.
func (p *pipeline) refuse(ex *exchange, status int) error { return p.say(ex, status) }

// reject answers what is a message of HTTP, but no request that anybody may send.
func (p *pipeline) reject(ex *exchange) error {
	ex.malformed = true
	return p.refuse(ex, http.StatusBadRequest)
}

// say gives a short answer of our own, which tells nothing but its status unless
// there is a page for it.
func (p *pipeline) say(ex *exchange, status int, more ...field) error {
	if ex.rules != nil && ex.rules.pages[status] != nil {
		return p.tell(ex, status, ex.rules.pages[status], more...)
	}
	return p.tell(ex, status, &page{ownText(status), plainText}, more...)
}

// tell gives an answer of our own.
func (p *pipeline) tell(ex *exchange, status int, pg *page, more ...field) error {
	if status >= http.StatusBadRequest && isGRPC(ex) {
		return p.tellGRPC(ex, status, more)
	}
	p.count.answered(status)
	head := fields{}
	if status != http.StatusNoContent && status != http.StatusNotModified {
		head = ownHead(pg)
	}
	if err := p.writeHead(ex, status, append(head, more...)); err != nil {
		return err
	}
	if ex.method != http.MethodHead && pg.body != "" {
		if err := p.write(ex, []byte(pg.body)); err != nil {
			return err
		}
	}
	if err := ex.answer.Finish(nil); err != nil {
		return err
	}
	ex.because(ownEnd(status), nil)
	return nil
}

// ownText is the body of an answer of our own.
func ownText(status int) string {
	return strconv.Itoa(status) + " " + http.StatusText(status) + "\n"
}

// ownHead is the head of an answer with that body.
func ownHead(pg *page) fields {
	return fields{
		{Name: "Content-Type", Value: pg.kind},
		{Name: "Content-Length", Value: strconv.Itoa(len(pg.body))},
	}
}

func (p *pipeline) write(ex *exchange, b []byte) error {
	n, err := ex.answer.Write(b)
	ex.gave(int64(n))
	return err
}

// forward carries ex to a server of the pool; to another one if connecting
// fails and no server has seen anything of the request, or may see it twice.
func (p *pipeline) forward(ctx context.Context, st *state, to *target, ex *exchange) error {
	servers := to.pool
	ex.out.request = requestFields(ex.out.request[:0], ex)
	if left, ok := maxForwards(ex); ok {
		if left == 0 {
			return p.finalRecipient(ex)
		}
		ex.out.request.set("Max-Forwards", strconv.Itoa(left-1))
	}
	ex.out.request = append(ex.out.request, ex.granted...)
	st.identity.tellID(ex)
	st.identity.via.tell(ex)
	if ex.rules != nil {
		ex.rules.onRequest(ex)
	}
	ex.from, ex.up = servers, to.up
	retry := retryOf(ex)
	var tried [mostTries]*pool.Server
	n, refused, failed, none := 0, http.StatusBadGateway, error(nil), error(nil)
	defer ex.out.upload.finish(ex) // which is not done while it may go to another server
	for n < retry.EffectiveTries() {
		var server *pool.Server
		var err error
		if server, none = p.pick(servers, ex, tried[:n]); none == pool.ErrFull {
			server, none = p.wait(ctx, servers, ex.hashed(), ex, tried[:n])
		}
		if none == errAborted {
			return none
		}
		if none != nil {
			break
		}
		tried[n] = server
		if n++; n > 1 {
			ex.trail.retries++
		}
		err = p.attempt(ctx, st, server, ex)
		if err == nil {
			return nil
		}
		var ce *connectError
		var lost *lostError
		var se *statusError
		switch {
		case errors.As(err, &ce):
			server.ConnectFailed(ce.err)
			p.log.Debug().Str("pool", servers.Name()).Str("server", server.Label()).Err(ce.err).Msg("cannot connect to server")
		case errors.As(err, &lost):
		case errors.As(err, &se):
			refused = se.status
		default:
			return err
		}
		failed = err
		if ctx.Err() != nil || ex.over() {
			return errAborted
		}
		if ce != nil && ce.maybeSent && !idempotent(ex) {
			break
		}
		if (ce == nil || ce.maybeSent) && n < retry.EffectiveTries() && !p.budget.spend(retry.EffectiveBudget(), p.count.requests.Load(), time.Now()) {
			p.log.Debug().Str("pool", servers.Name()).Msg("no request is sent again: the budget is spent")
			break
		}
	}
	if n == 0 || none == errQueueTimeout {
		p.count.noServer.Add(1)
		p.log.Debug().Str("pool", servers.Name()).Err(none).Msg("no server for a request")
		ex.because(noServerEnd(none), none)
		if none == pool.ErrNoServer && ex.rules != nil && ex.rules.maintenance != nil {
			return p.maintain(ex, ex.rules.maintenance)
		}
		return p.refuse(ex, http.StatusServiceUnavailable)
	}
	var ce *connectError
	if errors.As(failed, &ce) {
		ex.because(accesslog.ConnectFailed, failed)
	}
	ex.because(accesslog.ServerFailed, failed)
	return p.refuse(ex, refused)
}

// maxForwards returns how often a request may still be forwarded; ok is false
// for requests that no such bound is for (RFC 9110, section 7.6.2).
func maxForwards(ex *exchange) (left int, ok bool) {
	if ex.method != http.MethodTrace && ex.method != http.MethodOptions {
		return 0, false
	}
	n, err := strconv.ParseUint(ex.fields.get("Max-Forwards"), 10, 31)
	return int(n), err == nil
}

// finalRecipient answers a request that may not be forwarded any more.
func (p *pipeline) finalRecipient(ex *exchange) error {
	if ex.method == http.MethodTrace {
		return p.say(ex, http.StatusMethodNotAllowed, field{Name: "Allow", Value: "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"})
	}
	return p.say(ex, http.StatusOK)
}

// repeatable reports whether a second server may get a request that the first
// one may have seen: its method must be safe (RFC 9110, section 9.2.1).
func repeatable(ex *exchange) bool {
	if ex.body != nil {
		return false
	}
	switch ex.method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// attempt sends ex to server, which has been picked, and passes the answer to
// the client. After a *connectError the client has got nothing yet, and what was
// read of a body can be sent again.
func (p *pipeline) attempt(ctx context.Context, st *state, server *pool.Server, ex *exchange) error {
	defer server.Done()
	ex.server = server
	ex.trail.chosen()
	a, err := ex.up.roundTrip(ctx, server, ex, passInterim)
	if err != nil {
		return p.failed(ctx, server, ex, err)
	}
	defer a.close()
	ex.trail.answered()
	if ex.length < 0 {
		ex.talks.Store(true)
	}
	head := a.head()
	if refusedStatus(ex, head.status) && ex.from.Usable() > 1 {
		server.Failed(time.Now())
		return &statusError{head.status}
	}
	server.Answered(head.status)
	if head.status == http.StatusSwitchingProtocols {
		return p.upgrade(ctx, st, server, ex, a)
	}
	if pg := shownInstead(ex, head.status); pg != nil {
		return p.tell(ex, head.status, pg, keptOfError(head.fields)...)
	}
	return p.pass(server, ex, a)
}

// passInterim passes an interim answer on. It may be lost; the final answer
// shows if the client is.
func passInterim(ex *exchange, status int, head fields) {
	ex.out.head = interimFields(ex.out.head[:0], head)
	_ = ex.answer.WriteHead(status, ex.out.head)
}

// failed answers a request that got no answer from the server. It returns a
// *connectError unchanged.
func (p *pipeline) failed(ctx context.Context, server *pool.Server, ex *exchange, err error) error {
	var ce *connectError
	if errors.As(err, &ce) {
		return ce
	}
	gone := ctx.Err() != nil || ex.over()
	// What the client did wrong comes first: the server's failure is often a
	// consequence, and for a door a client that stalls is as good as gone.
	if be := ex.failed.Load(); be != nil {
		p.log.Debug().Err(be).Msg("request broke off")
		if errors.Is(be, errTooLarge) {
			return p.refuse(ex, http.StatusRequestEntityTooLarge)
		}
		if isTimeout(be) {
			return p.refuse(ex, http.StatusRequestTimeout)
		}
		if !gone {
			return p.refuse(ex, http.StatusBadRequest)
		}
	}
	if gone {
		return errAborted
	}
	if grpcOverdue(ex, err) {
		ex.because(accesslog.ServerSlow, err) // which is for the client to say, and no failure of the server
		return p.tellOutcome(ex, http.StatusGatewayTimeout, grpcDeadline, nil)
	}
	server.Failed(time.Now())
	p.log.Debug().Str("server", server.Label()).Err(err).Msg("no answer from server")
	if isLost(err) && idempotent(ex) {
		return &lostError{err}
	}
	if isTimeout(err) {
		ex.because(accesslog.ServerSlow, err)
		return p.refuse(ex, http.StatusGatewayTimeout)
	}
	ex.because(accesslog.ServerFailed, err)
	return p.refuse(ex, http.StatusBadGateway)
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// pass passes a server's answer on to the client as it arrives.
func (p *pipeline) pass(server *pool.Server, ex *exchange, a answer) error {
	head := a.head()
	p.count.answered(head.status)
	ex.out.head = answerFields(ex.out.head[:0], head.fields)
	if head.trailer {
		ex.out.head = ex.announceTrailers(ex.out.head, head.fields)
	}
	if ex.rules != nil {
		ex.rules.onAnswer(ex)
	}
	if err := p.writeHead(ex, head.status, ex.out.head); err != nil {
		return err
	}
	a.release()
	for {
		if !a.ready() {
			if err := a.splice(ex.answer); err != nil {
				return p.brokeOff(server, ex, err)
			}
			if err := ex.answer.Flush(); err != nil {
				return err
			}
			a.release()
		}
		part, err := a.next()
		a.release()
		if len(part) > 0 {
			server.AddBytes(0, int64(len(part)))
			if err := p.write(ex, part); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return ex.answer.Finish(trailerFields(head.trailers))
		case err != nil:
			return p.brokeOff(server, ex, err)
		}
	}
}

// brokeOff ends an exchange whose answer cannot be passed on whole.
func (p *pipeline) brokeOff(server *pool.Server, ex *exchange, err error) error {
	var ce *clientError
	if errors.As(err, &ce) {
		return err
	}
	if !ex.over() {
		if isTimeout(err) {
			ex.because(accesslog.ServerSlow, err)
		}
		ex.because(accesslog.ServerCut, err)
		p.log.Debug().Str("server", server.Label()).Err(err).Msg("answer broke off")
	}
	return errAborted
}

// upgrade answers 101 and lets the two sides talk.
func (p *pipeline) upgrade(ctx context.Context, st *state, server *pool.Server, ex *exchange, a answer) error {
	head := a.head()
	wanted, chosen := fields(ex.out.request).get("Upgrade"), head.fields.get("Upgrade")
	if ex.upgrade == nil || wanted == "" || !ex.out.request.hasToken("Upgrade", chosen) {
		p.log.Debug().Str("server", server.Label()).Str("wanted", wanted).Str("chosen", chosen).Msg("server changed to a protocol that was not asked for")
		return p.refuse(ex, http.StatusBadGateway)
	}
	ex.out.head = append(interimFields(ex.out.head[:0], head.fields), field{Name: "Connection", Value: "Upgrade"}, field{Name: "Upgrade", Value: chosen})
	if ex.rules != nil {
		ex.rules.onAnswer(ex)
	}
	client, err := ex.upgrade(ex.out.head)
	if err != nil {
		return errAborted
	}
	p.count.answered(head.status)
	ex.trail.status = head.status
	ex.because(accesslog.Upgraded, nil)
	tunnel(ctx, client, a.stream(), st.cfg.Timeouts.EffectiveIdle(),
		func(n int) { ex.sent(n) },
		func(n int) { ex.received(int64(n)) })
	return nil
}
