package link

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A client whose request has reached two nodes, for a switch has flooded it or it has
// repeated it, is the other one's. The answers of this one stay without an answer, and after
// some of them the request does not count any more.
func TestConnectionsThatTheClientDoesNotWant(t *testing.T) {
	privateNamespace(t)
	v0, v1 := vethPair(t)
	here, client := netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.77")
	must(t, netlink.NeighAdd(&netlink.Neigh{
		LinkIndex: v0.Attrs().Index, State: netlink.NUD_PERMANENT, IP: client.AsSlice(), HardwareAddr: v1.Attrs().HardwareAddr,
	}))
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(here, 0)))
	must(t, err)
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	to := &unix.SockaddrLinklayer{Protocol: 0x0008, Ifindex: v1.Attrs().Index, Halen: 6} // 0x0800 in the order of the network
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		to.Protocol = 0x0800
	}
	copy(to.Addr[:], v0.Attrs().HardwareAddr)
	count := func() int {
		n, err := Connections([]netip.Addr{here})
		must(t, err)
		return n
	}
	eventually(t, 10*time.Second, "the request is there", func() bool { // the other end may not be up yet
		must(t, unix.Sendto(fd, request(client, here, port), 0, to))
		return count() == 1
	})
	began := time.Now()
	eventually(t, 20*time.Second, "it does not count any more", func() bool { return count() == 0 })
	if took := time.Since(began); took < time.Second {
		t.Errorf("it counted for %v only: a client may take that long to answer", took)
	}
}

// request returns a packet that asks for a connection.
func request(from, to netip.Addr, port uint16) []byte {
	b := make([]byte, 40)
	b[0], b[3], b[8], b[9] = 0x45, 40, 64, unix.IPPROTO_TCP
	copy(b[12:], from.AsSlice())
	copy(b[16:], to.AsSlice())
	binary.BigEndian.PutUint16(b[10:], ^onesSum(b[:20]))
	tcp := b[20:]
	binary.BigEndian.PutUint16(tcp, 40000)
	binary.BigEndian.PutUint16(tcp[2:], port)
	tcp[12], tcp[13] = 5<<4, 2 // SYN
	binary.BigEndian.PutUint16(tcp[14:], 1000)
	pseudo := append(append([]byte{}, b[12:20]...), 0, unix.IPPROTO_TCP, 0, 20)
	binary.BigEndian.PutUint16(tcp[16:], ^onesSum(append(pseudo, tcp...)))
	return b
}
