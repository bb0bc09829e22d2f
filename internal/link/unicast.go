package link

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// openSender opens a socket that sends VRRP packets from source by the interface
// to single nodes. The kernel finds out their hardware addresses. It hears
// nothing: what arrives is taken in front of the host's firewall. But while it
// is there, the kernel does not answer adverts with ICMP errors.
func openSender(ifname string, index int, source netip.Addr) (fd int, err error) {
	domain, level := unix.AF_INET, unix.IPPROTO_IP
	options := map[int]int{unix.IP_TTL: advertTTL, unix.IP_TOS: advertTOS}
	if source.Is6() {
		domain, level = unix.AF_INET6, unix.IPPROTO_IPV6
		options = map[int]int{unix.IPV6_UNICAST_HOPS: advertTTL, unix.IPV6_TCLASS: advertTOS}
	}
	fd, err = unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocolVRRP)
	if err != nil {
		return -1, fmt.Errorf("open the socket for unicast: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			err = fmt.Errorf("set up the socket for unicast: %w", err)
		}
	}()
	if err = attachNothing(fd); err != nil {
		return -1, err
	}
	for option, value := range options {
		if err = unix.SetsockoptInt(fd, level, option, value); err != nil {
			return -1, err
		}
	}
	if err = unix.BindToDevice(fd, ifname); err != nil {
		return -1, err
	}
	return fd, unix.Bind(fd, rawAddress(source, index))
}

// attachNothing makes the kernel drop all that a socket would receive.
func attachNothing(fd int) error {
	program, err := nothingFilter()
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(program))
	for i, p := range program {
		filter[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}

// sendTo sends by a socket of openSender, and does not wait.
func sendTo(fd, index int, msg []byte, to netip.Addr) error {
	return unix.Sendto(fd, msg, unix.MSG_DONTWAIT, rawAddress(to, index))
}

// rawAddress is a as a raw socket wants it. A link-local one is of the interface
// with that index.
func rawAddress(a netip.Addr, index int) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	s := &unix.SockaddrInet6{Addr: a.As16()}
	if a.IsLinkLocalUnicast() {
		s.ZoneId = uint32(index)
	}
	return s
}
