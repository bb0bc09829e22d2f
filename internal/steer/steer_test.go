package steer

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"appliance/internal/ingress"
)

// What the program returns.
const (
	next     = 0xffffffff // left to the stack
	redirect = 7          // TC_ACT_REDIRECT
)

var (
	at       = net.HardwareAddr{0, 0, 0x5e, 0, 1, 50}
	own      = net.HardwareAddr{2, 0, 0, 0, 0, 11}
	peer     = net.HardwareAddr{2, 0, 0, 0, 0, 12}
	client   = net.HardwareAddr{2, 0, 0, 0, 0, 100}
	vip      = netip.MustParseAddr("127.0.0.77")
	vip6     = netip.MustParseAddr("::1")
	stranger = netip.MustParseAddr("127.0.0.78")
)

// privateNamespace moves the test into a network namespace of its own, in which
// loopback is up. The thread ends with the test.
func privateNamespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_NEWNET)
	if err == nil {
		err = loopbackUp()
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no network namespace of its own: %v", err)
		}
		t.Skipf("no network namespace of its own: %v", err)
	}
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

// program loads the program, which is not attached.
func program(t *testing.T) *steerObjects {
	t.Helper()
	return programOf(t, Options{Addresses: []netip.Addr{vip, vip6}, At: at, Own: own, Peer: peer})
}

func programOf(t *testing.T, o Options) *steerObjects {
	t.Helper()
	privateNamespace(t)
	var objects steerObjects
	if err := load(&objects, o); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Cleanup(func() { objects.Close() })
	return &objects
}

// verdict runs the program on a frame, and returns what became of that.
func verdict(t *testing.T, o *steerObjects, frame []byte) (ret uint32, out []byte) {
	t.Helper()
	run := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+64)}
	ret, err := o.Steer.Run(&run)
	if err != nil {
		t.Fatal(err)
	}
	return ret, run.DataOut
}

// What becomes of a frame.
type fate int

const (
	left   fate = iota // to the stack as it is
	taken              // by the stack, as one for the interface itself
	handed             // over to the other node
)

// expect fails the test unless that becomes of the frame.
func expect(t *testing.T, o *steerObjects, what string, frame []byte, f fate) {
	t.Helper()
	ret, out := verdict(t, o, frame)
	want, wantOut := uint32(next), frame
	switch f {
	case taken:
		wantOut = append(bytes.Clone(own), frame[6:]...)
	case handed:
		want = redirect
		wantOut = bytes.Join([][]byte{peer, own, frame[12:]}, nil)
	}
	if ret != want {
		t.Errorf("%s: the program returns %d, want %d", what, int32(ret), int32(want))
	}
	if !bytes.Equal(out, wantOut) {
		t.Errorf("%s: the frame is\n%x, want\n%x", what, out, wantOut)
	}
}

// The flags of TCP.
const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
)

// segment is a TCP segment in a frame.
type segment struct {
	to, from  net.HardwareAddr
	src, dst  netip.AddrPort
	flags     byte
	seq, acks uint32
	fragment  uint16 // of IPv4
	options   int    // bytes of them in the header of IPv4
}

// arriving is a segment from a client.
func arriving(src, dst netip.AddrPort, flags byte) segment {
	return segment{to: at, from: client, src: src, dst: dst, flags: flags}
}

func (s segment) frame() []byte { return append(ethernet(s.to, s.from, s.dst.Addr()), s.packet()...) }

func ethernet(to, from net.HardwareAddr, address netip.Addr) []byte {
	kind := uint16(unix.ETH_P_IP)
	if address.Is6() {
		kind = unix.ETH_P_IPV6
	}
	return binary.BigEndian.AppendUint16(append(append([]byte{}, to...), from...), kind)
}

// packet is s without the head of the frame.
func (s segment) packet() []byte {
	tcp := make([]byte, 20, 40)
	binary.BigEndian.PutUint16(tcp, s.src.Port())
	binary.BigEndian.PutUint16(tcp[2:], s.dst.Port())
	binary.BigEndian.PutUint32(tcp[4:], s.seq)
	binary.BigEndian.PutUint32(tcp[8:], s.acks)
	tcp[12], tcp[13] = 5<<4, s.flags
	binary.BigEndian.PutUint16(tcp[14:], 65535)
	return append(ip(s.src.Addr(), s.dst.Addr(), unix.IPPROTO_TCP, s.fragment, s.options, len(tcp)), tcp...)
}

