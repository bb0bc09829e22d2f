package vrrp

import (
	"sync"
	"time"
)

// Groups are the groups of routers that move together on one node, by the names
// that Config.Group gives them. All routers of a process share one.
type Groups struct {
	// mu is held while a machine is stepped, with the others of its group: what
	// they do together they do in one instant, whichever of their goroutines
	// began it. Nothing waits meanwhile.
	mu      sync.Mutex
	groups  map[string]*group
	routers map[*Machine]*Router // that have a place
}

// NewGroups returns no groups yet.
func NewGroups() *Groups {
	return &Groups{groups: make(map[string]*group), routers: make(map[*Machine]*Router)}
}

// Join gives routers their places in the groups that their configurations name:
// before Run, all of those together that start together, so that none of them
// begins without the others. A router that comes to a group that is alive moves
// with it as soon as it is ready.
func (s *Groups) Join(routers ...*Router) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range routers {
		s.routers[r.machine] = r
		s.place(time.Now(), r.machine)
	}
	s.handOut(nil)
}

// Leave takes the places of routers away: they go on alone, to resign for
// example while the others do not.
func (s *Groups) Leave(routers ...*Router) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range routers {
		s.leave(time.Now(), r.machine)
	}
	s.handOut(nil)
	for _, r := range routers {
		delete(s.routers, r.machine)
	}
}

// step feeds r's machine, and returns what r is to do with how the source of ev
// stood before and stands now. What the others of its group are to do is handed
// out to them.
func (s *Groups) step(r *Router, ev Event) (before, now int, actions []Action) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, m := time.Now(), r.machine
	before = r.standing(ev)
	if g := m.mate.group; g != nil {
		g.step(at, m, ev)
	} else {
		m.step(at, ev)
	}
	_, again := ev.(Reconfigure)
	_, placed := s.routers[m]
	if again && placed {
		s.place(at, m)
	}
	if again || m.mate.group != nil {
		s.handOut(r)
	}
	return before, r.standing(ev), r.collect()
}

// collect returns what r is to do by now. The caller holds mu.
func (r *Router) collect() []Action {
	out := append(r.outbox, r.machine.out...)
	r.outbox, r.machine.out = nil, nil
	return out
}

// handOut tells the routers that have something to do for the sake of others. The
// one that is at work knows.
func (s *Groups) handOut(atWork *Router) {
	for m, r := range s.routers {
		if r == atWork {
			continue
		}
		r.outbox = append(r.outbox, m.out...)
		m.out = nil
		if len(r.outbox) == 0 {
			continue
		}
		select {
		case r.wake <- struct{}{}:
		default: // it is awake already
		}
	}
}

// place moves a machine to the group that its configuration names.
func (s *Groups) place(now time.Time, m *Machine) {
	name := m.cfg.Group
	if old := m.mate.group; old != nil && old.name == name {
		return
	}
	s.leave(now, m)
	if name == "" || m.stopped {
		return
	}
	g := s.groups[name]
	if g == nil {
		g = &group{name: name}
		s.groups[name] = g
	}
	g.join(now, m)
}

func (s *Groups) leave(now time.Time, m *Machine) {
	g := m.mate.group
	if g == nil {
		return
	}
	g.leave(now, m)
	if len(g.members) == 0 {
		delete(s.groups, g.name)
	}
}

// deadline is when the machine wants a Tick.
func (r *Router) deadline() time.Time {
	r.groups.mu.Lock()
	defer r.groups.mu.Unlock()
	return r.machine.Deadline()
}

// state is the machine's state.
func (r *Router) state() State {
	r.groups.mu.Lock()
	defer r.groups.mu.Unlock()
	return r.machine.State()
}

// follow does what another router of the group has made this one's machine want.
func (r *Router) follow() {
	r.groups.mu.Lock()
	actions := r.collect()
	r.groups.mu.Unlock()
	r.carryOutAll(actions)
}

// reportHeld tells of a router that stays a backup though it hears nothing.
func (r *Router) reportHeld(a Held) {
	r.tell(a)
	if a.Reason == "" {
		r.log.Info().Msg("no longer held back from taking over")
		return
	}
	r.log.Warn().Str("reason", a.Reason).Msg("not taking over")
}
