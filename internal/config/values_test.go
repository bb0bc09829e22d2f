package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"
)

func TestStringValues(t *testing.T) {
	type value = any
	tests := []struct {
		text string
		want value // its type decides which reader is tested; nil for an error
		of   reflect.Type
	}{
		{"250ms", 250 * time.Millisecond, nil},
		{"1h30m", 90 * time.Minute, nil},
		{"0s", time.Duration(0), nil},
		{"876000h", 876000 * time.Hour, nil},
		{"876001h", nil, reflect.TypeFor[time.Duration]()},
		{"5", nil, reflect.TypeFor[time.Duration]()},
		{"-1s", nil, reflect.TypeFor[time.Duration]()},
		{"", nil, reflect.TypeFor[time.Duration]()},

		{"512B", int64(512), nil},
		{"64KiB", int64(64 << 10), nil},
		{"1MiB", int64(1 << 20), nil},
		{"2GiB", int64(2 << 30), nil},
		{"8589934591GiB", int64(8589934591 << 30), nil},
		{"8589934592GiB", nil, reflect.TypeFor[int64]()},
		{"64", nil, reflect.TypeFor[int64]()},
		{"64KB", nil, reflect.TypeFor[int64]()},
		{"-1KiB", nil, reflect.TypeFor[int64]()},
		{"1.5KiB", nil, reflect.TypeFor[int64]()},
		{"KiB", nil, reflect.TypeFor[int64]()},

		{"192.168.15.11", netip.MustParseAddr("192.168.15.11"), nil},
		{"::ffff:192.168.15.11", netip.MustParseAddr("192.168.15.11"), nil},
		{"lb01", nil, reflect.TypeFor[netip.Addr]()},

		{"[::1]:80", netip.MustParseAddrPort("[::1]:80"), nil},
		{"[::ffff:10.0.0.1]:80", netip.MustParseAddrPort("10.0.0.1:80"), nil},
		{"*:80", nil, reflect.TypeFor[netip.AddrPort]()},
		{"10.0.0.1:99999", nil, reflect.TypeFor[netip.AddrPort]()},

		{"192.168.15.3/24", netip.MustParsePrefix("192.168.15.3/24"), nil},
		{"192.168.15.3", netip.MustParsePrefix("192.168.15.3/32"), nil},
		{"fe80::3", netip.MustParsePrefix("fe80::3/64"), nil},
		{"2001:db8::3", netip.MustParsePrefix("2001:db8::3/128"), nil},
		{"192.168.15.3/33", nil, reflect.TypeFor[netip.Prefix]()},
		{"fe80::3%eth0", nil, reflect.TypeFor[netip.Prefix]()},
	}
	for _, tt := range tests {
		of := tt.of
		if tt.want != nil {
			of = reflect.TypeOf(tt.want)
		}
		t.Run(fmt.Sprintf("%s %s", of, tt.text), func(t *testing.T) {
			got, err := stringReaders[of](tt.text)
			switch {
			case tt.want == nil && err == nil:
				t.Errorf("got %v, want an error", got)
			case tt.want != nil && (err != nil || got != tt.want):
				t.Errorf("got %v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

func TestClosest(t *testing.T) {
	known := []string{"listen", "name", "timeouts", "pool", "protocol"}
	for name, want := range map[string]string{
		"lisen": "listen", "Listen": "listen", "lsiten": "listen", "nmae": "name", "timeout": "timeouts",
		"pol": "pool", "proto": "", "backend": "", "x": "",
	} {
		if got, _ := closest(name, known); got != want {
			t.Errorf("closest(%q) = %q, want %q", name, got, want)
		}
	}
}
