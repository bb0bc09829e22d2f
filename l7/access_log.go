package l7

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"appliance/l7/accesslog"
)

// AccessLog says where a service logs its requests, and how. In the file it may
// be the path alone.
type AccessLog struct {
	// Path is the file, which is made if need be, or "stdout"; required. Several
	// services may share one.
	Path string `toml:"path"`
	// Format is "json", "common" or "combined"; default json.
	Format accesslog.Format `toml:"format"`
}

// UnmarshalText reads the short form.
func (a *AccessLog) UnmarshalText(text []byte) error {
	a.Path = string(text)
	return nil
}

// EffectiveFormat returns Format with its default applied.
func (a AccessLog) EffectiveFormat() accesslog.Format { return cmp.Or(a.Format, accesslog.JSON) }

func (a *AccessLog) validate(problem func(key, message string)) {
	if a == nil {
		return
	}
	if a.Path == "" {
		problem("access_log.path", "an access log needs the path of a file, or \"stdout\"")
	}
	if err := a.EffectiveFormat().Validate(); err != nil {
		problem("access_log.format", err.Error())
	}
}

// checkLogFile returns why a file cannot be a log. It does not make it.
func checkLogFile(path string) error {
	if info, err := os.Stat(path); err == nil {
		if info.IsDir() {
			return errors.New(path + " is a folder")
		}
		return nil
	}
	_, err := os.Stat(filepath.Dir(path))
	return err
}

// trail is what an exchange leaves behind for the access log.
type trail struct {
	log      *accessLog // nil: it is not logged
	began    time.Time  // when the first byte of it came; zero: with the rest of the head
	whole    time.Time  // when all of the head had come
	target   string     // as it was sent
	status   int        // of the final answer, as it was sent; 0: none was
	in, out  int64      // bytes of the bodies from and to the client
	picked   time.Time  // when the server was chosen
	wait     time.Duration
	connect  time.Duration
	first    time.Duration
	retries  int
	route    string
	end      accesslog.End // "": not known yet
	problem  error
	protocol string
}

// accessLog is an AccessLog that is open.
type accessLog struct {
	service string
	format  accesslog.Format
	file    *accesslog.Log
	engine  *Engine
}

// because notes why an exchange ends as it will, unless that is known already.
func (ex *exchange) because(end accesslog.End, problem error) {
	if ex.trail.end == "" {
		ex.trail.end, ex.trail.problem = end, problem
	}
}

// chosen notes that a server has been chosen.
func (t *trail) chosen() {
	if t.log != nil {
		t.picked = time.Now()
		t.wait, t.connect, t.first = t.picked.Sub(t.whole), -1, -1
	}
}

// answered notes that the server has answered.
func (t *trail) answered() {
	if t.log != nil {
		t.first = time.Since(t.picked) - max(t.connect, 0)
	}
}

// ownEnd tells why an answer of our own was given, by its status.
func ownEnd(status int) accesslog.End {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return accesslog.Denied
	case http.StatusTooManyRequests:
		return accesslog.Limited
	case http.StatusNotFound:
		return accesslog.NotFound
	case http.StatusRequestEntityTooLarge, http.StatusRequestHeaderFieldsTooLarge, http.StatusRequestURITooLong:
		return accesslog.TooLarge
	case http.StatusRequestTimeout:
		return accesslog.ClientSlow
	case http.StatusBadGateway:
		return accesslog.ServerFailed
	case http.StatusServiceUnavailable:
		return accesslog.NoServer
	case http.StatusGatewayTimeout:
		return accesslog.ServerSlow
	case http.StatusInternalServerError:
		return accesslog.Failed
	}
	if status >= 400 {
		return accesslog.BadRequest
	}
	return accesslog.Own
}

// settle decides why an exchange ended that ended with err; ctx is over if all are
// to end.
func (t *trail) settle(ctx context.Context, ex *exchange, err error) {
	switch {
	case err != nil && t.end != accesslog.ServerCut && t.end != accesslog.ServerSlow:
		t.end = brokenEnd(ctx, ex, err)
	case t.end == "":
		t.end = accesslog.Done
	}
}

// brokenEnd tells why an exchange broke off on the client's side.
func brokenEnd(ctx context.Context, ex *exchange, err error) accesslog.End {
	switch {
	case ctx.Err() != nil:
		return accesslog.Stopped
	case isTimeout(err) && !ex.over():
		return accesslog.ClientStalled
	}
	return accesslog.ClientGone
}

// begin has an exchange logged.
func (a *accessLog) begin(ex *exchange) {
	began, protocol := ex.trail.began, ex.trail.protocol
	ex.trail = trail{began: began, whole: ex.now, target: ex.target, protocol: protocol, wait: -1, connect: -1, first: -1}
	if a != nil && a.file.Hold() {
		ex.trail.log = a
	}
	if began.IsZero() {
		ex.trail.began = ex.now
	}
}

