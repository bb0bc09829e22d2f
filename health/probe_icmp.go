package health

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"appliance/internal/endpoint"
)

// probeICMP passes when the target answers an echo request (RFC 792, RFC 4443
// section 4). The port of its address means nothing.
func probeICMP(ctx context.Context, target Target) (string, error) {
	address := target.Address.IP().Addr().Unmap()
	conn, err := dialICMP(ctx, address)
	if err != nil {
		return "", err
	}
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
func dialICMP(ctx context.Context, address netip.Addr) (*boundConn, error) {
	protocol := unix.IPPROTO_ICMP
	if address.Is6() {
		protocol = unix.IPPROTO_ICMPV6
	}
	raw := false
	fd, err := unix.Socket(family(address), unix.SOCK_DGRAM|socketFlags, protocol)
	if err != nil && !isOurs(err) {
		raw = true
		fd, err = unix.Socket(family(address), unix.SOCK_RAW|socketFlags, protocol)
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return nil, ownError("this process may not send echo requests; it needs CAP_NET_RAW")
	}
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := prepareICMP(fd, address.Is6(), raw); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("setsockopt", err)
	}
	return connect(ctx, fd, "icmp", endpoint.IP(netip.AddrPortFrom(address, 0)))
}

// prepareICMP lets a socket hear of errors on the way, and of nothing else but
// echo replies.
func prepareICMP(fd int, v6, raw bool) error {
	var filtered, reported error
	if v6 {
		reported = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
		if raw {
			filtered = unix.SetsockoptICMPv6Filter(fd, unix.SOL_ICMPV6, unix.ICMPV6_FILTER, onlyEchoReplies6())
		}
	} else {
		reported = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
		if raw {
			const icmpFilter = 1 // ICMP_FILTER of linux/icmp.h: the set bits are dropped
			filtered = unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, ^(1 << echoReply))
		}
	}
	return errors.Join(reported, filtered)
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
