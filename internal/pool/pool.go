package pool

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"appliance/internal/endpoint"
)

// ErrNoServer says that no server can take a connection now.
var ErrNoServer = errors.New("no usable server")

// ErrFull says that all servers that could take a connection have as many as
// they may. Someone who is told so may Queue.
var ErrFull = errors.New("all usable servers are full")

// ErrUnknownServer says that a pool has no server of that name.
var ErrUnknownServer = errors.New("unknown server")

// Pool is a named set of servers. All methods may be called from any goroutine.
type Pool struct {
	name string

	// turn numbers the picks; it outlives snapshots so that a change of one
	// server does not start the round from the first again.
	turn atomic.Uint64
	snap atomic.Pointer[snapshot]

	// failureLimit is how many failures in a row eject a server; 0 for never.
	failureLimit atomic.Int64
	counts5xx    atomic.Bool
	settings     atomic.Pointer[Config] // as of the latest Update
	queue        queue
	downs        downs

	// mu makes one change after the other; readers use snap alone.
	mu      sync.Mutex
	outlier *Outlier
	onEject func(*Server, Ejection)
}

// New makes a pool from a configuration that Validate found no fault with.
func New(cfg Config) *Pool {
	p := &Pool{name: cfg.Name}
	p.Update(cfg, nil)
	return p
}

// OnEject has f called whenever a server is ejected, by the goroutine that saw
// it fail. f must be quick, and not use the pool. It is to be called before the
// pool is used.
func (p *Pool) OnEject(f func(*Server, Ejection)) { p.onEject = f }

// Name returns the name the pool was made with.
func (p *Pool) Name() string { return p.name }

// Update changes the pool to cfg, whose Name is ignored. A server with the same
// label and address as before stays the same: its health, admin state, counters
// and connections are kept. Removed servers are not picked any more, their
// connections go on.
//
// A server that is new begins with what known says of it, if that is
// anything: a pool whose servers are all replaced must not be without one in
// between. known may be nil. A pool that becomes checked keeps its servers up
// until their first verdict, for a reload is no reason to refuse connections;
// one that is checked no longer has all its servers up.
func (p *Pool) Update(cfg Config, known func(ID) (Health, bool)) {
	defer p.serveQueue() // without the lock
	p.mu.Lock()
	defer p.mu.Unlock()

	var before []*Server
	if snap := p.snap.Load(); snap != nil {
		before = snap.servers
	}
	p.settings.Store(&cfg)
	now := time.Now()
	servers := make([]*Server, 0, len(cfg.Servers))
	for _, sc := range cfg.Servers {
		address := parseAddress(sc.Address)
		s := find(before, sc.Label(), address)
		if s == nil {
			s = &Server{pool: p, label: sc.Label(), labelHash: hash([]byte(sc.Label()), 0), address: address, text: address.String()}
			st := state{health: first(s.ID(), known, now), adminSince: now}
			if same := findLabel(before, sc.Label()); same != nil {
				// The administrator means the name, whatever its address.
				st.admin, st.adminSince = same.state.Load().admin, same.state.Load().adminSince
			}
			s.state.Store(&st)
		}
		st := *s.state.Load()
		st.maxConnections, st.slowStart, st.sendProxy = sc.MaxConnections, cfg.SlowStart, cfg.SendProxyTo(sc)
		st.host, st.serverName = hostOf(sc, address), sc.ServerName
		st.weight, st.backup = sc.EffectiveWeight(), sc.Backup
		if cfg.Outlier == nil {
			st.ejection = Ejection{}
		}
		switch {
		case sc.Down != "":
			if st.health.State != Down || st.health.Reason != sc.Down {
				st.health = Health{State: Down, Reason: sc.Down, Since: now}
			}
		case !cfg.Checked && (st.health.State != Up || st.health.Reason != unchecked):
			st.health = Health{State: Up, Reason: unchecked, Since: now}
		}
		s.state.Store(&st)
		servers = append(servers, s)
	}
	for _, s := range before {
		if !slices.Contains(servers, s) {
			st := *s.state.Load()
			st.removed = true
			s.state.Store(&st)
		}
	}
	p.outlier = cfg.Outlier
	p.failureLimit.Store(0)
	p.counts5xx.Store(p.outlier != nil && p.outlier.Count5xx)
	if p.outlier != nil {
		p.failureLimit.Store(int64(p.outlier.EffectiveConsecutiveFailures()))
	}
	p.snap.Store(newSnapshot(cfg.Balance, servers))
}

// publish computes the snapshot anew from the states of the servers. The caller
// holds the lock.
func (p *Pool) publish() {
	old := p.snap.Load()
	p.snap.Store(newSnapshot(old.balance, old.servers))
}

// first returns the health that a new server begins with.
func first(server ID, known func(ID) (Health, bool), now time.Time) Health {
	if known != nil {
		if h, ok := known(server); ok {
			return h
		}
	}
	return Health{State: Unknown, Reason: "not checked yet", Since: now}
}

