package config

import (
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// stringReader turns a string of the file into a value of one type.
type stringReader func(s string) (any, error)

// stringReaders holds the types that the file spells as strings.
var stringReaders = map[reflect.Type]stringReader{
	reflect.TypeFor[time.Duration]():  func(s string) (any, error) { return parseDuration(s) },
	reflect.TypeFor[int64]():          func(s string) (any, error) { return parseSize(s) },
	reflect.TypeFor[netip.Addr]():     func(s string) (any, error) { return parseAddr(s) },
	reflect.TypeFor[netip.AddrPort](): func(s string) (any, error) { return parseAddrPort(s) },
	reflect.TypeFor[netip.Prefix]():   func(s string) (any, error) { return parsePrefix(s) },
}

// stringExamples shows how the file spells them.
var stringExamples = map[reflect.Type]string{
	reflect.TypeFor[time.Duration]():  "250ms",
	reflect.TypeFor[int64]():          "64KiB",
	reflect.TypeFor[netip.Addr]():     "192.168.15.11",
	reflect.TypeFor[netip.AddrPort](): "192.168.15.3:3306",
	reflect.TypeFor[netip.Prefix]():   "192.168.15.3/24",
}

// longestDuration keeps sums of durations, and times that are so far away, from
// overflowing.
const longestDuration = 100 * 365 * 24 * time.Hour

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, fmt.Errorf(`%q is not a duration such as "250ms", "3s" or "1h30m"`, s)
	case d < 0:
		return 0, fmt.Errorf("%q is negative; a duration must not be", s)
	case d > longestDuration:
		return 0, fmt.Errorf("%q is longer than 100 years, 876000h", s)
	}
	return d, nil
}

// parseSize reads a number of bytes with its unit.
func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "BKMGi")
	unit, ok := map[string]int64{"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[s[len(digits):]]
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || n < 0 || n > math.MaxInt64/unit {
		return 0, fmt.Errorf(`%q is not a size such as "512B", "64KiB", "1MiB" or "2GiB"`, s)
	}
	return n * unit, nil
}

func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf(`%q is not an IP address such as "192.168.15.11"`, s)
	}
	return a.Unmap(), nil
}

func parseAddrPort(s string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		hint := ""
		if port, ok := strings.CutPrefix(strings.TrimPrefix(s, "*"), ":"); ok {
			hint = fmt.Sprintf(`; for all addresses write "0.0.0.0:%s" or "[::]:%s"`, port, port)
		}
		return netip.AddrPort{}, fmt.Errorf(`%q is not an address with a port such as "192.168.15.3:3306"%s`, s, hint)
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
}

// parsePrefix reads an address with the length of its network's prefix; a bare
// address is a network of its own, but for a link-local one of IPv6, whose network
// always has the same length (RFC 4291 section 2.5.6).
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		if a.Is6() && a.IsLinkLocalUnicast() {
			return netip.PrefixFrom(a, 64), nil
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf(`%q is not an address such as "192.168.15.3/24"`, s)
	}
	return p, nil
}
