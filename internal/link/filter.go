package link

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// advertFilter lets through what came from the wire to this interface and is
// VRRP to the group or to own, this node's address, and nothing else. Over IPv6
// it lets through whatever goes to the group: there is nothing else there, but
// for what hides behind an extension header and is to be refused by name.
func advertFilter(own netip.Addr) ([]bpf.RawInstruction, error) {
	program := advertProgram6
	if own.Is4() {
		program = advertProgram4
	}
	raw, err := bpf.Assemble(program(own))
	if err != nil {
		return nil, fmt.Errorf("assemble the filter for adverts: %w", err)
	}
	return raw, nil
}

// fromTheWire is how the programs begin: they go on behind it, or at drop.
func fromTheWire(drop uint8) []bpf.Instruction {
	return []bpf.Instruction{
		// What belongs to a VLAN without an interface of its own is shown to
		// sockets of the parent: it is another LAN.
		bpf.LoadExtension{Num: bpf.ExtVLANTagPresent},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipFalse: drop - 2},
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: unix.PACKET_OTHERHOST, SkipTrue: drop - 4},
	}
}

func advertProgram4(own netip.Addr) []bpf.Instruction {
	group, self := advertGroup(own).As4(), own.As4()
	const take, drop = 9, 11 // indices of instructions
	return append(fromTheWire(drop),
		bpf.LoadAbsolute{Off: ethernetHeader + 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: protocolVRRP, SkipFalse: drop - 6},
		bpf.LoadAbsolute{Off: ethernetHeader + 16, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(group[:]), SkipTrue: take - 8},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(self[:]), SkipFalse: drop - 9},
		bpf.LoadExtension{Num: bpf.ExtLen},
		bpf.RetA{},
		bpf.RetConstant{Val: 0},
	)
}

func advertProgram6(own netip.Addr) []bpf.Instruction {
	const single, take, drop = 12, 22, 24 // indices of instructions
	program := append(fromTheWire(drop), goesTo(advertGroup(own), 4, take, single)...)
	program = append(program,
		bpf.LoadAbsolute{Off: ethernetHeader + 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: protocolVRRP, SkipFalse: drop - 14},
	)
	program = append(program, goesTo(own, 14, take, drop)...)
	return append(program,
		bpf.LoadExtension{Num: bpf.ExtLen},
		bpf.RetA{},
		bpf.RetConstant{Val: 0},
	)
}

// goesTo compares the destination of an IPv6 packet with a. It is to stand at the
// index at, and goes on at the index yes or no.
func goesTo(a netip.Addr, at, yes, no uint8) (program []bpf.Instruction) {
	for word := range uint8(4) {
		next := at + 2*word + 2 // the index behind this word's comparison
		match := uint8(0)
		if word == 3 {
			match = yes - next
		}
		program = append(program,
			bpf.LoadAbsolute{Off: ethernetHeader + 24 + 4*uint32(word), Size: 4},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(a.AsSlice()[4*word:]), SkipTrue: match, SkipFalse: no - next},
		)
	}
	return program
}

// nothingFilter lets nothing through: for sockets that only send.
func nothingFilter() ([]bpf.RawInstruction, error) {
	raw, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	if err != nil {
		return nil, fmt.Errorf("assemble the filter that drops: %w", err)
	}
	return raw, nil
}
