package l7

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"

	"appliance/internal/pool"
)

// maxTries bounds to how many servers connecting is tried for one request.
const maxTries = 3

// errAborted says that the exchange cannot be brought to a proper end: the
// client is gone, or has seen the beginning of an answer whose rest is lost.
var errAborted = errors.New("exchange aborted")

// upstream carries an exchange to a server.
type upstream interface {
	// roundTrip sends ex to the server at address and returns the head of the
	// answer; the caller closes its body. interim is called for interim
	// answers, before roundTrip returns. The error wraps a *connectError, is a
	// timeout as net.Error has it, or anything else.
	roundTrip(ctx context.Context, address string, ex *exchange, interim func(status int, head fields)) (*answer, error)
}

// pipeline is what happens between a door and an upstream, for one service.
type pipeline struct {
	log     zerolog.Logger
	count   counters
	buffers sync.Pool // of *[]byte, for copying
}

const bufferSize = 32 << 10

func (p *pipeline) buffer() *[]byte {
	if b, ok := p.buffers.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, bufferSize)
	return &b
}

// serve answers ex in accordance with st. ctx ends when the client has gone. On
// an error, which wraps errAborted or comes from the answer's writer, the door
// must make sure that the client does not take what it has for a whole answer.
func (p *pipeline) serve(ctx context.Context, st *state, ex *exchange) error {
	p.count.requests.Add(1)
	p.count.current.Add(1)
	defer p.count.current.Add(-1)
	if ex.body != nil {
		ex.body = &countingReader{ex.body, func(n int) { p.count.bytesIn.Add(int64(n)) }}
	}
	if ex.method == http.MethodConnect {
		return p.refuse(ex, http.StatusNotImplemented)
	}
	if !validTarget(ex.method, ex.target) || !acceptableHost(ex) {
		return p.refuse(ex, http.StatusBadRequest)
	}
	to := st.routes.find(ex.host, ex.target)
	switch {
	case to == nil:
		return p.refuse(ex, http.StatusNotFound)
	case to.redirect != nil:
		location, ok := to.redirect.location(ex.host, ex.target)
		if !ok {
			return p.refuse(ex, http.StatusBadRequest)
		}
		return p.say(ex, to.redirect.EffectiveStatus(), field{"Location", location})
	}
	return p.forward(ctx, st, to.pool, ex)
}

// acceptableHost reports whether the request names a host, or none where it may
// do without.
func acceptableHost(ex *exchange) bool {
	if ex.host == "" && ex.mayLackHost {
		return true
	}
	_, ok := normalHost(ex.host)
	return ok
}

// refuse answers with an error of our own.
func (p *pipeline) refuse(ex *exchange, status int) error { return p.say(ex, status) }

// say gives a short answer of our own, which tells nothing but its status.
func (p *pipeline) say(ex *exchange, status int, more ...field) error {
	text := strconv.Itoa(status) + " " + http.StatusText(status) + "\n"
	head := append(fields{
		{"Content-Type", "text/plain; charset=utf-8"},
		{"Content-Length", strconv.Itoa(len(text))},
	}, more...)
	p.count.answered(status)
	if err := ex.answer.WriteHead(status, head); err != nil {
		return err
	}
	if ex.method != http.MethodHead {
		if err := p.write(ex, []byte(text)); err != nil {
			return err
		}
	}
	return ex.answer.Finish(nil)
}

func (p *pipeline) write(ex *exchange, b []byte) error {
	n, err := ex.answer.Write(b)
	p.count.bytesOut.Add(int64(n))
	return err
}

