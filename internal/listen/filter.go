package listen

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A filter on a listening TCP socket sees every segment that would reach the
// listener from its TCP header on. Offsets from ipHeader on reach back to the
// IP header.
const (
	tcpFlags  = 13 // RFC 9293, section 3.1
	flagSYN   = 0x02
	flagACK   = 0x10
	ipHeader  = 0xfff00000 // SKF_NET_OFF of linux/filter.h
	ip4Dest   = ipHeader + 16
	ip6Dest   = ipHeader + 24
	dropAll   = 0
	passWhole = 0xffffffff
)

// holdFilter returns the program that makes a listener on addr drop requests
// for connections to the held addresses; nil if none of them concerns it.
func holdFilter(addr netip.Addr, held []netip.Addr) []bpf.Instruction {
	// A request is a segment with SYN and without ACK. Everything else passes,
	// such as the ACK that completes a handshake. Accepted sockets inherit the
	// filter, which does not harm them: an established connection has no use
	// for such a segment.
	request := []bpf.Instruction{
		bpf.LoadAbsolute{Off: tcpFlags, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: flagSYN | flagACK},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: flagSYN, SkipTrue: 1},
		bpf.RetConstant{Val: passWhole},
	}
	if !addr.IsUnspecified() {
		for _, vip := range held {
			if sameHost(vip, addr) {
				return append(request, bpf.RetConstant{Val: dropAll})
			}
		}
		return nil
	}
	var compare []bpf.Instruction
	for _, vip := range held {
		if vip.Is4() == addr.Is4() {
			compare = append(compare, dropTo(vip)...)
		}
	}
	if compare == nil {
		return nil
	}
	return append(append(request, compare...), bpf.RetConstant{Val: passWhole})
}

// dropTo returns instructions that drop a segment sent to vip and fall through
// for others.
func dropTo(vip netip.Addr) (program []bpf.Instruction) {
	offset := uint32(ip6Dest)
	if vip.Is4() {
		offset = ip4Dest
	}
	address := vip.AsSlice()
	words := len(address) / 4
	for i := range words {
		program = append(program,
			bpf.LoadAbsolute{Off: offset + uint32(4*i), Size: 4},
			// A word that differs leads behind the drop at the end: over the
			// two instructions of each word that is left, and over the drop.
			bpf.JumpIf{
				Cond:      bpf.JumpEqual,
				Val:       binary.BigEndian.Uint32(address[4*i:]),
				SkipFalse: uint8(2*(words-1-i) + 1),
			})
	}
	return append(program, bpf.RetConstant{Val: dropAll})
}

// setFilter puts program on the socket in place of the one it has, if any; nil
// takes that one off.
func setFilter(fd int, program []bpf.Instruction) error {
	if program == nil {
		err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
		if errors.Is(err, unix.ENOENT) {
			return nil // there was none
		}
		return os.NewSyscallError("setsockopt SO_DETACH_FILTER", err)
	}
	raw, err := bpf.Assemble(program)
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, in := range raw {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER",
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &fprog))
}
