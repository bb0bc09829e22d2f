package guard

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"time"

	"appliance/internal/link"
)

// LAN is the Broom for real interfaces.
type LAN struct {
	// Shutter makes sure that nothing new begins by what is kept. It may be nil.
	Shutter func(kept []*os.File) error
}

// Shut calls Shutter.
func (l LAN) Shut(kept []*os.File) error {
	if l.Shutter == nil || len(kept) == 0 {
		return nil
	}
	return l.Shutter(kept)
}

// Release takes the addresses off the interface.
func (LAN) Release(h Holding) error {
	if h.Undo != "" {
		_, err := link.Undo(h.Undo)
		return err
	}
	addresses, err := link.NewAddresses(h.Interface, time.Second)
	if err != nil {
		return err
	}
	defer addresses.Close()
	return addresses.Release(h.Addresses)
}

// Farewell sends the farewells of a router that was active.
func (LAN) Farewell(h Holding) error {
	if len(h.Farewells) == 0 {
		return nil
	}
	virtual := func(a netip.Addr) bool {
		return slices.ContainsFunc(h.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })
	}
	choice := link.SourceChoice{Prefer: []netip.Addr{h.Source}, Near: h.Addresses[0].Addr(), Virtual: virtual}
	if h.Unicast {
		choice.Only = h.Source
	}
	adverts, err := link.OpenAdverts(h.Interface, link.AdvertOptions{Source: choice, Unicast: h.Unicast, MAC: h.MAC})
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range h.Farewells {
		errs = append(errs, adverts.Send(f.Message, f.To))
	}
	return errors.Join(append(errs, adverts.Close())...)
}

// Remove removes the filters.
func (LAN) Remove(filters []link.Filter) error { return link.RemoveFilters(filters) }
