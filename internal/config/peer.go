package config

import (
	"fmt"
	"net/netip"
	"time"

	"appliance/internal/peer"
)

// Peer is the table [peer]: the link between the nodes.
type Peer struct {
	// SecretFile is the path of the secret that all nodes share; required.
	SecretFile string `toml:"secret_file"`
	// Port is where each node listens on its address; default 7112.
	Port int `toml:"port"`
	// Heartbeat is how often a node is heard at least, 50 ms to 10 s; 0 for the
	// shortest advert interval, from 50 ms to 250 ms.
	Heartbeat time.Duration `toml:"heartbeat"`
}

// DefaultPeerPort is the port of the peer link when the file does not say.
const DefaultPeerPort = 7112

// The bounds of the heartbeat that a file does not give.
const (
	minPeerHeartbeat = peer.MinHeartbeat
	maxPeerHeartbeat = 250 * time.Millisecond
)

func (p *Peer) setDefaults() { p.Port = DefaultPeerPort }

// PeerNode is the peer link as one node runs it. Secret is left empty in the
// Config, for the caller to read from SecretFile.
type PeerNode struct {
	peer.Config
	SecretFile string
}

// peerNode returns the link of a node; nil if there is none.
func (f *File) peerNode(node string) *PeerNode {
	if f.Peer == nil {
		return nil
	}
	at := func(name string) netip.AddrPort {
		return netip.AddrPortFrom(f.Nodes[name].Address, uint16(f.Peer.Port))
	}
	n := &PeerNode{SecretFile: f.Peer.SecretFile, Config: peer.Config{
		Node: node, Address: at(node), Peers: make(map[string]netip.AddrPort), Heartbeat: f.heartbeat(),
	}}
	for _, name := range f.NodeNames() {
		if name != node && !f.Nodes[name].Keepalived {
			n.Peers[name] = at(name)
		}
	}
	return n
}

func (f *File) heartbeat() time.Duration {
	if f.Peer.Heartbeat != 0 {
		return f.Peer.Heartbeat
	}
	pace := maxPeerHeartbeat
	for _, v := range f.VRRP {
		pace = min(pace, v.AdvertInterval)
	}
	return max(pace, minPeerHeartbeat)
}

// linked says whether there is a link from a node to others.
func (f *File) linked(node string) bool {
	if f.Peer == nil {
		return false
	}
	for name, n := range f.Nodes {
		if name != node && !n.Keepalived {
			return true
		}
	}
	return false
}

// validatePeer reports mistakes in the peer link.
func (f *File) validatePeer(r *report) {
	p := f.Peer
	if p == nil {
		return
	}
	if p.SecretFile == "" {
		r.invalid("peer.secret_file", "the link between the nodes needs a secret; let applianctl secret print one into a file, and name that file here")
	}
	if p.Port < 1 || p.Port > 65535 {
		r.invalid("peer.port", "%d is no port; 1 to 65535 are", p.Port)
	}
	if p.Heartbeat != 0 && (p.Heartbeat < peer.MinHeartbeat || p.Heartbeat > peer.MaxHeartbeat) {
		r.invalid("peer.heartbeat", "the heartbeat may be %s to %s", "50ms", "10s")
	}
	for _, l := range f.listeners() {
		for _, name := range f.NodeNames() {
			if a := netip.AddrPortFrom(f.Nodes[name].Address, uint16(p.Port)); !l.udp && overlap(a, l.address) {
				r.invalid(l.path, "%s overlaps %s, where node %s listens for the other one; choose another port here or in [peer]", l.address, a, name)
				break
			}
		}
	}
	ours := 0
	for _, n := range f.Nodes {
		if !n.Keepalived {
			ours++
		}
	}
	if ours < 2 {
		r.dangling("peer", "there is no other node to have a link with; the file needs two [node.NAME] that run no keepalived")
	}
}

// checkSecret reports a secret of no use.
func (f *File) checkSecret(r *report) {
	if f.Peer == nil || f.Peer.SecretFile == "" {
		return
	}
	if _, err := peer.ReadSecret(f.Peer.SecretFile); err != nil {
		r.invalid("peer.secret_file", "%s", fmt.Sprintf("the secret cannot be used: %v", readable(err)))
	}
}
