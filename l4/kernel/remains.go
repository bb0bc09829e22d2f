package kernel

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"appliance/internal/ingress"
)

// Remains returns what is to outlive the process until its addresses are gone: the
// attachments, and behind them the door, for Shut. While an attachment is open, in
// whatever process, the program goes on with the flows there are, also when the Path is
// gone. The caller closes them. Filters are what has to be removed afterwards.
func (p *Path) Remains() (files []*os.File, filters []ingress.Filter, err error) {
	p.attaching.Lock()
	defer p.attaching.Unlock()
	var problems []error
	add := func(f *os.File, err error) {
		if err != nil {
			problems = append(problems, fmt.Errorf("kernel path: %w", err))
			return
		}
		files = append(files, f)
	}
	for _, h := range p.hooks {
		add(h.File())
		if f, ok := h.Filter(); ok {
			filters = append(filters, f)
		}
	}
	if len(files) > 0 {
		add(fileOf(p.objects.Door))
	}
	if err := errors.Join(problems...); err != nil {
		for _, f := range files {
			f.Close()
		}
		return nil, filters, err
	}
	return files, filters, nil
}

// fileOf returns a file of a map.
func fileOf(m *ebpf.Map) (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(m.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "map"), nil
}

// Shut has no new flow begin on a Path whose process is dead and whose Remains these
// are: what would begin one is dropped. The next node would not know of it.
func Shut(remains []*os.File) error {
	if len(remains) == 0 {
		return nil
	}
	door, err := ebpf.NewMapFromFD(dup(remains[len(remains)-1]))
	if err != nil {
		return fmt.Errorf("kernel path: %w", err)
	}
	defer door.Close()
	if err := door.Put(uint32(0), uint32(1)); err != nil {
		return fmt.Errorf("kernel path: %w", err)
	}
	return nil
}

// dup returns another descriptor of f, or -1.
func dup(f *os.File) int {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}
