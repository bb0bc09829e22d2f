package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

// Backend carries out the API's commands. Each function is called from the
// goroutine of a request, so several may run at once. An error that is not an
// *Error is told to the caller as a refusal (409).
type Backend struct {
	Status    func() Status
	Failover  func(context.Context, MoveRequest) ([]MoveResult, error)
	Failback  func(context.Context, MoveRequest) ([]MoveResult, error)
	Reload    func(context.Context) error
	Reopen    func(context.Context) error
	SetServer func(context.Context, ServerRequest) error
	Sessions  func() []Session
	Cut       func(context.Context, CutRequest) (CutResult, error)
	// Events returns the events after a Seq, and a channel that is closed when
	// there is another one.
	Events func(after uint64) ([]Event, <-chan struct{})
}

// Error is a refusal with the HTTP status that tells its kind: 400 for a
// request that makes no sense, 404 for a name nobody knows, 409 for what cannot
// be done now.
type Error struct {
	Status  int
	Message string
}

func (e *Error) Error() string { return e.Message }

// Socket is the administrator's door: it answers the API on a unix socket.
type Socket struct {
	path     string
	listener *net.UnixListener
	http     *http.Server
	log      zerolog.Logger
}

// Listen opens the socket at path with mode 0600, making its folder if need
// be. A socket that a crashed appliance left is replaced; one that still
// answers, or a file that is no socket, is an error. The caller calls Run, which
// closes it, or Close.
func Listen(path string, backend Backend, log zerolog.Logger) (*Socket, error) {
	if err := vacant(path); err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	// The socket gets its mode before it gets its name, so that at no moment
	// anybody else could open it.
	nascent := path + "." + strconv.Itoa(os.Getpid())
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: nascent, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(nascent, 0o600), os.Rename(nascent, path)); err != nil {
		l.Close()
		os.Remove(nascent)
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	s := &Socket{path: path, listener: l, log: log}
	closing := make(chan struct{})
	s.http = &http.Server{Handler: handler(backend, log, closing), ReadHeaderTimeout: 10 * time.Second, ConnContext: withUser}
	// Shutdown waits for requests under way, and those who follow never end.
	s.http.RegisterOnShutdown(func() { close(closing) })
	return s, nil
}

// vacant says why the name cannot be taken: somebody else's file is there, or a
// living appliance.
func vacant(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != os.ModeSocket:
		return errors.New("a file that is no socket has this name; choose another one")
	}
	c, err := net.Dial("unix", path)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	c.Close()
	return errors.New("another appliance answers there; stop it first or choose another socket")
}

// Run answers requests until ctx ends, then lets those under way end for up to
// a second, closes the socket and removes it.
func (s *Socket) Run(ctx context.Context) error {
	served := make(chan error, 1)
	go s.serve(served)
	select {
	case err := <-served:
		s.remove()
		return fmt.Errorf("control socket %s: %w", s.path, err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := s.http.Shutdown(grace); err != nil {
		s.http.Close()
	}
	<-served
	s.remove()
	return nil
}

func (s *Socket) serve(served chan<- error) { served <- s.http.Serve(s.listener) }

// Close closes and removes a socket that Run was never called on.
func (s *Socket) Close() error {
	err := s.listener.Close()
	s.remove()
	return err
}

func (s *Socket) remove() {
	if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.Warn().Err(err).Msg("the control socket could not be removed")
	}
}

// maxRequest bounds a request's body in bytes.
const maxRequest = 64 << 10

func handler(b Backend, log zerolog.Logger, closing <-chan struct{}) http.Handler {
	mux := http.NewServeMux()
	shown(mux, b, log, closing, 0)
	mux.HandleFunc("POST /v1/cut", command(log, b.Cut))
	mux.HandleFunc("POST /v1/failover", command(log, b.Failover))
	mux.HandleFunc("POST /v1/failback", command(log, b.Failback))
	mux.HandleFunc("POST /v1/reload", command(log, func(ctx context.Context, _ struct{}) (struct{}, error) {
		return struct{}{}, b.Reload(ctx)
	}))
	mux.HandleFunc("POST /v1/reopen", command(log, func(ctx context.Context, _ struct{}) (struct{}, error) {
		return struct{}{}, b.Reopen(ctx)
	}))
	mux.HandleFunc("POST /v1/server", command(log, func(ctx context.Context, r ServerRequest) (struct{}, error) {
		return struct{}{}, b.SetServer(ctx, r)
	}))
	return mux
}

// shown adds what only shows. Who follows events has patience, if that is not 0, to
// take those that there are.
func shown(mux *http.ServeMux, b Backend, log zerolog.Logger, closing <-chan struct{}, patience time.Duration) {
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, log, b.Status(), nil)
	})
	mux.HandleFunc("GET /v1/sessions", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, log, b.Sessions(), nil)
	})
	mux.HandleFunc("GET /v1/events", serveEvents(log, b.Events, closing, patience))
}

// command wraps a function from request to answer as a handler.
func command[Q, A any](log zerolog.Logger, do func(context.Context, Q) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q Q
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
		d.DisallowUnknownFields()
		if err := d.Decode(&q); err != nil {
			answer(w, log, nil, &Error{Status: http.StatusBadRequest, Message: "request body: " + err.Error()})
			return
		}
		a, err := do(r.Context(), q)
		answer(w, log, a, err)
	}
}

// failure is the body of an answer that is no success.
type failure struct {
	Error string `json:"error"`
}

func answer(w http.ResponseWriter, log zerolog.Logger, body any, err error) {
	status := http.StatusOK
	if err != nil {
		status = http.StatusConflict
		if e, ok := errors.AsType[*Error](err); ok {
			status = e.Status
		}
		body = failure{Error: err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(body); err != nil {
		log.Debug().Err(err).Msg("control: the caller left before the answer")
	}
}