// ip returns the head of a packet.
func ip(src, dst netip.Addr, protocol byte, fragment uint16, options, length int) []byte {
	if dst.Is6() {
		head := make([]byte, 8)
		head[0], head[6], head[7] = 6<<4, protocol, 64
		binary.BigEndian.PutUint16(head[4:], uint16(length))
		return append(append(head, src.AsSlice()...), dst.AsSlice()...)
	}
	head := make([]byte, 20+options)
	head[0] = 4<<4 | byte(len(head)/4)
	binary.BigEndian.PutUint16(head[2:], uint16(len(head)+length))
	binary.BigEndian.PutUint16(head[6:], fragment)
	head[8], head[9] = 64, protocol
	copy(head[12:], src.AsSlice())
	copy(head[16:], dst.AsSlice())
	return head
}

// trouble is an ICMP error about a segment that dst has sent.
func trouble(src, dst netip.AddrPort, kind byte) []byte {
	about := segment{src: dst, dst: src, flags: ack}.packet()
	protocol := byte(unix.IPPROTO_ICMP)
	if dst.Addr().Is6() {
		protocol = unix.IPPROTO_ICMPV6
	}
	body := append([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, about...)
	return append(append(ethernet(at, client, dst.Addr()), ip(src.Addr(), dst.Addr(), protocol, 0, 0, len(body))...), body...)
}

// toOther returns the ICMP error with another address than that of the quoted segment's
// sender as its own destination.
func toOther(frame []byte) []byte {
	last := 14 + 20 - 1
	if frame[12] == 0x86 {
		last = 14 + 40 - 1
	}
	frame[last] ^= 0x40
	return frame
}

// listenOn returns a listener on an address.
func listenOn(t *testing.T, address netip.Addr) *net.TCPListener {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // as that of the appliance
	l, err := lc.Listen(t.Context(), "tcp", netip.AddrPortFrom(address, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// connection returns both ends of a connection to l.
func connection(t *testing.T, l *net.TCPListener) (client, server *net.TCPConn) {
	t.Helper()
	client, err := net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = l.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}

// awaitEnd returns when the other end of c has been closed.
func awaitEnd(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("%d bytes, %v instead of the end", n, err)
	}
}

// wire is a socket that gets all that passes by loopback.
type wire int

func tap(t *testing.T) wire {
	t.Helper()
	all := int(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL)))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, all)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		t.Fatal(err)
	}
	return wire(fd)
}

// segment waits for a segment with these flags and no others, as one that arrives.
func (w wire) segment(t *testing.T, src, dst netip.AddrPort, flags byte) segment {
	t.Helper()
	head := 14 + 20
	if src.Addr().Is6() {
		head = 14 + 40
	}
	buf := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(int(w), buf, 0)
		if err != nil {
			t.Fatalf("no segment from %s to %s with the flags %#x: %v", src, dst, flags, err)
		}
		if n < head+20 {
			continue
		}
		tcp := buf[head:n]
		if binary.BigEndian.Uint16(tcp) == src.Port() && binary.BigEndian.Uint16(tcp[2:]) == dst.Port() && tcp[13] == flags {
			s := arriving(src, dst, flags)
			s.seq, s.acks = binary.BigEndian.Uint32(tcp[4:]), binary.BigEndian.Uint32(tcp[8:])
			return s
		}
	}
}

func addrPort(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }

