package pool

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// ErrNoServer says that no server can take a connection now.
var ErrNoServer = errors.New("no usable server")

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
// A server that is new begins with what known says of its address, if that is
// anything: a pool whose servers are all replaced must not be without one in
// between. known may be nil. A pool that becomes checked keeps its servers up
// until their first verdict, for a reload is no reason to refuse connections;
// one that is checked no longer has all its servers up.
func (p *Pool) Update(cfg Config, known func(address netip.AddrPort) (Health, bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()

	var before []*Server
	if snap := p.snap.Load(); snap != nil {
		before = snap.servers
	}
	now := time.Now()
	servers := make([]*Server, 0, len(cfg.Servers))
	for _, sc := range cfg.Servers {
		address := parseAddress(sc.Address)
		s := find(before, sc.Label(), address)
		if s == nil {
			s = &Server{pool: p, label: sc.Label(), address: address, text: address.String()}
			s.state.Store(&state{health: first(address, known, now), adminSince: now})
		}
		st := *s.state.Load()
		st.weight, st.backup = sc.EffectiveWeight(), sc.Backup
		if cfg.Outlier == nil {
			st.ejection = Ejection{}
		}
		if !cfg.Checked && (st.health.State != Up || st.health.Reason != unchecked) {
			st.health = Health{State: Up, Reason: unchecked, Since: now}
		}
		s.state.Store(&st)
		servers = append(servers, s)
	}
	p.outlier = cfg.Outlier
	p.failureLimit.Store(0)
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
func first(address netip.AddrPort, known func(netip.AddrPort) (Health, bool), now time.Time) Health {
	if known != nil {
		if h, ok := known(address); ok {
			return h
		}
	}
	return Health{State: Unknown, Reason: "not checked yet", Since: now}
}

// unchecked is the reason for which servers without a check are up.
const unchecked = "no check"

// Pick returns a server for one more connection, in accordance with the balance
// rule, and counts the connection: the caller calls the server's Done exactly
// once. The servers in tried are passed over, so that a caller whose connection
// failed gets another. A backup is returned only if there is no other usable
// server left. The error is ErrNoServer, bare.
func (p *Pool) Pick(tried ...*Server) (*Server, error) {
	s := p.current().pick(p.turn.Add(1)-1, tried)
	if s == nil {
		return nil, ErrNoServer
	}
	s.current.Add(1)
	s.total.Add(1)
	return s, nil
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

// SetHealth records a verdict on every server with that address ("IP:port"). A
// server that was down and is up again has shown more than its ejection asks
// for, and is let in.
// An address that the pool does not have is ignored: a verdict may arrive after
// the reload that removed its server. Repeating a verdict costs little.
func (p *Pool) SetHealth(address string, h Health) {
	a := parseAddress(address)
	p.change(func(s *Server, st *state) bool {
		if s.address != a || st.health == h {
			return false
		}
		if h.State == Up && st.health.State == Down {
			st.ejection.out = false
			s.failures.Store(0)
		}
		st.health = h
		return true
	})
}

// SetAdmin records the administrator's wish for the server of that name. The
// error wraps ErrUnknownServer.
func (p *Pool) SetAdmin(label string, a Admin) error {
	found := p.change(func(s *Server, st *state) bool {
		if s.label != label {
			return false
		}
		if st.admin != a {
			st.admin, st.adminSince = a, time.Now()
		}
		return true
	})
	if !found {
		return fmt.Errorf("pool %s: server %s: %w", p.name, label, ErrUnknownServer)
	}
	return nil
}

// change applies edit to a copy of each server's state, stores the copies that
// edit says it has changed, and publishes what follows from them. It reports
// whether there were any.
func (p *Pool) change(edit func(*Server, *state) bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.snap.Load()
	found := false
	for _, s := range old.servers {
		st := *s.state.Load()
		if edit(s, &st) {
			s.state.Store(&st)
			found = true
		}
	}
	if found {
		p.publish()
	}
	return found
}

func find(servers []*Server, label string, address netip.AddrPort) *Server {
	for _, s := range servers {
		if s.label == label && s.address == address {
			return s
		}
	}
	return nil
}

// parseAddress reads an address that Validate has accepted; comparing what it
// returns finds a server however its IPv6 address is spelt.
func parseAddress(s string) netip.AddrPort {
	a, _ := netip.ParseAddrPort(s)
	return a
}
