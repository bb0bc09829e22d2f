package appliance

import (
	"appliance/internal/control"
	"appliance/internal/peer"
)

// describePeers describes the other nodes as the links tell.
func (a *Appliance) describePeers(current *setup) []control.Peer {
	peers, flows := []control.Peer{}, a.flows.statuses()
	for _, s := range a.peers.statuses() {
		p := control.Peer{
			Node: s.Node, Address: s.Address, Link: s.State.String(), Since: s.Since, Reason: s.Reason,
			Version: s.Report.Version, ConfigSHA256: s.Report.ConfigSHA256, SameConfig: s.Report.ConfigSHA256 == current.file.Hash,
			VRRP: []control.PeerVRRP{}, Services: []control.PeerService{},
		}
		if !s.Reported.IsZero() {
			p.Reported = &s.Reported
		}
		for _, r := range s.Report.Routers {
			p.VRRP = append(p.VRRP, control.PeerVRRP{
				Name: r.Name, VRID: r.VRID, Addresses: append([]string{}, r.Addresses...), State: r.State, Since: r.Since,
				BasePriority: r.Base, Priority: r.Effective, Yielded: r.Yielded, Draining: r.Draining,
				Demotions: conditions(r.Demotions), Faults: conditions(r.Faults),
			})
		}
		for _, v := range s.Report.Services {
			p.Services = append(p.Services, control.PeerService(v))
		}
		if f, ok := flows[s.Node]; ok {
			p.Flows = describeFlows(f)
		}
		peers = append(peers, p)
	}
	return peers
}

func conditions(list []peer.Condition) []control.Condition {
	out := make([]control.Condition, len(list))
	for i, c := range list {
		out[i] = control.Condition(c)
	}
	return out
}
