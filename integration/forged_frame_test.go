package integration

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
)

// forgedFrame is an advert with whatever is wrong with it. The zero value of a
// field is what is right.
type forgedFrame struct {
	source      string // of the IP header; default a stranger on the LAN
	destination string // of the IP header; default the group
	ttl         int    // default 255; -1 is 0
	version     int    // of VRRP; default 3; -1 is 0
	kind        int    // of VRRP; default 1; -1 is 0
	vrid        int    // default 50; -1 is 0
	priority    int    // default 255
	count       int    // of addresses, as the message says; default 1; -1 is 0
	interval    int    // in centiseconds; default 10; -1 is 0
	badSum      bool   // the message's checksum is wrong

	length  int                       // of the message, in bytes, cut or filled up with zeros; default 12; -1 is 0
	payload []byte                    // instead of a message
	options []byte                    // of the IP header
	header  func(ip []byte)           // changes the IP header before its checksum is computed
	after   func(frame []byte) []byte // changes the frame in the end
}

// forgedDefault returns v, its default for 0, and 0 for -1.
func forgedDefault(v, def int) int {
	switch v {
	case 0:
		return def
	case -1:
		return 0
	}
	return v
}

// The stranger who forges, and the group that adverts go to.
const (
	forgedStranger = "192.168.15.50"
	forgedGroup    = "224.0.0.18"
)

// forgedMAC is the client's: a frame with another's would confuse the switch.
var forgedMAC = net.HardwareAddr{0x02, 0, 192, 168, 15, 100}

// build returns the frame for a station.
func (f forgedFrame) build(to net.HardwareAddr) []byte {
	source, destination := netip.MustParseAddr(forgedStranger), netip.MustParseAddr(forgedGroup)
	if f.source != "" {
		source = netip.MustParseAddr(f.source)
	}
	if f.destination != "" {
		destination = netip.MustParseAddr(f.destination)
	}
	message := f.payload
	if message == nil {
		message = f.message(source, destination)
	}

	ip := make([]byte, 20, 60)
	ip = append(ip, f.options...)
	ip[0] = byte(4<<4 | len(ip)/4)
	ip[1] = 0xc0
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(message)))
	ip[8] = byte(forgedDefault(f.ttl, 255))
	ip[9] = 112
	copy(ip[12:], source.AsSlice())
	copy(ip[16:], destination.AsSlice())
	if f.header != nil {
		f.header(ip)
	}
	binary.BigEndian.PutUint16(ip[10:], forgedSum(ip))

	frame := slices.Concat(to, forgedMAC, []byte{0x08, 0x00}, ip, message)
	if f.after != nil {
		frame = f.after(frame)
	}
	return frame
}

// message returns the VRRP message, whose checksum fits the message as it is
// sent unless badSum says otherwise.
func (f forgedFrame) message(source, destination netip.Addr) []byte {
	message := []byte{
		byte(forgedDefault(f.version, 3)<<4 | forgedDefault(f.kind, 1)),
		byte(forgedDefault(f.vrid, 50)),
		byte(forgedDefault(f.priority, 255)),
		byte(forgedDefault(f.count, 1)),
		0, byte(forgedDefault(f.interval, 10)),
		0, 0,
		192, 168, 15, 3,
	}
	length := forgedDefault(f.length, len(message))
	message = append(message, make([]byte, max(0, length-len(message)))...)[:length]
	if length < 8 {
		return message
	}
	pseudo := slices.Concat(source.AsSlice(), destination.AsSlice(), []byte{0, 112, byte(length >> 8), byte(length)})
	sum := forgedSum(append(pseudo, message...))
	if f.badSum {
		sum++
	}
	binary.BigEndian.PutUint16(message[6:], sum)
	return message
}

