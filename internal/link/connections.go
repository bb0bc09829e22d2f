package link

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Of linux/inet_diag.h and net/tcp_states.h.
const (
	diagBytecode   = 1 // INET_DIAG_REQ_BYTECODE
	diagSource     = 7 // INET_DIAG_BC_S_COND
	diagRequest    = 56
	diagHead       = 72 // of an answer
	diagState      = 1  // offsets in it
	diagRetrans    = 3
	diagInode      = 68
	tcpEstablished = 1
	tcpSynRecv     = 3
	tcpFinWait1    = 4
	tcpFinWait2    = 5
	tcpCloseWait   = 8
	tcpLastAck     = 9
	tcpClosing     = 11
)

// unwanted is after how many repetitions of the answer to it a request does not count:
// three seconds.
const unwanted = 2

// Connections returns how many TCP connections this node has, in the network
// namespace of the calling thread, by one of addresses as its own: whoever they
// belong to, also those that are closed and whose last bytes have not arrived yet.
// One of which all has arrived does not count, whether or not the other side has
// closed it as well. One whose handshake is under way does: with a listener that
// waits for the client's first bytes (TCP_DEFER_ACCEPT) the client has it already. But
// not one that has been answered three times in vain: where a switch floods a request,
// or a client repeats it, it reaches two nodes, and the client takes the other's answer.
// If it has got none, it asks again.
func Connections(addresses []netip.Addr) (int, error) {
	n := 0
	for _, a := range addresses {
		more, err := connections(a)
		if err != nil {
			return 0, fmt.Errorf("list connections: %w", err)
		}
		n += more
	}
	return n, nil
}

func connections(a netip.Addr) (n int, err error) {
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	req.AddData(diag{a})
	req.AddData(nl.NewRtAttr(diagBytecode, fromAddress(a)))
	answers, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	if err != nil {
		return 0, err
	}
	for _, b := range answers {
		if len(b) < diagHead {
			continue
		}
		// A closed one waits for the other side alone once it is in FIN_WAIT2.
		if b[diagState] == tcpFinWait2 && binary.NativeEndian.Uint32(b[diagInode:]) == 0 {
			continue
		}
		if b[diagState] == tcpSynRecv && b[diagRetrans] >= unwanted {
			continue
		}
		n++
	}
	return n, nil
}

// diag is struct inet_diag_req_v2 of a request for an address's connections.
type diag struct{ address netip.Addr }

func (diag) Len() int { return diagRequest }

func (d diag) Serialize() []byte {
	b := make([]byte, diagRequest)
	b[0], b[1] = byte(family(d.address)), unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], 1<<tcpEstablished|1<<tcpSynRecv|1<<tcpFinWait1|1<<tcpFinWait2|1<<tcpCloseWait|1<<tcpLastAck|1<<tcpClosing)
	return b
}

// fromAddress is the filter for sockets whose own address is a: one condition,
// struct inet_diag_bc_op and inet_diag_hostcond, behind which a match ends.
func fromAddress(a netip.Addr) []byte {
	address := a.AsSlice()
	length := 4 + 8 + len(address)
	b := make([]byte, 12, length)
	b[0], b[1] = diagSource, byte(length)
	binary.NativeEndian.PutUint16(b[2:], uint16(length+4)) // beyond the end: no match
	b[4], b[5] = byte(family(a)), byte(a.BitLen())
	binary.NativeEndian.PutUint32(b[8:], 0xffffffff) // any port
	return append(b, address...)
}
