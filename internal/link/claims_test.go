package link

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

var (
	claimed4 = netip.MustParseAddr("10.9.0.50")
	claimed6 = netip.MustParseAddr("fe80::50")
	stranger = net.HardwareAddr{2, 0, 0, 0, 0, 0x66}
)

// arpFrame returns an ARP packet in which sender is said to be at mac.
func arpFrame(operation uint16, mac net.HardwareAddr, sender, target netip.Addr) []byte {
	f := appendGratuitousARP(nil, mac, sender)
	binary.BigEndian.PutUint16(f[20:], operation)
	copy(f[38:], target.AsSlice())
	return f
}

// naFrame returns a neighbour advertisement from mac; the option says where the
// target is, unless it is empty.
func naFrame(mac net.HardwareAddr, target netip.Addr, option net.HardwareAddr) []byte {
	f := slices.Concat([]byte{0x33, 0x33, 0, 0, 0, 1}, mac, []byte{0x86, 0xdd, 0x60, 0, 0, 0, 0, naLength, 58, 255})
	f = append(f, target.AsSlice()...)
	f = append(f, netip.MustParseAddr("ff02::1").AsSlice()...)
	f = append(f, typeNA, 0, 0, 0, 0x20, 0, 0, 0)
	f = append(f, target.AsSlice()...)
	if len(option) > 0 {
		f[19] += 8
		f = append(append(f, optTargetLL, 1), option...)
	}
	return f
}

// changed returns a copy of f with one byte replaced.
func changed(f []byte, at int, to byte) []byte {
	f = slices.Clone(f)
	f[at] = to
	return f
}

func TestClaimsAreParsed(t *testing.T) {
	for name, tt := range map[string]struct {
		frame   []byte
		address netip.Addr // invalid: none
		mac     net.HardwareAddr
	}{
		"gratuitous ARP":   {arpFrame(1, stranger, claimed4, claimed4), claimed4, stranger},
		"ARP request":      {arpFrame(1, stranger, claimed4, netip.MustParseAddr("10.9.0.1")), claimed4, stranger},
		"ARP reply":        {arpFrame(2, stranger, claimed4, netip.MustParseAddr("10.9.0.1")), claimed4, stranger},
		"NA":               {naFrame(stranger, claimed6, nil), claimed6, stranger},
		"NA with option":   {naFrame(net.HardwareAddr{2, 1, 1, 1, 1, 1}, claimed6, stranger), claimed6, stranger},
		"NA, option cut":   {naFrame(stranger, claimed6, stranger)[:80], claimed6, stranger},
		"NA cut":           {naFrame(stranger, claimed6, nil)[:77], netip.Addr{}, nil},
		"ARP cut":          {arpFrame(1, stranger, claimed4, claimed4)[:41], netip.Addr{}, nil},
		"ARP of tokenring": {changed(arpFrame(1, stranger, claimed4, claimed4), 15, 6), netip.Addr{}, nil},
		"ARP, long MAC":    {changed(arpFrame(1, stranger, claimed4, claimed4), 18, 8), netip.Addr{}, nil},
		"NS":               {changed(naFrame(stranger, claimed6, nil), 54, 135), netip.Addr{}, nil},
		"IPv4":             {changed(arpFrame(1, stranger, claimed4, claimed4), 13, 0), netip.Addr{}, nil},
		"no header":        {make([]byte, 13), netip.Addr{}, nil},
	} {
		key, ok := parseClaim(tt.frame)
		if ok != tt.address.IsValid() || ok && (key.address != tt.address || !bytes.Equal(key.mac[:], tt.mac)) {
			t.Errorf("%s: %s at %x, %t", name, key.address, key.mac, ok)
		}
	}
}

func FuzzParseClaim(f *testing.F) {
	f.Add(arpFrame(1, stranger, claimed4, claimed4))
	f.Add(naFrame(stranger, claimed6, stranger))
	f.Fuzz(func(t *testing.T, frame []byte) {
		key, ok := parseClaim(frame)
		if !ok {
			return
		}
		mac := net.HardwareAddr(key.mac[:])
		again := naFrame(mac, key.address, nil)
		if key.address.Is4() {
			again = arpFrame(1, mac, key.address, key.address)
		}
		if back, ok := parseClaim(again); !ok || back != key {
			t.Errorf("%v, written and read again %v", key, back)
		}
	})
}

