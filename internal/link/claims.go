package link

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	// claimGap is the least time between two reports of WatchClaims: what comes
	// in between is counted. A station that sends thousands must not make anybody
	// else busy.
	claimGap = 100 * time.Millisecond
	// claimStations is how many stations are told apart within claimGap; who
	// forges more of them is not counted in full.
	claimStations = 16
	// ownMACsFor is how long the list of this machine's hardware addresses is
	// trusted.
	ownMACsFor = time.Second
)

// Claim is what WatchClaims reports: Count frames said that Address is at MAC.
type Claim struct {
	Address netip.Addr
	MAC     net.HardwareAddr
	Count   int
}

// WatchClaims reports the stations that say on the LAN of the interface ifname
// that one of addresses, all of one family, is theirs: by ARP, requests and
// replies alike, or for IPv6 by neighbour advertisements. The first frame is
// reported at once, more of them at most ten times a second. A station whose
// hardware address is one of this machine, on whatever interface, is none of
// them, nor is one of own. Everything else on the LAN is left out by the kernel
// and costs nothing.
//
// report runs on the goroutine of WatchClaims. It returns nil when ctx ended, else
// why it cannot go on: an interface that is missing, went down or was replaced is
// to be watched anew.
func WatchClaims(ctx context.Context, ifname string, addresses []netip.Addr, own []net.HardwareAddr, report func(Claim)) error {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("claims on %s: open netlink: %w", ifname, err)
	}
	defer handle.Close()
	w := claimWatcher{handle: handle, given: own, report: report, counts: make(map[claimKey]int)}
	if err := w.run(ctx, ifname, addresses); err != nil && ctx.Err() == nil {
		return fmt.Errorf("claims on %s: %w", ifname, err)
	}
	return nil
}

type claimKey struct {
	address netip.Addr
	mac     [6]byte
}

// claimWatcher belongs to the goroutine of WatchClaims.
type claimWatcher struct {
	handle *netlink.Handle
	conn   *packet.Conn
	given  []net.HardwareAddr
	report func(Claim)

	own    []net.HardwareAddr
	ownAt  time.Time
	counts map[claimKey]int // since the last report
	next   time.Time        // before then nothing is reported
}

func (w *claimWatcher) run(ctx context.Context, ifname string, addresses []netip.Addr) error {
	l, err := findLink(w.handle, ifname)
	if err != nil {
		return err
	}
	program, protocol := claimFilter(addresses)
	filter, err := bpf.Assemble(program)
	if err != nil {
		return fmt.Errorf("assemble the filter for claims: %w", err)
	}
	if w.conn, err = packet.Listen(&net.Interface{Index: l.Attrs().Index}, packet.Raw, protocol, &packet.Config{Filter: filter}); err != nil {
		return err
	}
	defer w.conn.Close()
	defer context.AfterFunc(ctx, func() { _ = w.conn.Close() })()
	return w.read()
}

// read reads claims until the socket is of no more use.
func (w *claimWatcher) read() error {
	buf := make([]byte, 128) // what follows is of no interest
	for {
		n, _, err := w.conn.ReadFrom(buf)
		now := time.Now()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			err = w.flush(now)
		case err == nil:
			err = w.take(now, buf[:n])
		}
		if err != nil {
			return err
		}
	}
}

// take counts a frame and reports it, now or a little later.
func (w *claimWatcher) take(now time.Time, frame []byte) error {
	key, ok := parseClaim(frame)
	if !ok {
		return nil
	}
	ours, err := w.ours(now, key.mac)
	if ours || err != nil {
		return err
	}
	if _, known := w.counts[key]; !known && len(w.counts) >= claimStations {
		return nil
	}
	w.counts[key]++
	if now.Before(w.next) {
		return w.conn.SetReadDeadline(w.next)
	}
	return w.flush(now)
}

// flush reports what has been counted.
func (w *claimWatcher) flush(now time.Time) error {
	for key, n := range w.counts {
		w.report(Claim{Address: key.address, MAC: net.HardwareAddr(key.mac[:]), Count: n})
	}
	clear(w.counts)
	w.next = now.Add(claimGap)
	return w.conn.SetReadDeadline(time.Time{})
}

