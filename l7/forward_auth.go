package l7

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"appliance/internal/pool"
	"appliance/l7/accesslog"
)

// ForwardAuth asks a server whether a request may pass (nginx: auth_request).
type ForwardAuth struct {
	// Pool names the pool that is asked; required.
	Pool string `toml:"pool"`
	// Path is what it is asked for, by GET, with the fields of the request;
	// default "/".
	Path string `toml:"path"`
	// Headers are the fields of its answer that the request is given before it
	// goes on. What the client sent under these names does not.
	Headers []string `toml:"headers"`
}

// EffectivePath returns Path with its default applied.
func (f ForwardAuth) EffectivePath() string {
	if f.Path == "" {
		return "/"
	}
	return f.Path
}

func (f *ForwardAuth) validate(at string, problem func(key, message string)) {
	if f == nil {
		return
	}
	if f.Pool == "" {
		problem(at+".pool", "forward_auth needs the pool that is asked")
	}
	if !validTarget(http.MethodGet, f.EffectivePath()) || strings.ContainsFunc(f.Path, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		problem(at+".path", fmt.Sprintf("%q is no path such as \"/verify\"", f.Path))
	}
	for i, name := range f.Headers {
		if err := ruledField(name); err != nil {
			problem(fmt.Sprintf("%s.headers[%d]", at, i), err.Error())
		} else if strings.EqualFold(name, "Host") {
			problem(fmt.Sprintf("%s.headers[%d]", at, i), "a request has one Host, and that is the client's or what request_headers.set says")
		}
	}
}

// forwardAuth is ForwardAuth, compiled.
type forwardAuth struct {
	pool    *pool.Pool
	up      *upstream // of the pool
	path    string
	headers []string
}

func newForwardAuth(cfg *ForwardAuth, pools map[string]*pool.Pool) (*forwardAuth, error) {
	if cfg == nil {
		return nil, nil
	}
	p, ok := pools[cfg.Pool]
	if !ok {
		return nil, fmt.Errorf("forward_auth: unknown pool %q", cfg.Pool)
	}
	return &forwardAuth{pool: p, path: cfg.EffectivePath(), headers: cfg.Headers}, nil
}

// maxVerdict bounds the body of an answer that a client gets instead of what it
// asked for.
const maxVerdict = 64 << 10

// verdict is what the server said about a request.
type verdict struct {
	status int
	fields fields
	page   page
}

// permit asks whether ex may pass. If not, it has answered, and done is true.
func (p *pipeline) permit(ctx context.Context, st *state, fa *forwardAuth, ex *exchange) (done bool, err error) {
	v, err := p.ask(ctx, st, fa, ex)
	switch {
	case ctx.Err() != nil || ex.over() || err == errAborted:
		return true, errAborted
	case errors.Is(err, pool.ErrNoServer), errors.Is(err, pool.ErrQueueFull), errors.Is(err, errQueueTimeout):
		p.count.noServer.Add(1)
		ex.because(noServerEnd(err), err)
		return true, p.refuse(ex, http.StatusServiceUnavailable)
	case err != nil && isTimeout(err):
		return true, p.refuse(ex, http.StatusGatewayTimeout)
	case err != nil || v.status < 200 || v.status >= 500:
		p.log.Debug().Str("pool", fa.pool.Name()).Err(err).Msg("no verdict on a request")
		return true, p.refuse(ex, http.StatusBadGateway)
	case v.status >= 300:
		ex.because(accesslog.Denied, nil)
		return true, p.tell(ex, v.status, &v.page, v.fields...)
	}
	ex.granted = make(fields, 0, len(fa.headers))
	for _, name := range fa.headers {
		ex.fields = withoutVariable(ex.fields, name)
		for _, f := range v.fields {
			if strings.EqualFold(f.Name, name) {
				ex.granted = append(ex.granted, f)
			}
		}
	}
	return false, nil
}

// ask puts the question to one of the servers. The error is errAborted if there is
// nobody to answer any more.
func (p *pipeline) ask(ctx context.Context, st *state, fa *forwardAuth, ex *exchange) (*verdict, error) {
	sub := &exchange{
		method: http.MethodGet, target: fa.path, scheme: ex.scheme, host: ex.host, fields: withoutBody(ex.fields), peer: ex.peer,
		via: ex.via, client: ex.client, now: ex.now, count: ex.count,
	}
	sub.out.target, sub.out.host = fa.path, ex.host
	sub.out.request = append(requestFields(nil, sub),
		field{Name: "X-Forwarded-Method", Value: ex.method}, field{Name: "X-Forwarded-Uri", Value: ex.target})
	if r := ex.rules.request; r != nil && r.identity != nil {
		sub.out.request = r.identity.apply(sub.out.request, ex)
	}
	if st.identity.requestID != "" {
		sub.out.request = append(sub.out.request.withoutLike(st.identity.requestID), field{Name: st.identity.requestID, Value: ex.id})
	}
	sub.trail.protocol = ex.trail.protocol
	st.identity.via.tell(sub)
	if !ex.hold.take(sub) {
		return nil, errAborted
	}
	defer ex.hold.take(nil)
	defer func() { ex.now = sub.now }()
	var tried [defaultTries]*pool.Server
	var err error
	for n := range tried {
		server, none := fa.pool.PickFor(ex.peer.addr, tried[:n]...)
		if none == pool.ErrFull {
			server, none = p.wait(ctx, fa.pool, ex.peer.addr, sub, tried[:n])
		}
		switch {
		case none == errQueueTimeout, none == errAborted:
			return nil, none
		case none != nil:
			return nil, cmp.Or(err, none)
		}
		tried[n] = server
		var v *verdict
		if v, err = p.askServer(ctx, fa.up, server, sub); err == nil {
			return v, nil
		}
		if sub.over() {
			return nil, errAborted
		}
		var ce *connectError
		if !errors.As(err, &ce) || ctx.Err() != nil {
			return nil, err
		}
		server.ConnectFailed(ce.err)
	}
	return nil, err
}

func (p *pipeline) askServer(ctx context.Context, up *upstream, server *pool.Server, sub *exchange) (*verdict, error) {
	defer server.Done()
	sub.server = server
	a, err := up.roundTrip(ctx, server, sub, func(*exchange, int, fields) {})
	if err != nil {
		return nil, err
	}
	defer a.close()
	server.Answered(a.head().status)
	head := a.head()
	v := &verdict{status: head.status}
	for _, f := range answerFields(nil, head.fields) {
		switch {
		case strings.EqualFold(f.Name, "Content-Length"):
		case strings.EqualFold(f.Name, "Content-Type"):
			v.page.kind = strings.Clone(f.Value)
		default:
			v.fields = append(v.fields, field{Name: strings.Clone(f.Name), Value: strings.Clone(f.Value)})
		}
	}
	var text []byte
	for head.status != http.StatusSwitchingProtocols {
		part, err := a.next()
		if text = append(text, part...); len(text) > maxVerdict {
			return nil, errors.New("the verdict is too long")
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	v.page.body = string(text)
	return v, nil
}

// withoutBody returns the fields of a request without those that describe its
// body or ask for a part of the answer.
func withoutBody(fs fields) fields {
	out := make(fields, 0, len(fs))
	for _, f := range fs {
		switch http.CanonicalHeaderKey(f.Name) {
		case "Content-Length", "Content-Type", "Content-Encoding", "Content-Range", "Transfer-Encoding", "Trailer", "Expect", "Range", "Upgrade",
			"If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range", "Accept-Encoding", "Te":
			continue
		}
		out = append(out, f)
	}
	return out
}
