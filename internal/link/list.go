package link

import (
	"errors"
	"time"

	"github.com/vishvananda/netlink"
)

// listPatience is for how long a list is asked for again that others change meanwhile.
// The kernel answers with what fits into 32 KiB at a time, some 370 addresses or 20
// interfaces. A change between two of these may have it leave something out; then it
// says so.
const listPatience = 500 * time.Millisecond

// whole returns what list does, once nothing has changed meanwhile.
func whole[T any](list func() ([]T, error)) ([]T, error) {
	for begun := time.Now(); ; {
		all, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) || time.Since(begun) > listPatience {
			return all, err
		}
	}
}

// listAddresses returns the addresses of l, or of all interfaces if it is nil.
func listAddresses(handle *netlink.Handle, l netlink.Link, family int) ([]netlink.Addr, error) {
	return whole(func() ([]netlink.Addr, error) { return handle.AddrList(l, family) })
}

// listLinks returns all interfaces.
func listLinks(handle *netlink.Handle) ([]netlink.Link, error) { return whole(handle.LinkList) }
