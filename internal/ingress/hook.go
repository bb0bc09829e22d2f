package ingress

import (
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	tcx "github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"appliance/internal/link"
)

// Way is how programs are attached.
type Way string

// The ways.
const (
	TCX    Way = "tcx"
	Clsact Way = "clsact"
)

// Filter is what remains of an attachment by clsact when its process is dead.
type Filter = link.Filter

// Best returns the way by which this kernel attaches programs like p: tcx if it can. The
// error wraps ebpf.ErrNotSupported, or says what the process lacks.
func Best(p *ebpf.Program) (Way, error) {
	// Where there is no interface of that number, a kernel with tcx says so.
	l, err := tcx.AttachTCX(tcx.TCXOptions{Interface: math.MaxInt32, Program: p, Attach: ebpf.AttachTCXIngress})
	if l != nil {
		l.Close()
	}
	switch {
	case errors.Is(err, unix.ENODEV):
		return TCX, nil
	case errors.Is(err, ebpf.ErrNotSupported):
		return Clsact, nil
	}
	return "", err
}

// Role is what a program does.
type Role int

// The roles, in the order in which they see a packet.
const (
	// KernelPath is that of the kernel path of layer 4. By tcx it comes before what
	// is there when it is attached.
	KernelPath Role = iota
	// Handover hands packets over to the other node. By tcx it comes after what is
	// there when it is attached.
	Handover
)

// Preference returns that of a role's filter: filters of smaller ones see packets first.
func (r Role) Preference() uint16 { return 7112 + uint16(r) }

// String returns what a role's filter is called.
func (r Role) String() string {
	return [...]string{"kernel path", "hand-over"}[r]
}

// anchor returns the place of a role's program among those attached by tcx.
func (r Role) anchor() tcx.Anchor {
	if r == KernelPath {
		return tcx.Head()
	}
	return tcx.Tail()
}

// Hook is a program that is attached to an interface. Its methods are for one goroutine
// at a time. Close ends it.
type Hook struct {
	way   Way
	index int

	link tcx.Link // tcx

	filters *link.Filters // clsact
	filter  Filter
	jump    *ebpf.Map     // of which the program is the only entry
	first   *ebpf.Program // the filter's, which goes on to that
}

// Attach attaches p to the interface with an index, in the network namespace of the
// calling thread.
func Attach(way Way, index int, role Role, p *ebpf.Program) (*Hook, error) {
	h := &Hook{way: way, index: index}
	if way == TCX {
		l, err := tcx.AttachTCX(tcx.TCXOptions{Interface: index, Program: p, Attach: ebpf.AttachTCXIngress, Anchor: role.anchor()})
		h.link = l
		return h, err
	}
	if err := h.putFilter(role, p); err != nil {
		h.closeParts()
		return nil, err
	}
	return h, nil
}

// putFilter attaches p by a filter.
func (h *Hook) putFilter(role Role, p *ebpf.Program) (err error) {
	if h.jump, err = ebpf.NewMap(&ebpf.MapSpec{Name: "jump", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1}); err != nil {
		return err
	}
	const next = -1 // TC_ACT_UNSPEC: whatever comes next
	h.first, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "go_on", Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress, License: "GPL",
		Instructions: asm.Instructions{
			asm.LoadMapPtr(asm.R2, h.jump.FD()),
			asm.Mov.Imm(asm.R3, 0),
			asm.FnTailCall.Call(),
			asm.Mov.Imm(asm.R0, next),
			asm.Return(),
		},
	})
	if err != nil {
		return err
	}
	if err := h.Update(p); err != nil {
		return err
	}
	info, err := h.first.Info()
	if err != nil {
		return err
	}
	id, ok := info.ID()
	if !ok {
		return errors.New("the kernel numbers no programs")
	}
	if h.filters, err = link.OpenFilters(); err != nil {
		return err
	}
	at := Filter{Interface: h.index, Program: uint32(id)}
	if err := h.filters.Put(at, role.Preference(), role.String(), h.first.FD()); err != nil {
		return err
	}
	h.filter = at
	return nil
}

// Take takes over an attachment by tcx from a file of an earlier process, which stays
// the caller's. The error says that it is none, or that its interface has gone.
func Take(file *os.File) (*Hook, error) {
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	l, err := tcx.NewFromFD(fd) // closes fd, if it is none
	if err != nil {
		return nil, err
	}
	info, err := l.Info()
	if err == nil && (info.TCX() == nil || info.TCX().Ifindex == 0) {
		err = errors.New("its interface has gone")
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &Hook{way: TCX, index: int(info.TCX().Ifindex), link: l}, nil
}

// Interface returns the index of the interface.
func (h *Hook) Interface() int { return h.index }

// Way returns how it is attached.
func (h *Hook) Way() Way { return h.way }

// Update has another program look at packets from now on; each packet finds one of the
// two.
func (h *Hook) Update(p *ebpf.Program) error {
	if h.way == TCX {
		return h.link.Update(p)
	}
	return h.jump.Put(uint32(0), uint32(p.FD()))
}

// Gone reports whether the attachment is not there any more, as it happens with its
// interface. Where nothing can be known it reports false.
func (h *Hook) Gone() bool {
	if h.way == TCX {
		info, err := h.link.Info()
		return err == nil && info.TCX() != nil && int(info.TCX().Ifindex) != h.index
	}
	there, err := h.filters.Has(h.filter)
	return err == nil && !there
}

// File returns a file that keeps the program looking at packets while it is open, in
// whatever process. The caller closes it.
func (h *Hook) File() (*os.File, error) {
	fd := -1
	if h.way == TCX {
		owner, ok := h.link.(interface{ FD() int })
		if !ok { // all links that can be attached like this are
			return nil, errors.New("the attachment has no descriptor")
		}
		fd = owner.FD()
	} else {
		fd = h.jump.FD()
	}
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "attachment"), nil
}

// ID returns a number that no other attachment by tcx has.
func (h *Hook) ID() (uint32, error) {
	if h.way != TCX {
		return 0, fmt.Errorf("%s has no numbers", h.way)
	}
	info, err := h.link.Info()
	if err != nil {
		return 0, err
	}
	return uint32(info.ID), nil
}

// Filter returns what has to be removed when the process is dead, and whether there is
// such a thing.
func (h *Hook) Filter() (Filter, bool) { return h.filter, h.way == Clsact }

// Close detaches the program.
func (h *Hook) Close() error {
	if h.way == TCX {
		return h.link.Close()
	}
	return errors.Join(h.filters.Remove(h.filter), h.closeParts())
}

// closeParts closes the descriptors of a filter, as far as there are any.
func (h *Hook) closeParts() error {
	var errs []error
	if h.filters != nil {
		h.filters.Close()
	}
	if h.first != nil {
		errs = append(errs, h.first.Close())
	}
	if h.jump != nil {
		errs = append(errs, h.jump.Close())
	}
	return errors.Join(errs...)
}