// forgedSum is the Internet's checksum (RFC 1071).
func forgedSum(b []byte) uint16 {
	var sum uint32
	for i, c := range b {
		if i%2 == 0 {
			sum += uint32(c) << 8
		} else {
			sum += uint32(c)
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// forgedCase is a forged advert and the counter that must tell of it; none for
// what does not concern the appliance at all. A counter of forgedHeaders may
// stay where it is.
type forgedCase struct {
	name, counter string
	frame         forgedFrame
}

// forgedHeaders count packets whose IPv4 header is broken. A bridge of Linux
// drops them itself where netfilter looks at what it forwards.
var forgedHeaders = []string{
	"receive_error_ip_total_length", "receive_error_ip_header_length", "receive_error_ip_checksum", "receive_error_not_ipv4",
}

// forgedCases returns what a node with that address must refuse.
func forgedCases(own string) []forgedCase {
	cases := []forgedCase{
		{"one byte too long", "refused_length", forgedFrame{length: 13}},
		{"version 2's authentication data behind it", "refused_length", forgedFrame{length: 20}},
		{"two addresses said, one there", "refused_length", forgedFrame{count: 2}},
		{"255 addresses said, one there", "refused_length", forgedFrame{count: 255}},
		{"no address said, one there", "refused_no_addresses", forgedFrame{count: -1}},
		{"no address", "refused_no_addresses", forgedFrame{count: -1, length: 8}},
		{"wrong checksum", "refused_checksum", forgedFrame{badSum: true, priority: 101}},
		{"wrong checksum, priority 255", "refused_checksum", forgedFrame{badSum: true}},
		{"wrong checksum, 255 addresses", "refused_checksum", forgedFrame{badSum: true, count: 255, length: 8 + 255*4}},
		{"wrong checksum behind IP options", "refused_checksum", forgedFrame{badSum: true, options: []byte{148, 4, 0, 0}}},
		{"version 2", "refused_version", forgedFrame{version: 2, length: 20}},
		{"version 0", "refused_version", forgedFrame{version: -1}},
		{"version 4", "refused_version", forgedFrame{version: 4}},
		{"version 15", "refused_version", forgedFrame{version: 15}},
		{"type 0", "refused_type", forgedFrame{kind: -1}},
		{"type 2", "refused_type", forgedFrame{kind: 2}},
		{"type 15", "refused_type", forgedFrame{kind: 15}},
		{"forwarded once", "refused_ttl", forgedFrame{ttl: 254}},
		{"time to live 1", "refused_ttl", forgedFrame{ttl: 1}},
		{"virtual router 51", "refused_vrid", forgedFrame{vrid: 51}},
		{"virtual router 0", "refused_vrid", forgedFrame{vrid: -1}},
		{"interval 0", "refused_interval", forgedFrame{interval: -1}},
		{"this node's own address", "refused_own_advert", forgedFrame{source: own}},
		{"no sender", "refused_source", forgedFrame{source: "0.0.0.0"}},
		{"a group as the sender", "refused_source", forgedFrame{source: forgedGroup}},
		{"longer than any advert", "receive_error_too_long", forgedFrame{length: 1400}},
		{"more fragments follow", "receive_error_fragment", forgedFrame{header: func(ip []byte) { ip[6] = 0x20 }}},
		{"a later fragment", "receive_error_fragment", forgedFrame{header: func(ip []byte) { ip[7] = 1 }}},
		{"the packet says it is longer", "receive_error_ip_total_length", forgedFrame{header: func(ip []byte) { ip[3]++ }}},
		{"the packet says it is shorter than its header", "receive_error_ip_total_length", forgedFrame{header: func(ip []byte) { ip[3] = 19 }}},
		{"options that are not there", "receive_error_ip_total_length", forgedFrame{length: 8, count: -1, header: func(ip []byte) { ip[0] = 0x48; ip[3] = 28 }}},
		{"header of 16 bytes", "receive_error_ip_header_length", forgedFrame{header: func(ip []byte) { ip[0] = 0x44 }}},
		{"wrong checksum of the header", "receive_error_ip_checksum", forgedFrame{after: func(b []byte) []byte { b[14+10]++; return b }}},
		{"version 6 in a version 4 header", "receive_error_not_ipv4", forgedFrame{header: func(ip []byte) { ip[0] = 0x65 }}},
		{"to the node itself", "refused_unicast", forgedFrame{destination: own}},
		{"to another node", "", forgedFrame{destination: "192.168.15.13"}},
		{"to all hosts", "", forgedFrame{destination: "224.0.0.1"}},
		{"broadcast", "", forgedFrame{destination: "255.255.255.255"}},
		{"another protocol", "", forgedFrame{header: func(ip []byte) { ip[9] = 113 }}},
		{"the header ends early", "", forgedFrame{after: func(b []byte) []byte { return b[:14+16] }}},
		{"of another VLAN", "", forgedFrame{after: func(b []byte) []byte {
			return slices.Concat(b[:12], []byte{0x81, 0x00, 0x00, 0x07}, b[12:])
		}}},
	}
	for n := range 12 {
		c := forgedCase{"cut", "refused_short", forgedFrame{length: forgedDefault(n, -1)}}
		if n >= 8 {
			c.counter = "refused_length"
		}
		cases = append(cases, c)
	}
	return cases
}