// The kernel keeps everything from the process but claims to the addresses, be
// they many.
func TestClaimFilter(t *testing.T) {
	var many4, many6 []netip.Addr
	for i := range 254 {
		many4 = append(many4, netip.AddrFrom4([4]byte{10, 8, 0, byte(i)}))
		many6 = append(many6, netip.AddrFrom16([16]byte{0xfe, 0x80, 15: byte(i)}))
	}
	for name, tt := range map[string]struct {
		addresses []netip.Addr
		protocol  int
		pass      [][]byte
		drop      [][]byte
	}{
		"IPv4": {append(many4, claimed4), unix.ETH_P_ARP,
			[][]byte{arpFrame(1, stranger, claimed4, claimed4), arpFrame(2, stranger, many4[0], claimed4)},
			[][]byte{
				arpFrame(1, stranger, netip.MustParseAddr("10.9.0.51"), claimed4), // asks for it
				arpFrame(1, stranger, netip.IPv4Unspecified(), claimed4),          // probes for it
				changed(arpFrame(1, stranger, claimed4, claimed4), 19, 6),
				arpFrame(1, stranger, claimed4, claimed4)[:30],
			}},
		"IPv6": {append(many6, claimed6), unix.ETH_P_IPV6,
			[][]byte{naFrame(stranger, claimed6, nil), naFrame(stranger, many6[0], stranger)},
			[][]byte{
				naFrame(stranger, netip.MustParseAddr("fe80::1:50"), nil),
				naFrame(stranger, netip.MustParseAddr("fe81::50"), nil),
				changed(naFrame(stranger, claimed6, nil), 21, 64),  // was routed
				changed(naFrame(stranger, claimed6, nil), 54, 135), // a solicitation
				changed(naFrame(stranger, claimed6, nil), 20, 17),
			}},
	} {
		program, protocol := claimFilter(tt.addresses)
		if protocol != tt.protocol || len(program) > 4096 {
			t.Errorf("%s: protocol %x, %d instructions", name, protocol, len(program))
		}
		if _, err := bpf.Assemble(program); err != nil {
			t.Fatal(err)
		}
		vm := simulated(t, program)
		for _, f := range tt.pass {
			if n, err := vm.Run(f); err != nil || n == 0 {
				t.Errorf("%s: dropped %x, %v", name, f, err)
			}
		}
		for _, f := range tt.drop {
			if n, err := vm.Run(f); err != nil || n != 0 {
				t.Errorf("%s: let through %x, %v", name, f, err)
			}
		}
	}
}

// simulated returns a machine for program. It knows no extensions: what asks for
// a VLAN tag or the direction finds none and 0.
func simulated(t *testing.T, program []bpf.Instruction) *bpf.VM {
	t.Helper()
	program = slices.Clone(program)
	for i, ins := range program {
		if _, ok := ins.(bpf.LoadExtension); ok {
			program[i] = bpf.LoadConstant{Dst: bpf.RegA}
		}
	}
	vm, err := bpf.NewVM(program)
	must(t, err)
	return vm
}

// watchClaims runs WatchClaims on v0 in the namespace of the test.
func watchClaims(t *testing.T, addresses []netip.Addr, own ...net.HardwareAddr) (reports chan string, ended chan error, stop func()) {
	t.Helper()
	space, err := netns.Get()
	must(t, err)
	defer space.Close()
	ctx, cancel := context.WithCancel(context.Background())
	reports, ended = make(chan string, 10000), make(chan error, 1)
	inside := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends in the namespace
		err := netns.Set(space)
		inside <- err
		if err == nil {
			ended <- WatchClaims(ctx, "v0", addresses, own, func(c Claim) {
				reports <- fmt.Sprintf("%s %s %d", c.Address, c.MAC, c.Count)
			})
		}
	}()
	must(t, <-inside)
	return reports, ended, cancel
}

// sendUntilHeard sends a frame until there is a report: the watching begins
// some time.
func sendUntilHeard(t *testing.T, conn *packet.Conn, frame []byte, reports <-chan string) {
	t.Helper()
	eventually(t, 5*time.Second, "the watching begins", func() bool {
		send(t, conn, frame)
		select {
		case <-reports:
			return true
		default:
			return false
		}
	})
	// What was sent in the meantime.
	time.Sleep(2 * claimGap)
	for len(reports) > 0 {
		<-reports
	}
}

func send(t *testing.T, conn *packet.Conn, frame []byte) {
	t.Helper()
	_, err := conn.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]})
	must(t, err)
}

