package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// MaxSize is the longest header that Parse accepts, in bytes. Version 2 allows
// more than ten times as much; what proxies send has a few hundred bytes.
const MaxSize = 4096

// maxV1 is the longest header of version 1 with its CR LF (section 2.1).
const maxV1 = 107

// ErrIncomplete says that the bytes are the begin of a header.
var ErrIncomplete = errors.New("the PROXY header is not complete")

// signature begins a header of version 2 (section 2.2).
var signature = []byte("\r\n\r\n\x00\r\nQUIT\n")

// Header is what a header says.
type Header struct {
	// Source and Destination are those of the client's connection. They are
	// invalid if the header says that they are not known, or that the
	// connection is the proxy's own: then the real ones count.
	Source, Destination netip.AddrPort
}

// Parse reads the header at the begin of b and returns how many bytes it has.
// The error is ErrIncomplete as long as more bytes may make b a header.
func Parse(b []byte) (h Header, n int, err error) {
	switch {
	case bytes.HasPrefix(b, signature):
		return parseV2(b)
	case bytes.HasPrefix(signature, b):
		return Header{}, 0, ErrIncomplete
	case bytes.HasPrefix(b, []byte("PROXY ")):
		return parseV1(b)
	case bytes.HasPrefix([]byte("PROXY "), b):
		return Header{}, 0, ErrIncomplete
	}
	return Header{}, 0, errors.New("this is no PROXY header")
}

func parseV1(b []byte) (Header, int, error) {
	end := bytes.Index(b[:min(len(b), maxV1)], []byte("\r\n"))
	if end < 0 {
		if len(b) < maxV1 {
			return Header{}, 0, ErrIncomplete
		}
		return Header{}, 0, fmt.Errorf("the PROXY header does not end within %d bytes", maxV1)
	}
	n := end + 2
	fields := strings.Split(string(b[:end]), " ")
	if fields[1] == "UNKNOWN" {
		return Header{}, n, nil // whatever follows is to be ignored
	}
	if len(fields) != 6 || fields[1] != "TCP4" && fields[1] != "TCP6" {
		return Header{}, 0, fmt.Errorf("malformed PROXY header %q", b[:end])
	}
	var h Header
	var err error
	if h.Source, err = addressV1(fields[1], fields[2], fields[4]); err == nil {
		h.Destination, err = addressV1(fields[1], fields[3], fields[5])
	}
	if err != nil {
		return Header{}, 0, fmt.Errorf("malformed PROXY header %q: %w", b[:end], err)
	}
	return h, n, nil
}

func addressV1(family, address, port string) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if a.Is4() != (family == "TCP4") || a.Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("%s is no address of %s", a, family)
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil || port != strconv.FormatUint(p, 10) {
		return netip.AddrPort{}, fmt.Errorf("%q is no port", port)
	}
	return netip.AddrPortFrom(a, uint16(p)), nil
}

// The fields of version 2 that matter here (section 2.2).
const (
	headV2       = 16 // bytes before the addresses
	versionV2    = 0x2
	commandLocal = 0x0
	commandProxy = 0x1
	familyIPv4   = 0x1
	familyIPv6   = 0x2
	familyUnix   = 0x3 // the last one that is assigned
	datagrams    = 0x2 // the last protocol, in the lower half of that byte
	streamOver4  = 0x11
	streamOver6  = 0x21
)

func parseV2(b []byte) (Header, int, error) {
	if len(b) < headV2 {
		return Header{}, 0, ErrIncomplete
	}
	if v := b[12] >> 4; v != versionV2 {
		return Header{}, 0, fmt.Errorf("PROXY header of unknown version %d", v)
	}
	n := headV2 + int(binary.BigEndian.Uint16(b[14:]))
	if n > MaxSize {
		return Header{}, 0, fmt.Errorf("PROXY header of %d bytes; %d are accepted", n, MaxSize)
	}
	command := b[12] & 0xf
	if command > commandProxy {
		return Header{}, 0, fmt.Errorf("PROXY header with unknown command %d", command)
	}
	if len(b) < n {
		return Header{}, 0, ErrIncomplete
	}
	if command == commandLocal {
		return Header{}, n, nil
	}
	family := b[13] >> 4
	if family > familyUnix || b[13]&0xf > datagrams { // "receivers must drop connections presenting unexpected values"
		return Header{}, 0, fmt.Errorf("PROXY header with unknown family and protocol %#02x", b[13])
	}
	body := b[headV2:n]
	switch family {
	case familyIPv4:
		if len(body) < 12 {
			return Header{}, 0, errors.New("PROXY header without its addresses")
		}
		return Header{
			Source:      netip.AddrPortFrom(netip.AddrFrom4([4]byte(body[0:4])), binary.BigEndian.Uint16(body[8:])),
			Destination: netip.AddrPortFrom(netip.AddrFrom4([4]byte(body[4:8])), binary.BigEndian.Uint16(body[10:])),
		}, n, nil
	case familyIPv6:
		if len(body) < 36 {
			return Header{}, 0, errors.New("PROXY header without its addresses")
		}
		return Header{
			Source:      netip.AddrPortFrom(netip.AddrFrom16([16]byte(body[0:16])), binary.BigEndian.Uint16(body[32:])),
			Destination: netip.AddrPortFrom(netip.AddrFrom16([16]byte(body[16:32])), binary.BigEndian.Uint16(body[34:])),
		}, n, nil
	}
	return Header{}, n, nil // unspecified, or unix: nothing to go by
}

// AppendV1 appends a header of version 1 to b. Addresses of both families are
// written as IPv6.
func AppendV1(b []byte, h Header) []byte {
	if !h.Source.IsValid() || !h.Destination.IsValid() {
		return append(b, "PROXY UNKNOWN\r\n"...)
	}
	family, from, to := "TCP4", h.Source.Addr().Unmap(), h.Destination.Addr().Unmap()
	if !from.Is4() || !to.Is4() {
		family = "TCP6"
		from, to = netip.AddrFrom16(from.As16()), netip.AddrFrom16(to.As16())
	}
	b = append(b, "PROXY "+family+" "...)
	b = append(from.WithZone("").AppendTo(b), ' ')
	b = append(to.WithZone("").AppendTo(b), ' ')
	b = append(strconv.AppendUint(b, uint64(h.Source.Port()), 10), ' ')
	b = strconv.AppendUint(b, uint64(h.Destination.Port()), 10)
	return append(b, "\r\n"...)
}

// AppendV2 appends a header of version 2 to b. Addresses of both families are
// written as IPv6.
func AppendV2(b []byte, h Header) []byte {
	b = append(b, signature...)
	if !h.Source.IsValid() || !h.Destination.IsValid() {
		return append(b, versionV2<<4|commandLocal, 0, 0, 0)
	}
	from, to := h.Source.Addr().Unmap(), h.Destination.Addr().Unmap()
	if from.Is4() && to.Is4() {
		b = append(b, versionV2<<4|commandProxy, streamOver4, 0, 12)
		b = append(append(b, from.AsSlice()...), to.AsSlice()...)
	} else {
		b = append(b, versionV2<<4|commandProxy, streamOver6, 0, 36)
		f, t := from.As16(), to.As16()
		b = append(append(b, f[:]...), t[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, h.Source.Port())
	return binary.BigEndian.AppendUint16(b, h.Destination.Port())
}
