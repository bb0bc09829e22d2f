package vrrp

import (
	"errors"
	"slices"
	"time"
)

// The peer link of a simulated network. What is said on it takes delay.

// link gives all nodes a link to each other.
func (n *network) link() {
	n.linked = true
	for _, x := range n.nodes {
		cfg := x.m.cfg
		cfg.Linked = true
		x.step(Reconfigure{Config: cfg})
	}
	for _, x := range n.nodes {
		x.linkBegins()
	}
}

// after has something happen in a moment.
func (n *network) after(d time.Duration, do func()) {
	at := n.now.Add(d)
	i, _ := slices.BinarySearchFunc(n.later, at, func(t timed, at time.Time) int {
		if t.at.After(at) {
			return 1
		}
		return -1
	})
	n.later = slices.Insert(n.later, i, timed{at, do})
}

// others are the counterparts of x on the nodes that it has a link to, as long as
// it lives.
func (x *simulated) others() []*simulated {
	var others []*simulated
	for _, y := range x.net.nodes {
		if y != x && y.lan == x.lan && x.net.linked {
			others = append(others, y)
		}
	}
	return others
}

// counterpart is the one of x on another node.
func (x *simulated) counterpart(host string) *simulated {
	for _, y := range x.others() {
		if y.host == host {
			return y
		}
	}
	panic("no counterpart on " + host)
}

// report is what x says of itself.
func (x *simulated) report() PeerReport {
	s := x.m.snapshot()
	r := PeerReport{Node: x.host, Link: LinkUp, Known: true, Source: s.Source, State: s.State, Effective: s.Effective}
	for _, d := range s.Demotions {
		r.Demoted += d.N
		r.Why = d.Source + ": " + d.Reason
	}
	for _, f := range s.Faults {
		r.Why = "fault " + f.Source + ": " + f.Reason
	}
	return r
}

// tellPeers reports x to the others when there is something new.
func (x *simulated) tellPeers() {
	if r := x.report(); r != x.said {
		x.said = r
		x.tell(r)
	}
}

func (x *simulated) tell(r PeerReport) {
	for _, y := range x.others() {
		x.net.after(delay, func() {
			if !y.dead && !x.net.linkCut {
				y.step(r)
			}
		})
	}
}

// linkEnds tells the others that the link to x has ended, d from now.
func (x *simulated) linkEnds(s LinkState, reason string, d time.Duration) {
	for _, y := range x.others() {
		x.net.after(d, func() {
			if !y.dead && (x.dead || x.net.linkCut) {
				y.step(PeerReport{Node: x.host, Link: s, Reason: reason})
			}
		})
	}
}

// linkBegins tells the others that x is there, and x that they are.
func (x *simulated) linkBegins() {
	for _, y := range x.others() {
		if y.dead || x.dead {
			continue
		}
		for _, ends := range [][2]*simulated{{x, y}, {y, x}} {
			r := ends[0].report()
			x.net.after(delay, func() {
				ends[1].step(PeerReport{Node: r.Node, Link: LinkUp, Reason: "connected"})
				ends[1].step(r)
			})
		}
	}
}

func (x *simulated) ask(a Ask) {
	y := x.counterpart(a.Node)
	x.net.after(2*delay, func() {
		if !y.dead && !x.net.linkCut {
			x.step(y.report())
		}
	})
}

func (x *simulated) askYield(a AskYield) {
	y := x.counterpart(a.Node)
	x.net.note("%s: asks %s to yield", x.name, y.name)
	x.net.after(delay, func() {
		if !y.dead && !x.net.linkCut {
			y.step(Failover{ID: yieldID, Move: Move{Reason: x.name + " is healthier", Back: true}})
		}
	})
}

// The IDs of commands that come by the link; those of a script are small.
const (
	yieldID = 1000
	offerID = 2000 // and the ID of the offer
)

func (x *simulated) offer(a Offer) {
	y := x.counterpart(a.Node)
	x.net.note("%s: offers to %s", x.name, y.name)
	x.net.after(delay, func() {
		if !y.dead && !x.net.linkCut {
			y.step(TakeOver{ID: offerID + a.ID, Node: x.host, Reason: a.Reason})
		}
	})
	x.net.after(OfferTime, func() {
		if !x.dead {
			x.step(Offered{ID: a.ID, Err: errors.New(y.name + " does not answer")})
		}
		if !y.dead && !x.net.linkCut {
			y.step(Withdrawn{ID: offerID + a.ID})
		}
	})
}

// replied passes on the answer to what came by the link.
func (y *simulated) replied(r Reply) bool {
	switch {
	case r.ID < yieldID:
		return false
	case r.ID >= offerID:
		x := y.others()[0]
		y.net.note("%s: confirms: %v", y.name, r.Err)
		y.net.after(delay, func() {
			if !x.dead && !x.net.linkCut {
				x.step(Offered{ID: r.ID - offerID, Err: r.Err})
			}
		})
	}
	return true
}
