package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// The kinds of files of a Legacy, which their names begin with. The number is that of
// the layout of struct key, flow and server: it grows with each change of these, for a
// process of another version can make nothing of them.
const (
	legacyFlows   = "flows.1-"
	legacyServers = "servers.1-"
	legacyLink    = "link-"
)

// Legacy returns what the next process needs to go on with the flows there are, and
// what keeps the program going until then: the attachments and two maps, by names that
// no other object of the kernel has. They are for whoever keeps open files over a
// restart; given to Options.Legacy, they are taken over. The caller closes them.
func (p *Path) Legacy() (map[string]*os.File, error) {
	p.attaching.Lock()
	defer p.attaching.Unlock()
	files := make(map[string]*os.File)
	var problems []error
	add := func(kind string, id uint32, fd int, err error) {
		if err == nil {
			fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("kernel path: %w", err))
			return
		}
		name := fmt.Sprintf("%s%d", kind, id)
		files[name] = os.NewFile(uintptr(fd), name)
	}
	for kind, m := range map[string]*ebpf.Map{legacyFlows: p.objects.Flows, legacyServers: p.objects.Servers} {
		info, err := m.Info()
		if err != nil {
			problems = append(problems, fmt.Errorf("kernel path: %w", err))
			continue
		}
		id, _ := info.ID()
		add(kind, uint32(id), m.FD(), nil)
	}
	for _, l := range p.links {
		info, err := l.Info()
		if err != nil {
			problems = append(problems, fmt.Errorf("kernel path: %w", err))
			continue
		}
		if owner, ok := l.(interface{ FD() int }); ok { // all of this package are like that
			add(legacyLink, uint32(info.ID), owner.FD(), nil)
		}
	}
	return files, errors.Join(problems...)
}

// estate is what an earlier process has left.
type estate struct {
	flows, servers *ebpf.Map         // nil if there are none, or none that can be read
	links          map[int]link.Link // by interface
	wanted         []int             // interfaces whose links are the Path's by now
}

// newEstate opens what an earlier process has left. What is not understood is left
// out: an attachment that nobody takes over ends.
func newEstate(files map[string]*os.File) *estate {
	e := &estate{links: make(map[int]link.Link)}
	for name, f := range files {
		fd := dup(f)
		switch {
		case strings.HasPrefix(name, legacyFlows):
			e.flows, _ = ebpf.NewMapFromFD(fd) // closes fd, if it is none
		case strings.HasPrefix(name, legacyServers):
			e.servers, _ = ebpf.NewMapFromFD(fd)
		case strings.HasPrefix(name, legacyLink):
			e.addLink(fd)
		default:
			unix.Close(fd)
		}
	}
	return e
}

// addLink takes an attachment, or closes it if there is no such interface any more.
func (e *estate) addLink(fd int) {
	l, err := link.NewFromFD(fd)
	if err != nil {
		return
	}
	info, err := l.Info()
	if err != nil || info.TCX() == nil || info.TCX().Ifindex == 0 || e.links[int(info.TCX().Ifindex)] != nil {
		l.Close()
		return
	}
	e.links[int(info.TCX().Ifindex)] = l
}

// readable reports whether the flows can be read.
func (e *estate) readable() bool {
	return e != nil && e.flows != nil && e.servers != nil
}

// takeLink returns the attachment at an interface, or nil. It is still that of the
// earlier process's program.
func (e *estate) takeLink(index int) link.Link {
	if e == nil || e.links[index] == nil {
		return nil
	}
	l := e.links[index]
	delete(e.links, index)
	e.wanted = append(e.wanted, index)
	return l
}

// closeLinks ends the attachments that are not wanted any more.
func (e *estate) closeLinks() {
	if e == nil {
		return
	}
	for index, l := range e.links {
		l.Close()
		delete(e.links, index)
	}
}

// close ends what nobody has taken over.
func (e *estate) close() {
	if e == nil {
		return
	}
	e.closeLinks()
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
		l := p.links[index]
		if l == nil || l.Update(p.objects.Appliance) == nil {
			continue
		}
		l.Close()
		delete(p.links, index)
		if l, err := p.attach(index); err == nil { // else the interface has gone
			p.links[index] = l
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
