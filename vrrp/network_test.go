package vrrp

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// delay is how long a message takes on the LAN.
const delay = ms

// network is some LANs of machines on virtual time, which writes down what they do.
type network struct {
	now     time.Time
	nodes   []*simulated
	wire    []message
	cut     map[string]bool // nodes that are off the LAN
	deaf    map[string]bool // nodes that hear nobody on it
	check   func()          // after every step of a group
	linked  bool            // there is a peer link
	linkCut bool            // it is silent
	later   []timed         // what happens on it, in order
	log     strings.Builder
	started time.Time
}

type message struct {
	at     time.Time
	from   *simulated
	advert Heard
}

// timed is something that will happen.
type timed struct {
	at time.Time
	do func()
}

// simulated is one machine with the outside world it wants.
type simulated struct {
	net         *network
	name        string
	host        string // the node that it is a router of; its name by default
	lan         string
	m           *Machine
	failing     bool // acquiring fails
	unreached   bool // it does not reach what it should
	missing     bool // somebody took the addresses off
	keepalived  bool // it does what a keepalived does, with preempt=false for nopreempt
	busy        bool // connections never end by themselves
	dead        bool // killed or stopped: it does nothing
	transitions int
	lastSent    int        // priority
	said        PeerReport // what the others know of it by the link
}

func newNetwork() *network {
	return &network{now: epoch, started: epoch, cut: make(map[string]bool), deaf: make(map[string]bool)}
}

func (n *network) add(name, source string, change func(*Config)) {
	cfg := testConfig()
	cfg.Source, cfg.Peers = addr(source), nil
	change(&cfg)
	n.nodes = append(n.nodes, &simulated{net: n, name: name, host: name, m: NewMachine(cfg, n.now), lastSent: -1})
}

// meet makes every node know the base priorities of the others on its LAN.
func (n *network) meet() {
	for _, x := range n.nodes {
		cfg := x.m.cfg
		cfg.Peers = nil
		for _, y := range n.nodes {
			// A keepalived knows of nobody's base priority.
			if x != y && x.lan == y.lan && !x.keepalived {
				cfg.Peers = append(cfg.Peers, Peer{Name: y.host, Address: y.m.cfg.Source, Priority: y.m.cfg.Priority, Keepalived: y.keepalived})
			}
		}
		x.step(Reconfigure{Config: cfg})
	}
}

func (n *network) node(name string) *simulated {
	for _, x := range n.nodes {
		if x.name == name {
			return x
		}
	}
	panic("no node " + name)
}

// run lets d pass.
func (n *network) run(d time.Duration) {
	end := n.now.Add(d)
	for {
		next, do := end, func() {}
		if len(n.wire) > 0 && !n.wire[0].at.After(next) {
			next, do = n.wire[0].at, n.deliver
		}
		if len(n.later) > 0 && !n.later[0].at.After(next) {
			next = n.later[0].at
			do = func() {
				first := n.later[0]
				n.later = n.later[1:]
				first.do()
			}
		}
		for _, x := range n.nodes {
			if at := x.m.Deadline(); !x.dead && !at.IsZero() && at.Before(next) {
				next, do = at, func() { x.step(Tick{}) }
			}
		}
		// A machine that slept may be late; time does not run backwards.
		if next.After(n.now) {
			n.now = next
		}
		if n.now.Equal(end) && (len(n.later) == 0 || n.later[0].at.After(end)) && (len(n.wire) == 0 || n.wire[0].at.After(end)) {
			return
		}
		do()
	}
}

// deliver hands the first message to all others.
func (n *network) deliver() {
	msg := n.wire[0]
	n.wire = n.wire[1:]
	for _, x := range n.nodes {
		if x != msg.from && x.lan == msg.from.lan && !x.dead && !n.cut[x.name] && !n.deaf[x.name] {
			x.step(msg.advert)
		}
	}
}

// note writes a line with the time since the start.
func (n *network) note(format string, args ...any) {
	at := n.now.Sub(n.started).Round(ms)
	fmt.Fprintf(&n.log, "%8s  %s\n", at, fmt.Sprintf(format, args...))
}