// finish logs an exchange that has ended.
func (a *accessLog) finish(ex *exchange) {
	defer a.file.Release()
	t := &ex.trail
	now := time.Now()
	r := accesslog.Record{
		Time: t.began, Service: a.service, Client: ex.peer.text, Proxy: ex.peer.proxy, ID: ex.id, User: ex.user,
		Method: ex.method, Scheme: ex.scheme, Host: ex.host, Target: t.target, Protocol: t.protocol,
		Status: t.status, BytesIn: t.in, BytesOut: t.out, Route: t.route,
		Head: t.whole.Sub(t.began), Wait: t.wait, Connect: t.connect, FirstByte: t.first, Total: now.Sub(t.began), Retries: t.retries,
		Referer: ex.fields.get("Referer"), UserAgent: ex.fields.get("User-Agent"), End: t.end,
	}
	if ex.whole != nil {
		r.BytesIn = int64(len(ex.whole))
	}
	if t.problem != nil {
		r.Problem = t.problem.Error()
	}
	if ex.server != nil {
		r.Server = ex.server.Label()
	}
	if ex.from != nil {
		r.Pool = ex.from.Name()
	}
	if ex.peer.session != nil {
		ex.peer.session.describe(&r)
	}
	ex.out.line = a.format.Append(ex.out.line[:0], &r, &a.engine.clock)
	a.file.Add(ex.out.line)
	if cap(ex.out.line) > workMost {
		ex.out.line = nil
	}
}

// logNoRequest logs what has not become a request: r says what it was instead.
// Without an access log it does nothing.
func (s *service) logNoRequest(p *peer, began time.Time, r accesslog.Record) {
	a := s.state.Load().access
	if a == nil || !a.file.Hold() {
		return
	}
	defer a.file.Release()
	r.Time, r.Service, r.Client, r.Proxy = began, a.service, p.text, p.proxy
	r.Head, r.Wait, r.Connect, r.FirstByte, r.Total = -1, -1, -1, -1, time.Since(began)
	if p.session != nil {
		p.session.describe(&r)
	}
	if line := a.format.Append(nil, &r, &a.engine.clock); len(line) > 0 {
		a.file.Add(line)
	}
}

// openLog returns the access log of a service, sharing files with those that are
// open already.
func (c *Change) openLog(cfg Config) (*accessLog, error) {
	if cfg.AccessLog == nil {
		return nil, nil
	}
	path := cfg.AccessLog.Path
	if c.logs[path] == nil {
		l := c.engine.openLogs()[path]
		if l == nil {
			var err error
			if l, err = accesslog.Open(path, c.engine.log); err != nil {
				return nil, fmt.Errorf("service %s: %w", cfg.Name, err)
			}
			c.opened = append(c.opened, l)
		}
		c.logs[path] = l
	}
	return &accessLog{cfg.Name, cfg.AccessLog.EffectiveFormat(), c.logs[path], c.engine}, nil
}

// openLogs returns the files that are open now.
func (e *Engine) openLogs() map[string]*accesslog.Log {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.logs
}

// changeLogs puts other files in force; the caller holds e.mu. Those that go are
// closed when the last exchange under way has ended.
func (e *Engine) changeLogs(logs map[string]*accesslog.Log) {
	e.leaving = slices.DeleteFunc(e.leaving, (*accesslog.Log).Closed)
	for path, l := range e.logs {
		if logs[path] != l {
			l.Release()
			e.leaving = append(e.leaving, l)
		}
	}
	e.logs = logs
}

// ReopenLogs opens all access logs anew, so that files that were renamed are left
// alone from then on. The error says which could not be.
func (e *Engine) ReopenLogs(ctx context.Context) error {
	var errs []error
	for _, l := range e.openLogs() {
		errs = append(errs, l.Reopen(ctx))
	}
	return errors.Join(errs...)
}

// logPatience is how long a shutdown waits for the disk.
const logPatience = 2 * time.Second

// closeLogs writes what there is, after the last exchange, and closes the access
// logs.
func (e *Engine) closeLogs() {
	ctx, cancel := context.WithTimeout(context.Background(), logPatience)
	defer cancel()
	e.mu.Lock()
	e.changeLogs(nil)
	leaving := e.leaving
	e.mu.Unlock()
	for _, l := range leaving {
		if err := l.Wait(ctx); err != nil {
			e.log.Error().Err(err).Msg("lines of the access log are lost")
		}
	}
}

// LogStats returns the numbers of the access logs, by path in order.
func (e *Engine) LogStats() []accesslog.Stats {
	logs := e.openLogs()
	out := make([]accesslog.Stats, 0, len(logs))
	for _, path := range sortedKeys(logs) {
		out = append(out, logs[path].Stats())
	}
	return out
}
