package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Web is the door for those who watch: it shows what the API shows, and changes
// nothing.
type Web struct {
	address  netip.AddrPort
	listener net.Listener
	http     *http.Server
	closing  chan struct{}
	served   chan struct{}
	allow    atomic.Pointer[[]netip.Prefix]
}

// webPatience is how long one who watches may take for an answer, or, who follows
// events, for those that there are.
const webPatience = 30 * time.Second

// ListenWeb binds address. It answers GET /metrics by metrics, /healthz, and what
// of the API changes nothing, from Serve on; the caller calls Close.
func ListenWeb(address netip.AddrPort, backend Backend, metrics http.Handler, log zerolog.Logger) (*Web, error) {
	return listenWeb(address, backend, metrics, log, webPatience)
}

func listenWeb(address netip.AddrPort, backend Backend, metrics http.Handler, log zerolog.Logger, patience time.Duration) (*Web, error) {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(address))
	if err != nil {
		return nil, fmt.Errorf("admin.listen: %w", err)
	}
	w := &Web{address: address, listener: l, closing: make(chan struct{}), served: make(chan struct{})}
	w.http = &http.Server{
		Handler:           w.guard(webHandler(backend, metrics, log, w.closing, patience)),
		ReadHeaderTimeout: 10 * time.Second, WriteTimeout: patience, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	w.http.RegisterOnShutdown(func() { close(w.closing) })
	return w, nil
}

// Address returns what it was bound to.
func (w *Web) Address() netip.AddrPort { return w.address }

// Allow says from which networks, besides this host, requests are answered.
func (w *Web) Allow(networks []netip.Prefix) { w.allow.Store(&networks) }

// Serve begins to answer.
func (w *Web) Serve() {
	go func() {
		defer close(w.served)
		_ = w.http.Serve(w.listener) // ends with Close, that is its error
	}()
}

// Close ends what Serve began, or else closes what was bound. Requests under way
// get a second.
func (w *Web) Close() {
	if w.allow.Load() == nil { // never in force
		w.listener.Close()
		return
	}
	grace, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := w.http.Shutdown(grace); err != nil {
		w.http.Close()
	}
	<-w.served
}

// guard refuses strangers.
func (w *Web) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if err := w.admits(r); err != nil {
			http.Error(rw, err.Error(), http.StatusForbidden)
			return
		}
		next.ServeHTTP(rw, r)
	})
}

func (w *Web) admits(r *http.Request) error {
	client, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return errors.New("who asks is not known")
	}
	from := client.Addr().Unmap()
	if !from.IsLoopback() {
		if !slices.ContainsFunc(*w.allow.Load(), func(p netip.Prefix) bool { return p.Masked().Contains(from) }) {
			return fmt.Errorf("%s is in none of the networks of admin.allow", from)
		}
		return nil
	}
	// A page of the web in a browser on this machine may ask too, by a name that
	// leads here.
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if _, err := netip.ParseAddr(host); err != nil && host != "localhost" {
		return errors.New("from this host, ask by an address or localhost")
	}
	return nil
}

func webHandler(b Backend, metrics http.Handler, log zerolog.Logger, closing <-chan struct{}, patience time.Duration) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { healthz(w, b.Status()) })
	shown(mux, b, log, closing, patience)
	return mux
}

// healthz says whether the node can do its work; that it is a backup is no
// trouble.
func healthz(w http.ResponseWriter, s Status) {
	var trouble []string
	if !s.Ready {
		trouble = append(trouble, "not ready: waiting for the first checks")
	}
	for _, v := range s.VRRP {
		for _, f := range v.Faults {
			trouble = append(trouble, fmt.Sprintf("vrrp %s: %s: %s", v.Name, f.Source, f.Reason))
		}
	}
	for _, v := range s.Services {
		if v.Fault != "" {
			trouble = append(trouble, fmt.Sprintf("service %s: %s", v.Name, v.Fault))
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if len(trouble) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, strings.Join(trouble, "\n"))
		return
	}
	fmt.Fprintln(w, "ok")
}
