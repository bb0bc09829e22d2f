package appliance

import (
	"context"
	"fmt"
	"net/http"

	"appliance/internal/control"
	"appliance/internal/pool"
	"appliance/l4"
)

// sessions describes the connections of layer 4.
func (a *Appliance) sessions() []control.Session {
	all := []control.Session{} // rather than null, for those who read JSON
	for _, s := range a.l4.Sessions() {
		one := control.Session{
			ID: s.ID, Service: s.Service, State: s.State, Client: s.Client.String(), Address: s.Local.String(),
			Pool: s.Pool, Server: s.Server, Seconds: s.Age.Seconds(),
			BytesIn: uint64(s.BytesToServer), BytesOut: uint64(s.BytesToClient),
		}
		if s.Peer != s.Client {
			one.Peer = s.Peer.String()
		}
		all = append(all, one)
	}
	return append(all, a.kernel.sessions()...)
}

// cutSessions resets the connections that fit all that the request names.
func (a *Appliance) cutSessions(_ context.Context, r control.CutRequest) (control.CutResult, error) {
	switch {
	case r == (control.CutRequest{}):
		return control.CutResult{}, &control.Error{Status: http.StatusBadRequest, Message: "name a session, a service, or a pool and its server"}
	case (r.Pool == "") != (r.Server == ""):
		return control.CutResult{}, &control.Error{Status: http.StatusBadRequest, Message: "pool and server go together"}
	}
	n := a.l4.CutSessions(func(s l4.SessionInfo) bool {
		return (r.ID == 0 || r.ID == s.ID) && (r.Service == "" || r.Service == s.Service) &&
			(r.Server == "" || r.Server == s.Server && r.Pool == s.Pool)
	})
	n += a.kernel.cut(func(s control.Session) bool {
		return (r.ID == 0 || r.ID == s.ID) && (r.Service == "" || r.Service == s.Service) &&
			(r.Server == "" || r.Server == s.Server && r.Pool == s.Pool)
	})
	if n == 0 && r.ID != 0 {
		return control.CutResult{}, &control.Error{Status: http.StatusNotFound, Message: fmt.Sprintf("there is no session %d", r.ID)}
	}
	a.log.Info().Uint64("session", r.ID).Str("service", r.Service).Str("server", r.Server).Int("cut", n).Msg("sessions cut by command")
	return control.CutResult{Cut: n}, nil
}

// resetServers takes back what an administrator has set of servers: of all, or
// of one.
func (a *Appliance) resetServers(ctx context.Context, r control.ServerRequest) error {
	r.State = pool.Ready.String()
	if r.Pool != "" || r.Server != "" {
		return a.setServer(ctx, r)
	}
	for name, p := range a.current.Load().pools {
		for _, s := range p.Servers() {
			if s.Stats().Admin == pool.Ready {
				continue
			}
			if err := a.setServer(ctx, control.ServerRequest{Pool: name, Server: s.Label(), State: r.State}); err != nil {
				return err
			}
		}
	}
	return nil
}