func TestVerdicts(t *testing.T) {
	o := program(t)
	for _, address := range []netip.Addr{vip, vip6} {
		t.Run(address.String(), func(t *testing.T) {
			l := listenOn(t, address)
			here := addrPort(l.Addr())
			other := netip.AddrPortFrom(here.Addr(), 40000) // a client without a connection to this node
			seen := tap(t)
			c, s := connection(t, l)
			known := addrPort(c.LocalAddr())

			expect(t, o, "a request for a connection", arriving(other, here, syn).frame(), taken)
			expect(t, o, "a segment of a connection that is not here", arriving(other, here, ack).frame(), handed)
			expect(t, o, "data of one", arriving(other, here, ack|psh).frame(), handed)
			expect(t, o, "its end", arriving(other, here, ack|fin).frame(), handed)
			expect(t, o, "its reset", arriving(other, here, rst).frame(), handed)
			expect(t, o, "an answer to a request that is not here", arriving(other, here, syn|ack).frame(), handed)
			expect(t, o, "one to a port on which nobody listens", arriving(other, netip.AddrPortFrom(address, 1), ack).frame(), handed)
			expect(t, o, "a segment of a connection that is here", arriving(known, here, ack).frame(), taken)
			expect(t, o, "its reset", arriving(known, here, rst).frame(), taken)

			for what, change := range map[string]func(*segment){
				"a frame from the other node":  func(s *segment) { s.from = peer },
				"a frame to somebody else":     func(s *segment) { s.to = own },
				"a frame to the other node":    func(s *segment) { s.to = peer },
				"a segment to another address": func(s *segment) { s.dst = netip.AddrPortFrom(stranger, 80); s.src = s.dst },
			} {
				one := arriving(other, here, ack)
				change(&one)
				expect(t, o, what, one.frame(), left)
			}

			kinds := []byte{3, 11, 12}
			if address.Is6() {
				kinds = []byte{1, 2, 3, 4}
			}
			for _, kind := range kinds {
				expect(t, o, "an error about a connection that is not here", trouble(other, here, kind), handed)
				expect(t, o, "an error about one that is here", trouble(known, here, kind), taken)
				expect(t, o, "an error that is for somebody else", toOther(trouble(other, here, kind)), left)
			}
			expect(t, o, "no error", trouble(other, here, 0x88), left)

			// The end that closes first is in TIME_WAIT.
			s.Close()
			awaitEnd(t, c)
			c.Close()
			last := seen.segment(t, known, here, fin|ack)
			seen.segment(t, here, known, ack) // the answer
			expect(t, o, "a segment of a connection that is over here", last.frame(), taken)
			last.flags = ack
			expect(t, o, "another", last.frame(), taken)
			later := last
			later.seq, later.acks = last.seq+100_000, last.acks+100_000
			expect(t, o, "one of a later connection from the same port, which is not here", later.frame(), handed)
			expect(t, o, "its request", arriving(known, here, syn).frame(), taken)
			expect(t, o, "its reset", arriving(known, here, rst).frame(), handed)
			expect(t, o, "an error about it", trouble(known, here, 3), handed)
		})
	}
	if n := (&Program{objects: *o}).Handed(); n != (6+3+3)+(6+4+3) {
		t.Errorf("%d packets are counted as handed over", n)
	}
}

// A client that repeats its request, because no answer has come, may be answered by
// both nodes. It goes on with one of them.
func TestVerdictOnRequests(t *testing.T) {
	o := program(t)
	for _, address := range []netip.Addr{vip, vip6} {
		l := listenOn(t, address)
		raw, err := l.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		// Until data comes, the request is not a connection here.
		if err := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 60)
		}); err != nil {
			t.Fatal(err)
		}
		here := addrPort(l.Addr())
		seen := tap(t)
		c, err := net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		known := addrPort(c.LocalAddr())
		answer := seen.segment(t, known, here, ack)
		expect(t, o, "the answer to a request that is here", answer.frame(), taken)
		expect(t, o, "its reset", arriving(known, here, rst).frame(), taken)
		expect(t, o, "an error about it", trouble(known, here, 3), taken)
		answer.acks++
		expect(t, o, "the answer to what the other node has said to the same request", answer.frame(), handed)
		answer.flags |= psh
		expect(t, o, "data to the other node", answer.frame(), handed)
	}
}

func TestVerdictsOfIPv4(t *testing.T) {
	o := program(t)
	l := listenOn(t, vip)
	one := arriving(netip.MustParseAddrPort("127.0.0.1:40000"), addrPort(l.Addr()), ack)
	one.options = 8
	expect(t, o, "a segment with options of IP", one.frame(), handed)
	one.fragment = 0x2000
	expect(t, o, "a first fragment", one.frame(), left)
	one.fragment = 100
	expect(t, o, "a later fragment", one.frame(), left)
}

// No cut of a frame, and none that says it is longer than it is, does harm.
func TestFramesCutOff(t *testing.T) {
	o := program(t)
	for _, address := range []netip.Addr{vip, vip6} {
		dst, head := netip.AddrPortFrom(address, 80), 14+20
		if address.Is6() {
			head = 14 + 40
		}
		for _, frame := range [][]byte{arriving(dst, dst, ack).frame(), trouble(dst, dst, 3)} {
			for n := head; n < len(frame); n++ { // the kernel runs it on no fewer bytes
				if ret, _ := verdict(t, o, frame[:n]); n < head+20 && ret != next {
					t.Errorf("%d bytes of a frame to %s: %d", n, address, int32(ret))
				}
			}
			long := bytes.Clone(frame)
			long[14] |= 0x0f // the longest head of IPv4
			verdict(t, o, long)
		}
	}
}

