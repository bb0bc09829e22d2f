package kernel

import "fmt"

// Cut forgets the established flows that are meant, those of the other node among
// them, and returns how many those were. Their next packets find no flow: with TCP
// the stack answers both sides with a reset, with UDP the client's begins another
// one. meant may call the Path. It ends what TakeStrays began: what was cut is not to
// come back.
func (p *Path) Cut(meant func(Flow) bool) (int, error) {
	p.setSettings(func(s *programSettings) { s.Strays = 0 })
	now := tick()
	var ends []Change
	err := p.each(func(k *programKey, f *programFlow) bool {
		if f.Reverse != 0 || f.Phase != phaseEstablished {
			return true
		}
		flow, ok := p.flow(k, f, now)
		if !ok || !meant(flow) {
			return true
		}
		back := otherKey(k, f)
		_ = p.objects.Flows.Delete(&back)
		if p.objects.Flows.Delete(k) == nil { // else it has just ended by itself
			flow.Idle = 0 // that of its end
			ends = append(ends, Change{Kind: Ended, Flow: flow})
		}
		return true
	})
	p.reports.deliver(ends)
	if err != nil {
		return len(ends), fmt.Errorf("kernel path: reading the flows: %w", err)
	}
	return len(ends), nil
}