// unchecked is the reason for which servers without a check are up.
const unchecked = "no check"

// Pick does what PickFor does for a client that is not known.
func (p *Pool) Pick(tried ...*Server) (*Server, error) { return p.PickFor(netip.Addr{}, tried...) }

// PickFor returns a server for one more connection of a client, in accordance
// with the balance rule, and counts the connection: the caller calls the
// server's Done exactly once. The servers in tried are passed over, so that a
// caller whose connection failed gets another. A backup is returned only if
// there is no other usable server left. The error is ErrNoServer or ErrFull,
// bare.
func (p *Pool) PickFor(client netip.Addr, tried ...*Server) (*Server, error) {
	return p.PickAt(time.Now(), client, tried...)
}

// PickAt does what PickFor does for a caller who has asked for the time, now, not long
// ago.
func (p *Pool) PickAt(now time.Time, client netip.Addr, tried ...*Server) (*Server, error) {
	c := choice{turn: p.turn.Add(1) - 1, client: client, tried: tried}
	for {
		s := p.current().pick(&c)
		switch {
		case s == nil && c.full:
			return nil, ErrFull
		case s == nil:
			return nil, ErrNoServer
		}
		limit := int64(s.state.Load().maxConnections)
		if s.current.Add(1) > limit && limit > 0 {
			s.Done() // somebody else was faster; choose again
			continue
		}
		s.count(now)
		return s, nil
	}
}

// Usable returns how many servers share the connections now: those that are up
// and ready and no backups or, if there is none, the backups that are or, if
// there is none either, those that are ejected. It is 0 exactly if Pick() fails.
func (p *Pool) Usable() int { return p.current().usable() }

// Servers returns the servers in the order of the configuration. The slice is
// the caller's.
func (p *Pool) Servers() []*Server {
	return append([]*Server(nil), p.snap.Load().servers...)
}

// SetHealth is Judge for the servers of one address.
func (p *Pool) SetHealth(address string, h Health) {
	verdicts := make(map[ID]Health)
	for _, s := range p.snap.Load().servers {
		if s.address == parseAddress(address) {
			verdicts[s.ID()] = h
		}
	}
	p.Judge(verdicts)
}

// Judge records verdicts on servers. One that was down and is up again has shown more
// than its ejection asks for, and is let in.
// A server that the pool does not have is ignored: a verdict may arrive after
// the reload that removed it. Repeating verdicts costs little; all of one
// call cost hardly more than a single one.
func (p *Pool) Judge(verdicts map[ID]Health) {
	var fell []*Server
	p.change(func(s *Server, before *state) *state {
		h, ok := verdicts[s.ID()]
		if !ok || before.health == h {
			return nil
		}
		st := *before
		if h.State == Up && st.health.State == Down {
			st.ejection.out = false
			s.failures.Store(0)
		}
		if st.health.State == Up && h.State == Down {
			fell = append(fell, s)
		}
		st.health = h
		return &st
	})
	if len(fell) > 0 && p.settings.Load().OnServerDown == DownReset {
		p.downs.tell(fell)
	}
}

// SetAdmin records the administrator's wish for the server of that name. The
// error wraps ErrUnknownServer.
func (p *Pool) SetAdmin(label string, a Admin) error {
	found := p.change(func(s *Server, before *state) *state {
		if s.label != label {
			return nil
		}
		st := *before
		if st.admin != a {
			st.admin, st.adminSince = a, time.Now()
		}
		return &st
	})
	if !found {
		var known []string
		for _, s := range p.snap.Load().servers {
			known = append(known, s.label)
		}
		return fmt.Errorf("pool %s: server %s: %w; known: %s", p.name, label, ErrUnknownServer, strings.Join(known, ", "))
	}
	return nil
}

// change has edit look at the state of each server, stores the new ones that it
// returns instead, and publishes what follows from them. It reports whether there
// were any.
func (p *Pool) change(edit func(s *Server, before *state) *state) bool {
	p.mu.Lock()
	found := false
	for _, s := range p.snap.Load().servers {
		before := s.state.Load()
		st := edit(s, before)
		if st == nil {
			continue
		}
		// A server that has never been judged has nothing to recover from.
		if st.usable() && !before.usable() && before.health.State != Unknown {
			st.rampFrom = time.Now()
		}
		s.state.Store(st)
		found = true
	}
	if found {
		p.publish()
	}
	p.mu.Unlock()
	if found {
		p.serveQueue()
	}
	return found
}

func find(servers []*Server, label string, address endpoint.Endpoint) *Server {
	for _, s := range servers {
		if s.label == label && s.address == address {
			return s
		}
	}
	return nil
}

func findLabel(servers []*Server, label string) *Server {
	for _, s := range servers {
		if s.label == label {
			return s
		}
	}
	return nil
}

// parseAddress reads an address that Validate has accepted; comparing what it
// returns finds a server however its IPv6 address is spelt.
func parseAddress(s string) endpoint.Endpoint {
	e, _ := endpoint.Parse(s)
	return e
}