// ours says whether a hardware address is one of this machine.
func (w *claimWatcher) ours(now time.Time, mac [6]byte) (bool, error) {
	if now.Sub(w.ownAt) >= ownMACsFor {
		links, err := listLinks(w.handle)
		if err != nil {
			return false, fmt.Errorf("list interfaces: %w", err)
		}
		w.own, w.ownAt = slices.Clone(w.given), now
		for _, l := range links {
			w.own = append(w.own, l.Attrs().HardwareAddr)
		}
	}
	return slices.ContainsFunc(w.own, func(o net.HardwareAddr) bool { return bytes.Equal(o, mac[:]) }), nil
}

const (
	arpFixed    = 0x0001_0800 // hardware Ethernet, protocol IPv4
	arpLengths  = 0x0604      // of their addresses
	arpLength   = 28
	typeNA      = 136 // ICMPv6: neighbour advertisement
	naLength    = 24  // without options
	optTargetLL = 2   // its option: target link-layer address
)

// claimFilter returns the program that lets through the frames, from other
// stations, in which one of addresses is claimed; and the protocol to ask for.
// A load past the end of a frame drops it.
func claimFilter(addresses []netip.Addr) (program []bpf.Instruction, protocol int) {
	reject := bpf.RetConstant{Val: 0}
	check := func(load bpf.Instruction, value uint32) {
		program = append(program, load, bpf.JumpIf{Cond: bpf.JumpEqual, Val: value, SkipTrue: 1}, reject)
	}
	// What belongs to a VLAN without an interface of its own is another LAN. It
	// comes with its tag, or without one as another host's.
	check(bpf.LoadExtension{Num: bpf.ExtVLANTagPresent}, 0)
	program = append(program, bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: unix.PACKET_OTHERHOST, SkipTrue: 1}, reject)
	at := uint32(ethernetHeader + 14) // sender protocol address
	protocol = unix.ETH_P_ARP
	if len(addresses) > 0 && addresses[0].Is6() {
		protocol = unix.ETH_P_IPV6
		check(bpf.LoadAbsolute{Off: ethernetHeader + 6, Size: 2}, unix.IPPROTO_ICMPV6<<8|255) // hop limit: not routed
		check(bpf.LoadAbsolute{Off: ethernetHeader + ipv6Header, Size: 1}, typeNA)
		at = ethernetHeader + ipv6Header + 8 // target address
	} else {
		check(bpf.LoadAbsolute{Off: ethernetHeader, Size: 4}, arpFixed)
		check(bpf.LoadAbsolute{Off: ethernetHeader + 4, Size: 2}, arpLengths)
	}
	for _, a := range addresses {
		program = append(program, matchAddress(at, a)...)
	}
	return append(program, reject), protocol
}

// matchAddress lets a frame through that has address at an offset, and else goes
// on behind itself.
func matchAddress(at uint32, address netip.Addr) (program []bpf.Instruction) {
	words := address.AsSlice()
	for i := 0; i < len(words); i += 4 {
		left := len(words)/4 - i/4 - 1
		program = append(program, bpf.LoadAbsolute{Off: at + uint32(i), Size: 4},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(words[i:]), SkipTrue: uint8(2*left + 1)})
	}
	return append(program, bpf.RetConstant{Val: 1 << 16})
}

// parseClaim reads which address a frame says is at which hardware address.
func parseClaim(frame []byte) (key claimKey, ok bool) {
	if len(frame) < ethernetHeader {
		return key, false
	}
	p := frame[ethernetHeader:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_ARP:
		if len(p) < arpLength || binary.BigEndian.Uint32(p) != arpFixed || binary.BigEndian.Uint16(p[4:]) != arpLengths {
			return key, false
		}
		return claimKey{netip.AddrFrom4([4]byte(p[14:18])), [6]byte(p[8:14])}, true
	case unix.ETH_P_IPV6:
		if len(p) < ipv6Header+naLength || p[6] != unix.IPPROTO_ICMPV6 || p[ipv6Header] != typeNA {
			return key, false
		}
		na := p[ipv6Header:]
		key = claimKey{netip.AddrFrom16([16]byte(na[8:24])), [6]byte(frame[6:12])}
		// RFC 4861 section 4.4: the option may be left out of an answer to one
		// station, which knows the sender then.
		if o := na[naLength:]; len(o) >= 8 && o[0] == optTargetLL && o[1] == 1 {
			key.mac = [6]byte(o[2:8])
		}
		return key, true
	}
	return key, false
}
