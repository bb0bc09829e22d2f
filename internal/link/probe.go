package link

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Tap hears what enters any port of a network namespace, a switch's for
// instance, before a bridge has taken it: so every frame tells by which port it
// came, whatever addresses it claims. It hears ARP, ICMPv6 and VRRP only, no
// frames that the namespace sends itself, and leaves all of them alone.
//
// A Tap may be read by one goroutine and written by others at the same time.
type Tap struct {
	file *os.File
	raw  syscall.RawConn
}

// Frame is an Ethernet frame that a Tap heard.
type Frame struct {
	Time time.Time // when the kernel got it
	Port int       // the index of the interface it came in by
	Data []byte    // from the Ethernet header on, in the reader's buffer
}

// tapFilter lets pass ARP, and VRRP and ICMPv6 in frames without a VLAN tag.
var tapFilter = []bpf.Instruction{
	/* 0 */ bpf.LoadAbsolute{Off: 12, Size: 2}, // EtherType
	/* 1 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_ARP, SkipTrue: 8},
	/* 2 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IP, SkipFalse: 2},
	/* 3 */ bpf.LoadAbsolute{Off: 14 + 9, Size: 1}, // IPv4: protocol
	/* 4 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: 112, SkipTrue: 5, SkipFalse: 4},
	/* 5 */ bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IPV6, SkipTrue: 3},
	/* 6 */ bpf.LoadAbsolute{Off: 14 + 6, Size: 1}, // IPv6: next header
	/* 7 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: 112, SkipTrue: 2},
	/* 8 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 1},
	/* 9 */ bpf.RetConstant{Val: 0},
	/* 10 */ bpf.RetConstant{Val: 1 << 16},
}

// OpenTap opens a Tap in the calling thread's network namespace. The caller
// closes it.
func OpenTap() (*Tap, error) {
	// Protocol 0 hears nothing: frames must not come in before the filter does.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a packet socket: %w", err)
	}
	if err := configureTap(fd); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "tap")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	return &Tap{file: file, raw: raw}, nil
}

func configureTap(fd int) error {
	program, err := bpf.Assemble(tapFilter)
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(program))
	for i, p := range program {
		filter[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return err
	}
	// Only a socket for all protocols hears a port before the bridge takes the
	// frame away.
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: tapProtocol(unix.ETH_P_ALL)})
}

// Read waits for the next frame. buf should hold the largest frame expected;
// a longer one is cut. After Close the error is os.ErrClosed.
func (t *Tap) Read(buf []byte) (Frame, error) {
	var f Frame
	oob := make([]byte, unix.CmsgSpace(timespecSize))
	var failed error
	err := t.raw.Read(func(fd uintptr) bool {
		n, oobn, _, from, err := unix.Recvmsg(int(fd), buf, oob, 0)
		switch err {
		case unix.EAGAIN, unix.EINTR:
			return false
		case unix.ENETDOWN: // one of the ports went down: no end of the socket
			return false
		case nil:
		default:
			failed = err
			return true
		}
		f.Data = buf[:n]
		f.Time = arrival(oob[:oobn])
		if ll, ok := from.(*unix.SockaddrLinklayer); ok {
			f.Port = ll.Ifindex
		}
		return true
	})
	if err != nil { // no deadline is ever set, so there is one reason
		failed = os.ErrClosed
	}
	if failed != nil {
		return Frame{}, fmt.Errorf("tap: %w", failed)
	}
	return f, nil
}

// Send sends an Ethernet frame by the interface with the index port; by a
// bridge, it goes to the ports that the destination calls for.
func (t *Tap) Send(port int, frame []byte) error {
	to := &unix.SockaddrLinklayer{Protocol: tapProtocol(unix.ETH_P_ALL), Ifindex: port}
	var failed error
	err := t.raw.Write(func(fd uintptr) bool {
		failed = unix.Sendto(int(fd), frame, 0, to)
		return failed != unix.EAGAIN && failed != unix.EINTR
	})
	if err != nil {
		failed = os.ErrClosed
	}
	if failed != nil {
		return fmt.Errorf("tap: %w", failed)
	}
	return nil
}

// Close ends a Read under way and releases the socket.
func (t *Tap) Close() error { return t.file.Close() }

// timespecSize is the size of what SO_TIMESTAMPNS delivers on 64-bit kernels.
const timespecSize = 16

// arrival returns the kernel's time of a frame, or now if there is none.
func arrival(oob []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Now()
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= timespecSize {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return time.Now()
}

// tapProtocol returns v as the kernel's sockaddr_ll wants it.
func tapProtocol(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
