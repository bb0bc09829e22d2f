package lab

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attachTCXIngress is BPF_TCX_INGRESS of linux/bpf.h.
const attachTCXIngress = 46

// Programs returns how many BPF programs look at what comes in by an interface
// (tcx ingress).
func (h *Host) Programs(ifname string) (int, error) {
	index, err := h.Network.Index(ifname)
	if err != nil {
		return 0, err
	}
	// The beginning of union bpf_attr for BPF_PROG_QUERY.
	query := struct {
		target, attachType, queryFlags, attachFlags uint32
		ids                                         uint64
		count, _                                    uint32
		_                                           [4]uint64
	}{target: uint32(index), attachType: attachTCXIngress}
	err = h.Do(func() error {
		_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&query)), unsafe.Sizeof(query))
		if errno != 0 && !errors.Is(errno, os.ErrNotExist) {
			return fmt.Errorf("programs of %s: %w", ifname, errno)
		}
		return nil
	})
	return int(query.count), err
}