// step feeds the machine, and plays the world around it and its group.
func (x *simulated) step(ev Event) {
	g := x.m.mate.group
	if g == nil {
		x.carryOut(x.m.Step(x.net.now, ev))
		return
	}
	members := slices.Clone(g.members)
	g.step(x.net.now, x.m, ev)
	if x.net.check != nil {
		x.net.check()
	}
	x.net.collect(members)
}

// collect carries out what machines want after one of their group was stepped.
func (n *network) collect(members []*Machine) {
	for _, m := range members {
		out := m.out
		m.out = nil
		for _, y := range n.nodes {
			if y.m == m {
				y.carryOut(out)
			}
		}
	}
}

// carryOut plays the world around the machine.
func (x *simulated) carryOut(actions []Action) {
	n := x.net
	// What the actions lead to comes after all of them, as from a mailbox.
	var next []Event
	for _, a := range actions {
		switch a := a.(type) {
		case Send:
			// The rhythm is not news, a change of priority is.
			if a.Priority != x.lastSent {
				n.note("%s: send priority %d", x.name, a.Priority)
				x.lastSent = a.Priority
			}
			if !n.cut[x.name] {
				n.wire = append(n.wire, message{at: n.now.Add(delay), from: x, advert: Heard{
					Source: x.m.cfg.Source, Priority: a.Priority, Interval: x.m.cfg.AdvertInterval}})
			}
		case Acquire:
			n.note("%s: acquire %s", x.name, list(a.Addresses))
			next = append(next, x.acquire(a.Term))
		case Renew:
			next = append(next, x.acquire(a.Term))
		case Release:
			n.note("%s: release %s", x.name, list(a.Addresses))
		case Announce:
			n.note("%s: announce %s", x.name, list(a.Addresses))
			next = append(next, Announced{Term: a.Term})
		case Drain:
			n.note("%s: drain for %s", x.name, a.Deadline.Sub(n.now))
			if !x.busy {
				next = append(next, Drained{ID: a.ID})
			}
		case Alarm:
			n.note("%s: alarm %s: %s", x.name, a.Name, a.Reason)
		case Ask:
			x.ask(a)
		case AskYield:
			x.askYield(a)
		case Offer:
			x.offer(a)
		case Resume:
			n.note("%s: resume", x.name)
		case Transition:
			n.note("%s: %s -> %s: %s", x.name, a.From, a.To, a.Reason)
			x.transitions++
		case Restored:
			n.note("%s: restored %s: %s", x.name, list(a.Addresses), a.Reason)
		case Foreign:
			if a.Tell {
				n.note("%s: %s claims %s, %d frames so far", x.name, a.Claim.MAC, a.Claim.Address, a.Claim.Count)
			}
		case Held:
			if a.Reason == "" {
				a.Reason = "no longer"
			}
			n.note("%s: held: %s", x.name, a.Reason)
		case Look:
			x.look(a)
		case Late:
			n.note("%s: late by %s", x.name, a.By.Round(ms))
		case Reply:
			if x.replied(a) {
				continue
			}
			if a.Err != nil {
				n.note("%s: reply: %s", x.name, a.Err)
			} else {
				n.note("%s: reply: %s is active", x.name, a.Active)
			}
		case Stopped:
			n.note("%s: stopped", x.name)
			x.dead = true
			x.linkEnds(LinkGoodbye, "it has stopped", delay)
		}
	}
	for _, ev := range next {
		x.step(ev)
	}
	x.tellPeers()
}

// look answers a Look.
func (x *simulated) look(a Look) {
	answer, after := Looked{ID: a.ID}, 2*delay
	if x.unreached {
		answer.Missing, after = a.Hosts, LookPatience-delay
	}
	x.net.after(after, func() {
		if !x.dead {
			x.step(answer)
		}
	})
}

// acquire answers an Acquire or Renew.
func (x *simulated) acquire(term uint64) Event {
	if x.failing {
		return AcquireFailed{Term: term, Reason: "no such device"}
	}
	done := Acquired{Term: term, At: x.net.now}
	if x.missing {
		x.missing, done.Added = false, x.m.cfg.Addresses
	}
	return done
}

func list(addresses []netip.Prefix) string {
	words := make([]string, len(addresses))
	for i, a := range addresses {
		words[i] = a.String()
	}
	return strings.Join(words, " ")
}
