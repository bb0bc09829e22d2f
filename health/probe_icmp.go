package health

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// probeICMP passes when the target answers an echo request (RFC 792, RFC 4443
// section 4). The port of its address means nothing.
func probeICMP(ctx context.Context, target Target) (string, error) {
	address := target.Address.Addr().Unmap()
	conn, err := dialICMP(address)
	if err != nil {
		return "", err
	}
	conn = bind(ctx, conn)
	defer func() { _ = conn.Close() }()
	request := newEcho(address.Is6(), rand.Uint64())
	if _, err := conn.Write(request.packet()); err != nil {
		return "", err
	}
	buffer := make([]byte, 256)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return "", err
		}
		if request.answeredBy(buffer[:n]) {
			return "echo answered", nil
		}
	}
}

// dialICMP returns a socket for echo requests to address and what comes back
// from there. One for echoes alone will do where this process may have it
// (sysctl net.ipv4.ping_group_range); otherwise it takes CAP_NET_RAW. The caller
// closes it.
func dialICMP(address netip.Addr) (net.Conn, error) {
	family, protocol := unix.AF_INET, unix.IPPROTO_ICMP
	if address.Is6() {
		family, protocol = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	const flags = unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
	raw := false
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|flags, protocol)
	if err != nil && !isOurs(err) {
		raw = true
		fd, err = unix.Socket(family, unix.SOCK_RAW|flags, protocol)
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return nil, ownError("this process may not send echo requests; it needs CAP_NET_RAW")
	}
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	// The file is only the way to a net.Conn, which gets a descriptor of its own.
	file := os.NewFile(uintptr(fd), "icmp")
	defer func() { _ = file.Close() }()
	if err := prepareICMP(fd, address, raw); err != nil {
		return nil, err
	}
	return net.FileConn(file)
}

// prepareICMP lets a socket hear of errors on the way, and of echo replies from
// address only.
func prepareICMP(fd int, address netip.Addr, raw bool) error {
	var filtered, reported error
	var to unix.Sockaddr
	if address.Is6() {
		reported = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
		if raw {
			filtered = unix.SetsockoptICMPv6Filter(fd, unix.SOL_ICMPV6, unix.ICMPV6_FILTER, onlyEchoReplies6())
		}
		zone, err := zoneIndex(address.Zone())
		if err != nil {
			return err
		}
		to = &unix.SockaddrInet6{Addr: address.As16(), ZoneId: zone}
	} else {
		reported = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
		if raw {
			const icmpFilter = 1 // ICMP_FILTER of linux/icmp.h: the set bits are dropped
			filtered = unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, ^(1 << echoReply))
		}
		to = &unix.SockaddrInet4{Addr: address.As4()}
	}
	if err := errors.Join(reported, filtered); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	return os.NewSyscallError("connect", unix.Connect(fd, to))
}

// onlyEchoReplies6 returns a filter in which the set bits are dropped.
func onlyEchoReplies6() *unix.ICMPv6Filter {
	var f unix.ICMPv6Filter
	for i := range f.Data {
		f.Data[i] = ^uint32(0)
	}
	f.Data[echoReply6/32] &^= 1 << (echoReply6 % 32)
	return &f
}

// zoneIndex returns the index of the interface that a zone names; 0 for none.
func zoneIndex(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	iface, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, fmt.Errorf("there is no interface %s", zone)
	}
	return uint32(iface.Index), nil
}
