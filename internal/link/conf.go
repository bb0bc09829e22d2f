package link

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// What the kernel calls the settings of an interface: IPV4_DEVCONF_* less one of
// linux/ip.h, in whose array they are, and DEVCONF_FORWARDING of linux/ipv6.h.
const (
	confRPFilter    = 8
	confARPFilter   = 13
	confARPAnnounce = 18
	confARPIgnore   = 19
	confForwarding6 = 0
)

// Attributes of linux/if_link.h that golang.org/x/sys does not have.
const (
	iflaInetConf         = 1
	iflaInet6Conf        = 2
	iflaInet6AddrGenMode = 8
	addrGenModeNone      = 1
	attributeType        = 0x3fff // NLA_TYPE_MASK
)

// conf holds settings of one interface, those of /proc/sys/net. Netlink reads and
// writes them in the namespace of its socket, and where /proc/sys is read-only.
type conf struct {
	inet        map[uint16]uint32 // by number, as in IPV4_DEVCONF_*
	forwarding6 bool              // whether IPv6 packets are forwarded
}

// readConf asks for the settings of an interface.
func readConf(index int) (conf, error) {
	c := conf{inet: make(map[uint16]uint32)}
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	answers, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if err != nil {
		return conf{}, fmt.Errorf("read the settings of the interface: %w", err)
	}
	if len(answers) != 1 || len(answers[0]) < msg.Len() {
		return conf{}, errors.New("read the settings of the interface: the kernel's answer makes no sense")
	}
	families, err := nested(answers[0][msg.Len():], unix.IFLA_AF_SPEC)
	if err != nil {
		return conf{}, err
	}
	inet, err := nested(families, unix.AF_INET, iflaInetConf)
	if err != nil {
		return conf{}, err
	}
	for i := uint16(1); len(inet) >= 4; i, inet = i+1, inet[4:] {
		c.inet[i] = binary.NativeEndian.Uint32(inet)
	}
	inet6, err := nested(families, unix.AF_INET6, iflaInet6Conf)
	if err != nil {
		return conf{}, err
	}
	if len(inet6) >= 4*confForwarding6+4 {
		c.forwarding6 = binary.NativeEndian.Uint32(inet6[4*confForwarding6:]) != 0
	}
	return c, nil
}

// nested returns the value of the attribute to which path leads, nil if there is
// none.
func nested(b []byte, path ...uint16) ([]byte, error) {
	for _, kind := range path {
		attributes, err := nl.ParseRouteAttr(b)
		if err != nil {
			return nil, fmt.Errorf("read the settings of the interface: %w", err)
		}
		b = nil
		for _, a := range attributes {
			if a.Attr.Type&attributeType == kind {
				b = a.Value
			}
		}
	}
	return b, nil
}

// writeConf changes IPv4 settings of an interface, by number.
func writeConf(index int, inet map[uint16]uint32) error {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	families := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	settings := families.AddRtAttr(unix.AF_INET, nil).AddRtAttr(iflaInetConf|unix.NLA_F_NESTED, nil)
	for number, value := range inet {
		settings.AddRtAttr(int(number), nl.Uint32Attr(value))
	}
	req.AddData(families)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("change the settings of the interface: %w", err)
	}
	return nil
}