// With SYN cookies a listener has no request that the answer could be matched
// with; what it has sent is ours all the same, and what it has not is not.
func TestVerdictOnCookies(t *testing.T) {
	o := program(t)
	if err := os.WriteFile("/proc/sys/net/ipv4/tcp_syncookies", []byte("2"), 0o644); err != nil {
		t.Fatal(err)
	}
	l := listenOn(t, vip)
	here := addrPort(l.Addr())
	from := netip.MustParseAddrPort("127.0.0.5:40000")
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_HDRINCL, 1); err != nil {
		t.Fatal(err)
	}
	request := arriving(from, here, syn)
	request.seq = 1000
	packet := request.packet()
	checksum(packet)
	if err := unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: here.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
	answer := arriving(from, here, ack)
	answer.seq, answer.acks = 1001, cookie(t, fd, from.Port())+1
	expect(t, o, "the answer to a cookie", answer.frame(), taken)
	answer.acks += 100 // the lowest bits say how long segments may be
	expect(t, o, "the answer to no cookie of this node", answer.frame(), handed)
}

// checksum fills in that of a TCP segment in IPv4; the kernel fills in the one of
// IP.
func checksum(packet []byte) {
	tcp := packet[20:]
	sum := uint32(unix.IPPROTO_TCP + len(tcp))
	for _, b := range [][]byte{packet[12:20], tcp} {
		for ; len(b) > 0; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
}

// cookie returns the sequence number of the SYN-ACK to a port.
func cookie(t *testing.T, fd int, port uint16) uint32 {
	t.Helper()
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1500)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			t.Fatalf("no answer to the request: %v", err)
		}
		tcp := buf[20:n]
		if binary.BigEndian.Uint16(tcp[2:]) == port && tcp[13]&(syn|ack) == syn|ack {
			return binary.BigEndian.Uint32(tcp[4:])
		}
	}
}

// A program that is attached is gone when it is closed.
func TestAttach(t *testing.T) {
	program(t) // for its namespace
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := Supported(); err != nil {
		t.Error(err)
	}
	for _, way := range []ingress.Way{"", ingress.Clsact} {
		p, err := Attach(Options{Interface: lo.Index, Addresses: []netip.Addr{vip}, At: at, Own: own, Peer: peer, Way: way})
		if err != nil {
			t.Fatal(err)
		}
		if n := attached(t, lo.Index); n[p.hook.Way()] != 1 || way != "" && p.hook.Way() != way {
			t.Errorf("attached by %s: %v", p.hook.Way(), n)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if n := attached(t, lo.Index); n[ingress.TCX]+n[ingress.Clsact] != 0 {
			t.Errorf("after the end %v are attached", n)
		}
		if n := p.Handed(); n != 0 {
			t.Errorf("a closed program has handed over %d", n)
		}
	}
}

// Without a virtual MAC address a packet of this node stays what it is.
func TestFramesToTheInterfaceItself(t *testing.T) {
	o := programOf(t, Options{Addresses: []netip.Addr{vip}, At: own, Own: own, Peer: peer})
	one := arriving(netip.AddrPortFrom(stranger, 40000), netip.AddrPortFrom(vip, 80), syn)
	expect(t, o, "a frame to another one", one.frame(), left)
	one.to = own
	expect(t, o, "a request", one.frame(), left)
	one.flags = ack
	expect(t, o, "a segment", one.frame(), handed)
}

// When the addresses have gone, requests are the other node's, too.
func TestGone(t *testing.T) {
	o := program(t)
	if err := (&Program{objects: *o}).Gone(); err != nil {
		t.Fatal(err)
	}
	for _, address := range []netip.Addr{vip, vip6} {
		here := addrPort(listenOn(t, address).Addr())
		expect(t, o, "a request", arriving(netip.AddrPortFrom(address, 40000), here, syn).frame(), handed)
		own := arriving(netip.AddrPortFrom(address, 40000), here, syn)
		own.from = peer
		expect(t, o, "one from the other node", own.frame(), left)
	}
}

func TestForget(t *testing.T) {
	o := program(t)
	to, to6 := netip.AddrPortFrom(vip, 80), netip.AddrPortFrom(vip6, 80)
	for range 2 { // the second time there is nothing to forget
		if err := (&Program{objects: *o}).Forget([]netip.Addr{vip}); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, o, "a segment to an address that was forgotten", arriving(netip.AddrPortFrom(stranger, 40000), to, ack).frame(), left)
	expect(t, o, "one to another", arriving(to6, to6, ack).frame(), handed)
}
