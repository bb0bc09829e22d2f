package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"appliance/internal/control"
)

// renderPeers prints what is known of the other nodes by the links to them, and what
// carries the services of this one otherwise.
func renderPeers(w io.Writer, now time.Time, peers []control.Peer, routers []control.VRRP, services []control.Service) {
	for _, p := range peers {
		link := p.Link
		if p.Link != "up" {
			link = strings.ToUpper(p.Link)
		}
		fmt.Fprintf(w, "\nPEER %s (%s): link %s for %s: %s", p.Node, p.Address, link, age(now, p.Since), p.Reason)
		if p.Reported == nil {
			fmt.Fprintln(w)
			continue
		}
		same := "same configuration"
		if !p.SameConfig {
			same = fmt.Sprintf("DIFFERENT CONFIGURATION (sha256 %.12s)", p.ConfigSHA256)
		}
		if p.Link != "up" {
			same += ", as it was last"
		}
		fmt.Fprintf(w, "; version %s, %s\n", p.Version, same)
		renderFlowCopy(w, now, p)
		renderPeerVRRP(w, now, p)
		renderDisagreement(w, p, routers)
		renderPaths(w, p, services)
	}
}

// renderPaths prints which services are carried by the kernel path of one node alone.
func renderPaths(w io.Writer, p control.Peer, services []control.Service) {
	words := map[bool]string{true: "the kernel path", false: "the proxy"}
	for _, s := range p.Services {
		for _, own := range services {
			if here, there := own.Path == "kernel", s.Path == "kernel"; own.Name == s.Name && here != there {
				fmt.Fprintf(w, "%s on %s: carried by %s, here by %s\n", s.Name, p.Node, words[there], words[here])
			}
		}
	}
}

// renderDisagreement prints what the files of the nodes do not have in common though
// an election needs it.
func renderDisagreement(w io.Writer, p control.Peer, routers []control.VRRP) {
	for _, r := range p.VRRP {
		for _, own := range routers {
			switch {
			case own.Name != r.Name:
			case own.VRID != r.VRID:
				fmt.Fprintf(w, "%s on %s: VIRTUAL_ROUTER_ID %d, HERE %d: the nodes do not hear each other; put the same file on both\n", r.Name, p.Node, r.VRID, own.VRID)
			case !slices.Equal(slices.Sorted(slices.Values(own.Addresses)), slices.Sorted(slices.Values(r.Addresses))):
				fmt.Fprintf(w, "%s on %s: OTHER ADDRESSES, %s; put the same file on both\n", r.Name, p.Node, strings.Join(r.Addresses, " "))
			}
		}
	}
}

func renderPeerVRRP(w io.Writer, now time.Time, p control.Peer) {
	for _, r := range p.VRRP {
		state := strings.ToUpper(r.State)
		if r.Yielded {
			state += " (yielded)"
		}
		fmt.Fprintf(w, "%s on %s: %s for %s, priority %d of %d\n", r.Name, p.Node, state, age(now, r.Since), r.Priority, r.BasePriority)
		for _, f := range r.Faults {
			fmt.Fprintf(w, "%s on %s: fault: %s: %s, for %s\n", r.Name, p.Node, f.Source, f.Reason, age(now, f.Since))
		}
		for _, d := range r.Demotions {
			fmt.Fprintf(w, "%s on %s: demoted by %d: %s: %s, for %s\n", r.Name, p.Node, d.Amount, d.Source, d.Reason, age(now, d.Since))
		}
	}
	for _, s := range p.Services {
		switch {
		case s.Fault != "":
			fmt.Fprintf(w, "%s on %s: fault: %s\n", s.Name, p.Node, s.Fault)
		case s.Usable == 0:
			fmt.Fprintf(w, "%s on %s: no usable server\n", s.Name, p.Node)
		}
	}
}
