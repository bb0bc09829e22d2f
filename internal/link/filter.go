package link

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// advertFilter lets through IPv4 packets of protocol 112 to 224.0.0.18 that
// came from the wire to this interface, and nothing else.
func advertFilter() ([]bpf.RawInstruction, error) {
	group, _ := advertGroup()
	g := group.As4()
	const drop = 10 // the index of the instruction that drops
	program := []bpf.Instruction{
		// What belongs to a VLAN without an interface of its own is shown to
		// sockets of the parent: it is another LAN.
		bpf.LoadExtension{Num: bpf.ExtVLANTagPresent},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipFalse: drop - 2},
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: unix.PACKET_OTHERHOST, SkipTrue: drop - 4},
		bpf.LoadAbsolute{Off: ethernetHeader + 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: protocolVRRP, SkipFalse: drop - 6},
		bpf.LoadAbsolute{Off: ethernetHeader + 16, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(g[:]), SkipFalse: drop - 8},
		bpf.LoadExtension{Num: bpf.ExtLen},
		bpf.RetA{},
		bpf.RetConstant{Val: 0},
	}
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("assemble the filter for adverts: %w", err)
	}
	return raw, nil
}

// nothingFilter lets nothing through: for sockets that only send.
func nothingFilter() ([]bpf.RawInstruction, error) {
	raw, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	if err != nil {
		return nil, fmt.Errorf("assemble the filter that drops: %w", err)
	}
	return raw, nil
}
