package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/cilium/ebpf"

	"appliance/internal/ingress"
)

// The kinds of files of a Legacy, which their names begin with. The number is that of
// the layout of struct key, flow and server: it grows with each change of these, for a
// process of another version can make nothing of them. Where there is no room for all
// files the last by name are left out: an attachment can be made anew.
const (
	legacyFlows   = "flows.1-"
	legacyServers = "servers.1-"
	legacyLink    = "tcx-"
)

// Legacy returns what the next process needs to go on with the flows there are, and
// what keeps the program going until then: two maps and the attachments, by names that
// no other object of the kernel has. Filters are not among them: nobody would remove
// them if there were no next process. The files are for whoever keeps open files over a
// restart; given to Options.Legacy, they are taken over. The caller closes them.
func (p *Path) Legacy() (map[string]*os.File, error) {
	p.attaching.Lock()
	defer p.attaching.Unlock()
	files := make(map[string]*os.File)
	var problems []error
	add := func(kind string, id uint32, file func() (*os.File, error)) {
		f, err := file()
		if err != nil {
			problems = append(problems, fmt.Errorf("kernel path: %w", err))
			return
		}
		files[fmt.Sprintf("%s%d", kind, id)] = f
	}
	for kind, m := range map[string]*ebpf.Map{legacyFlows: p.objects.Flows, legacyServers: p.objects.Servers} {
		info, err := m.Info()
		if err != nil {
			problems = append(problems, fmt.Errorf("kernel path: %w", err))
			continue
		}
		id, _ := info.ID()
		add(kind, uint32(id), func() (*os.File, error) { return fileOf(m) })
	}
	for _, h := range p.hooks {
		if h.Way() != ingress.TCX {
			continue
		}
		id, err := h.ID()
		if err != nil {
			problems = append(problems, fmt.Errorf("kernel path: %w", err))
			continue
		}
		add(legacyLink, id, h.File)
	}
	return files, errors.Join(problems...)
}

// estate is what an earlier process has left.
type estate struct {
	flows, servers *ebpf.Map             // nil if there are none, or none that can be read
	hooks          map[int]*ingress.Hook // by interface
	wanted         []int                 // interfaces whose hooks are the Path's by now
}

// newEstate opens what an earlier process has left. What is not understood is left
// out: an attachment that nobody takes over ends.
func newEstate(files map[string]*os.File) *estate {
	e := &estate{hooks: make(map[int]*ingress.Hook)}
	for name, f := range files {
		switch {
		case strings.HasPrefix(name, legacyFlows):
			e.flows, _ = ebpf.NewMapFromFD(dup(f)) // closes that, if it is none
		case strings.HasPrefix(name, legacyServers):
			e.servers, _ = ebpf.NewMapFromFD(dup(f))
		case strings.HasPrefix(name, legacyLink):
			e.addHook(f)
		}
	}
	return e
}

// addHook takes an attachment, unless there is no such interface any more.
func (e *estate) addHook(f *os.File) {
	h, err := ingress.Take(f)
	if err != nil {
		return
	}
	if e.hooks[h.Interface()] != nil {
		h.Close()
		return
	}
	e.hooks[h.Interface()] = h
}

// readable reports whether the flows can be read.
func (e *estate) readable() bool {
	return e != nil && e.flows != nil && e.servers != nil
}

// takeHook returns the attachment at an interface, or nil. It is still that of the
// earlier process's program, and stays as it is attached: that must be the way wanted.
func (e *estate) takeHook(index int, way ingress.Way) *ingress.Hook {
	if e == nil || e.hooks[index] == nil || e.hooks[index].Way() != way {
		return nil
	}
	h := e.hooks[index]
	delete(e.hooks, index)
	e.wanted = append(e.wanted, index)
	return h
}

// closeHooks ends the attachments that are not wanted any more.
func (e *estate) closeHooks() {
	if e == nil {
		return
	}
	for index, h := range e.hooks {
		h.Close()
		delete(e.hooks, index)
	}
}

// close ends what nobody has taken over.
func (e *estate) close() {
	if e == nil {
		return
	}
	e.closeHooks()
	if e.flows != nil {
		e.flows.Close()
	}
	if e.servers != nil {
		e.servers.Close()
	}
	e.flows, e.servers = nil, nil
}

// takeOver goes on in the place of the earlier process, when services and interfaces
// are known: with its flows first, then with its attachments, so that each packet finds
// one of the two programs, and this one knows the flow. What has begun in between is
// taken over afterwards. The caller holds attaching.
func (p *Path) takeOver() {
	if p.estate == nil || !p.served || !p.attached {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inherit()
	for _, index := range p.estate.wanted {
		h := p.hooks[index]
		if h == nil || h.Update(p.objects.Appliance) == nil {
			continue
		}
		h.Close()
		delete(p.hooks, index)
		if h, err := p.attach(index); err == nil { // else the interface has gone
			p.hooks[index] = h
		}
	}
	p.inherit()
	p.estate.close()
	p.estate = nil
}

// Inherited returns how many flows were taken over from Options.Legacy.
func (p *Path) Inherited() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.inherited
}

// inherit takes over the established flows of an earlier process that are not here
// yet. The caller holds mu.
func (p *Path) inherit() {
	if !p.estate.readable() {
		return
	}
	now := tick()
	servers := make(map[uint32]netip.AddrPort)
	// What cannot be read is lost, as without the estate.
	_ = each(p.estate.flows, func(k *programKey, f *programFlow) bool {
		var there programFlow
		if f.Reverse != 0 || f.Phase != phaseEstablished || p.objects.Flows.Lookup(k, &there) == nil {
			return true
		}
		server, known := servers[f.Server]
		if !known {
			var s programServer
			if p.estate.servers.Lookup(f.Server, &s) == nil {
				server = addrPort(s.Addr, s.Port)
			}
			servers[f.Server] = server
		}
		if p.inheritFlow(k, f, server, now) {
			p.inherited++
		}
		return true
	})
}

// inheritFlow takes over one flow, which is this node's if it was so before.
func (p *Path) inheritFlow(k *programKey, f *programFlow, server netip.AddrPort, now uint32) bool {
	back := otherKey(k, f)
	seen := f.Seen
	var other programFlow
	if p.estate.flows.Lookup(&back, &other) == nil && age(now, other.Seen) < age(now, seen) {
		seen = other.Seen
	}
	flow := describe(k, f, server)
	flow.Idle = time.Duration(age(now, seen)) << 30
	return p.install(&flow, f.Flags&flagInstalled, now)
}
