package link

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loadPass has the kernel load `return -1`, TC_ACT_UNSPEC, as a classifier.
func loadPass() (fd int, id uint32, err error) {
	code := [2]uint64{0xffffffff_000000b7, 0x95} // r0 = -1; exit
	if one := uint16(1); *(*byte)(unsafe.Pointer(&one)) == 0 {
		code = [2]uint64{0xb7000000_ffffffff, 0x95000000_00000000}
	}
	licence := []byte("GPL\x00")
	load := struct {
		kind, count   uint32
		code, licence uint64
		rest          [12]uint64
	}{
		kind: 3, count: 2, // BPF_PROG_TYPE_SCHED_CLS
		code: uint64(uintptr(unsafe.Pointer(&code[0]))), licence: uint64(uintptr(unsafe.Pointer(&licence[0]))),
	}
	fd, err = callBPF(5, unsafe.Pointer(&load), unsafe.Sizeof(load)) // BPF_PROG_LOAD
	runtime.KeepAlive(&code)
	runtime.KeepAlive(licence)
	if err != nil {
		return -1, 0, err
	}
	var info [2]uint32 // type, id
	ask := struct {
		fd, size uint32
		info     uint64
	}{uint32(fd), uint32(unsafe.Sizeof(info)), uint64(uintptr(unsafe.Pointer(&info[0])))}
	if _, err := callBPF(15, unsafe.Pointer(&ask), unsafe.Sizeof(ask)); err != nil { // BPF_OBJ_GET_INFO_BY_FD
		unix.Close(fd)
		return -1, 0, err
	}
	return fd, info[1], nil
}

func callBPF(command uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(attr), size)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}