// forward carries ex to a server of the pool; to another one if connecting
// fails and no server has seen anything of the request, or may see it twice.
func (p *pipeline) forward(ctx context.Context, st *state, servers *pool.Pool, ex *exchange) error {
	out := *ex
	out.fields = requestFields(ex)
	var tried []*pool.Server
	for len(tried) < maxTries {
		server, err := servers.Pick(tried...)
		if err != nil {
			break
		}
		tried = append(tried, server)
		err = p.attempt(ctx, st, server, ex, out)
		var ce *connectError
		if !errors.As(err, &ce) {
			return err
		}
		server.ConnectFailed()
		p.log.Debug().Str("pool", servers.Name()).Str("server", server.Label()).Err(ce.err).Msg("cannot connect to server")
		if ctx.Err() != nil {
			return errAborted
		}
		if ce.maybeSent && !repeatable(ex) {
			break
		}
	}
	if len(tried) == 0 {
		p.count.noServer.Add(1)
		p.log.Debug().Str("pool", servers.Name()).Msg("no usable server")
		return p.refuse(ex, http.StatusServiceUnavailable)
	}
	return p.refuse(ex, http.StatusBadGateway)
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

// attempt sends the request out to server, which has been picked, and passes
// the answer to the client of ex. After a *connectError the client has got
// nothing yet, and no body has been read.
func (p *pipeline) attempt(ctx context.Context, st *state, server *pool.Server, ex *exchange, out exchange) error {
	defer server.Done()
	var sent *sentBody
	if ex.body != nil {
		sent = &sentBody{Reader: ex.body, server: server}
		out.body = sent
	}
	interim := func(status int, head fields) {
		// An interim answer may be lost; the final one shows if the client is.
		_ = ex.answer.WriteHead(status, answerFields(head))
	}
	a, err := st.upstream.roundTrip(ctx, server.Address(), &out, interim)
	if err != nil {
		return p.failed(ctx, server, ex, sent, err)
	}
	defer a.body.Close()
	if a.status == http.StatusSwitchingProtocols {
		return p.upgrade(ctx, st, server, ex, &out, a)
	}
	return p.pass(ctx, server, ex, a)
}

// failed answers a request, with the body sent, that got no answer from the
// server. It returns a *connectError unchanged.
func (p *pipeline) failed(ctx context.Context, server *pool.Server, ex *exchange, sent *sentBody, err error) error {
	var ce *connectError
	if errors.As(err, &ce) {
		return ce
	}
	// What the client did wrong comes first: the server's failure is often a
	// consequence, and for a door a client that stalls is as good as gone.
	if be := sent.failure(); be != nil {
		p.log.Debug().Err(be).Msg("request broke off")
		if isTimeout(be) {
			return p.refuse(ex, http.StatusRequestTimeout)
		}
		if ctx.Err() == nil {
			return p.refuse(ex, http.StatusBadRequest)
		}
	}
	if ctx.Err() != nil {
		return errAborted
	}
	p.log.Debug().Str("server", server.Label()).Err(err).Msg("no answer from server")
	if isTimeout(err) {
		return p.refuse(ex, http.StatusGatewayTimeout)
	}
	return p.refuse(ex, http.StatusBadGateway)
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// pass passes a server's answer on to the client as it arrives.
func (p *pipeline) pass(ctx context.Context, server *pool.Server, ex *exchange, a *answer) error {
	p.count.answered(a.status)
	if err := ex.answer.WriteHead(a.status, answerHead(a)); err != nil {
		return err
	}
	buf := p.buffer()
	defer p.buffers.Put(buf)
	for {
		n, err := a.body.Read(*buf)
		if n > 0 {
			server.AddBytes(0, int64(n))
			if err := p.write(ex, (*buf)[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return ex.answer.Finish(trailerFields(a.trailers()))
		case err != nil:
			if ctx.Err() == nil {
				p.log.Debug().Str("server", server.Label()).Err(err).Msg("answer broke off")
			}
			return errAborted
		}
	}
}

// answerHead returns the head of a as the client gets it, with the announcement
// of the trailers that will be passed on.
func answerHead(a *answer) fields {
	head := answerFields(a.fields)
	var names []string
	for t := range a.fields.tokens("Trailer") {
		if validTrailer(t) {
			names = append(names, t)
		}
	}
	if len(names) > 0 {
		head = append(head, field{"Trailer", strings.Join(names, ", ")})
	}
	return head
}

// upgrade answers 101 and lets the two sides talk.
func (p *pipeline) upgrade(ctx context.Context, st *state, server *pool.Server, ex, out *exchange, a *answer) error {
	wanted, chosen := out.fields.get("Upgrade"), a.fields.get("Upgrade")
	back, ok := a.body.(io.ReadWriteCloser)
	if !ok || wanted == "" || !out.fields.hasToken("Upgrade", chosen) {
		p.log.Debug().Str("server", server.Label()).Str("wanted", wanted).Str("chosen", chosen).Msg("server changed to a protocol that was not asked for")
		return p.refuse(ex, http.StatusBadGateway)
	}
	head := append(answerFields(a.fields), field{"Connection", "Upgrade"}, field{"Upgrade", chosen})
	client, err := ex.upgrade(head)
	if err != nil {
		return errAborted
	}
	p.count.answered(a.status)
	tunnel(ctx, client, back, st.cfg.Timeouts.EffectiveIdle(),
		func(n int) { p.count.bytesIn.Add(int64(n)); server.AddBytes(int64(n), 0) },
		func(n int) { p.count.bytesOut.Add(int64(n)); server.AddBytes(0, int64(n)) })
	return nil
}

// countingReader tells count of the bytes it has read.
type countingReader struct {
	io.Reader
	count func(n int)
}

func (r *countingReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if n > 0 {
		r.count(n)
	}
	return n, err
}

// sentBody is the body of a request on its way to a server. It keeps in mind
// whether it was the client that failed.
type sentBody struct {
	io.Reader
	server *pool.Server
	failed atomic.Pointer[bodyError]
}

func (b *sentBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.server.AddBytes(int64(n), 0)
	if be := (*bodyError)(nil); errors.As(err, &be) {
		b.failed.Store(be)
	}
	return n, err
}

// failure returns the client's failure, nil if there was none.
func (b *sentBody) failure() *bodyError {
	if b == nil {
		return nil
	}
	return b.failed.Load()
}