func sender(t *testing.T, l netlink.Link) *packet.Conn {
	t.Helper()
	conn, err := packet.Listen(&net.Interface{Index: l.Attrs().Index}, packet.Raw, unix.ETH_P_ARP, nil)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func expectReport(t *testing.T, reports <-chan string, want string) {
	t.Helper()
	select {
	case got := <-reports:
		if got != want {
			t.Fatalf("reported %q, want %q", got, want)
		}
	case <-time.After(5 * time.Second):
		t.Fatalf("no report %q", want)
	}
}

func TestWatchClaims(t *testing.T) {
	privateNamespace(t)
	v0, v1 := vethPair(t)
	also := net.HardwareAddr{0, 0, 0x5e, 0, 1, 50}
	reports, ended, stop := watchClaims(t, []netip.Addr{claimed4}, also)
	wire, inward := sender(t, v1), sender(t, v0)
	probe := arpFrame(1, net.HardwareAddr{2, 0, 0, 0, 0, 1}, claimed4, claimed4)
	sendUntilHeard(t, wire, probe, reports)

	other := net.HardwareAddr{2, 0, 0, 0, 0, 2}
	for _, f := range [][]byte{
		arpFrame(1, also, claimed4, claimed4),                                      // given as ours
		arpFrame(1, v1.Attrs().HardwareAddr, claimed4, claimed4),                   // another interface of ours
		arpFrame(1, other, netip.MustParseAddr("10.9.0.2"), claimed4),              // a question
		append(slices.Clone(other), arpFrame(1, other, claimed4, claimed4)[6:]...), // another host's
	} {
		send(t, wire, f)
	}
	send(t, inward, arpFrame(1, other, claimed4, claimed4))
	vlan := arpFrame(1, other, claimed4, claimed4)
	send(t, wire, append(vlan[:12:12], append([]byte{0x81, 0, 0, 7}, vlan[12:]...)...))
	// None of those was reported before this one.
	send(t, wire, arpFrame(2, stranger, claimed4, netip.MustParseAddr("10.9.0.1")))
	expectReport(t, reports, "10.9.0.50 02:00:00:00:00:66 1")
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if len(reports) > 0 {
		t.Errorf("reported as well: %s", <-reports)
	}
}

func TestWatchClaimsOfIPv6(t *testing.T) {
	privateNamespace(t)
	_, v1 := vethPair(t)
	reports, ended, stop := watchClaims(t, []netip.Addr{claimed6})
	wire := sender(t, v1)
	sendUntilHeard(t, wire, naFrame(net.HardwareAddr{2, 0, 0, 0, 0, 1}, claimed6, nil), reports)
	send(t, wire, naFrame(stranger, claimed6, nil))
	expectReport(t, reports, "fe80::50 02:00:00:00:00:66 1")
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A thousand claims make a handful of reports, and every one is counted.
func TestFloodOfClaimsIsSummedUp(t *testing.T) {
	privateNamespace(t)
	_, v1 := vethPair(t)
	reports, ended, stop := watchClaims(t, []netip.Addr{claimed4})
	wire := sender(t, v1)
	sendUntilHeard(t, wire, arpFrame(1, net.HardwareAddr{2, 0, 0, 0, 0, 1}, claimed4, claimed4), reports)
	begun, total, n := time.Now(), 0, 0
	const frames = 200 // what a socket's buffer holds in any case
	for range frames {
		send(t, wire, arpFrame(1, stranger, claimed4, claimed4))
	}
	for total < frames {
		select {
		case r := <-reports:
			var count int
			if _, err := fmt.Sscanf(r, "10.9.0.50 02:00:00:00:00:66 %d", &count); err != nil {
				t.Fatalf("%q: %v", r, err)
			}
			total += count
			n++
		case <-time.After(5 * time.Second):
			t.Fatalf("%d of %d counted", total, frames)
		}
	}
	if most := int(time.Since(begun)/claimGap) + 2; total != frames || n > most {
		t.Errorf("%d counted in %d reports, allowed were %d", total, n, most)
	}
	stop()
	<-ended
}

// Whoever watches hears that the interface went, and watches the next one.
func TestWatchClaimsEndsWithItsInterface(t *testing.T) {
	for name, end := range map[string]func(l netlink.Link) error{"deleted": netlink.LinkDel, "down": netlink.LinkSetDown} {
		t.Run(name, func(t *testing.T) {
			privateNamespace(t)
			v0, v1 := vethPair(t)
			reports, ended, stop := watchClaims(t, []netip.Addr{claimed4})
			defer stop()
			sendUntilHeard(t, sender(t, v1), arpFrame(1, stranger, claimed4, claimed4), reports)
			must(t, end(v0))
			select {
			case err := <-ended:
				if !IsAbsent(err) {
					t.Errorf("ended with %v", err)
				}
			case <-time.After(5 * time.Second):
				t.Error("it does not notice")
			}
		})
	}
}
