package link

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Record is a file that says what virtual MAC addresses and parked addresses have
// changed on this machine: the interfaces that were made, the addresses that are
// parked, and how the settings of the interfaces on the LAN were. It is there while
// there is something to undo, so that whoever comes after a crash can. Its methods
// are safe for concurrent use; the network is that of the calling thread's
// namespace.
type Record struct {
	path string

	mu      sync.Mutex
	parents map[string]*parentRecord // by name
}

// parentRecord is what was changed on one interface.
type parentRecord struct {
	Index int
	// Settings are those that were changed, as they were before.
	Settings map[uint16]uint32 `json:",omitempty"`
	// Virtual are the names of the interfaces made on it.
	Virtual []string `json:",omitempty"`
	// Parked are the addresses that were on it and are on loopback now.
	Parked []netip.Addr `json:",omitempty"`
}

// quiet are the settings of a parent that keep it from answering for the virtual
// addresses, and from naming them as the sender when it asks: both would pair
// them with its own hardware address.
func quiet() map[uint16]uint32 {
	return map[uint16]uint32{confARPIgnore: arpIgnore, confARPAnnounce: arpAnnounce}
}

// NewRecord returns the record at path, whose folder must exist. What an earlier
// process has left there is for Undo.
func NewRecord(path string) *Record {
	return &Record{path: path, parents: make(map[string]*parentRecord)}
}

// Path returns where the file is, or would be.
func (r *Record) Path() string { return r.path }

// holds says whether an interface is known to have been made on a parent.
func (r *Record) holds(parent string, index int, name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.parents[parent]
	return p != nil && p.Index == index && slices.Contains(p.Virtual, name)
}

// add notes that the interface name is about to be made on a parent, and with
// hush makes that quiet.
func (r *Record) add(parent string, index int, name string, hush bool) error {
	return r.note(parent, index, hush, func(p *parentRecord) {
		if !slices.Contains(p.Virtual, name) {
			p.Virtual = append(p.Virtual, name)
		}
	})
}

// park notes that addresses of a parent are about to be parked, and with hush
// makes that quiet.
func (r *Record) park(parent string, index int, addresses []netip.Addr, hush bool) error {
	return r.note(parent, index, hush, func(p *parentRecord) {
		for _, a := range addresses {
			if !slices.Contains(p.Parked, a) {
				p.Parked = append(p.Parked, a)
			}
		}
	})
}

// note notes a change on a parent before it is made, and with hush makes that
// quiet.
func (r *Record) note(parent string, index int, hush bool, change func(*parentRecord)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.parents[parent]
	if p == nil || p.Index != index { // another one of its name, with settings of its own
		parked := []netip.Addr(nil)
		if p != nil {
			parked = p.Parked // wherever they came from, they are on loopback
		}
		p = &parentRecord{Index: index, Parked: parked}
		r.parents[parent] = p
	}
	change(p)
	quieter := make(map[uint16]uint32)
	if hush {
		now, err := readConf(index)
		if err != nil {
			return err
		}
		for number, value := range quiet() {
			if now.inet[number] >= value { // quieter is as good
				continue
			}
			quieter[number] = value
			if p.Settings == nil {
				p.Settings = make(map[uint16]uint32)
			}
			if _, known := p.Settings[number]; !known {
				p.Settings[number] = now.inet[number]
			}
		}
	}
	if err := r.save(); err != nil {
		return err
	}
	if len(quieter) == 0 {
		return nil
	}
	return writeConf(index, quieter)
}

// remove notes that an interface is gone, and gives its parent the old settings
// back if that was the last change.
func (r *Record) remove(handle *netlink.Handle, parent, name string) error {
	return r.strike(handle, parent, func(p *parentRecord) {
		p.Virtual = slices.DeleteFunc(p.Virtual, func(n string) bool { return n == name })
	})
}

// unpark notes that addresses are parked no more, and gives their parent the old
// settings back if that was the last change.
func (r *Record) unpark(handle *netlink.Handle, parent string, addresses []netip.Addr) error {
	return r.strike(handle, parent, func(p *parentRecord) {
		p.Parked = slices.DeleteFunc(p.Parked, func(a netip.Addr) bool { return slices.Contains(addresses, a) })
	})
}

// strike takes a note back.
func (r *Record) strike(handle *netlink.Handle, parent string, change func(*parentRecord)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.parents[parent]
	if p == nil {
		return nil
	}
	if change(p); len(p.Virtual) > 0 || len(p.Parked) > 0 {
		return r.save()
	}
	delete(r.parents, parent)
	return errors.Join(p.restore(handle, parent), r.save())
}

// restore gives a parent its settings back. What somebody else has changed since
// stays, and a parent that is another one by now has settings of its own.
func (p *parentRecord) restore(handle *netlink.Handle, parent string) error {
	l, err := findLink(handle, parent)
	if errors.Is(err, errMissing) || err == nil && l.Attrs().Index != p.Index {
		return nil
	} else if err != nil {
		return fmt.Errorf("interface %s: %w", parent, err)
	}
	now, err := readConf(p.Index)
	if err != nil {
		return fmt.Errorf("interface %s: %w", parent, err)
	}
	back := maps.Clone(p.Settings)
	maps.DeleteFunc(back, func(number uint16, _ uint32) bool { return now.inet[number] != quiet()[number] })
	if len(back) == 0 {
		return nil
	}
	if err := writeConf(p.Index, back); err != nil {
		return fmt.Errorf("interface %s: %w", parent, err)
	}
	return nil
}

// save writes the file as a whole, or removes it when there is nothing to undo.
// The caller holds mu.
func (r *Record) save() error {
	if len(r.parents) == 0 {
		if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the record of interfaces: %w", err)
		}
		return nil
	}
	text, err := json.Marshal(r.parents)
	if err != nil {
		return fmt.Errorf("the record of interfaces: %w", err)
	}
	draft := r.path + ".new"
	if err := os.WriteFile(draft, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("the record of interfaces: %w", err)
	}
	if err := os.Rename(draft, r.path); err != nil {
		return fmt.Errorf("the record of interfaces: %w", err)
	}
	return nil
}

// Undo removes the interfaces that the process has made which left its record at
// path, and the addresses that it has parked, gives the interfaces on the LAN their
// old settings back, and removes the record. It returns the names of those
// interfaces and the addresses. No process may use the record meanwhile. Without a
// record there is nothing to undo.
func Undo(path string) (removed []string, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("the record of interfaces: %w", err)
	}
	r := NewRecord(path)
	if err := json.Unmarshal(text, &r.parents); err != nil {
		return nil, fmt.Errorf("the record of interfaces %s: %w; see with `ip link` what is left and remove the file", path, err)
	}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("the record of interfaces: open netlink: %w", err)
	}
	defer handle.Close()
	var errs []error
	for parent, p := range r.parents {
		for _, name := range p.Virtual {
			errs = append(errs, removeVirtual(handle, name))
			removed = append(removed, name)
		}
		errs = append(errs, takeOffLoopback(handle, p.Parked))
		for _, a := range p.Parked {
			removed = append(removed, a.String())
		}
		errs = append(errs, p.restore(handle, parent))
	}
	if err := errors.Join(errs...); err != nil {
		return removed, err
	}
	clear(r.parents)
	return removed, r.save()
}
