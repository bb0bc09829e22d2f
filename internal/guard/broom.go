package guard

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"appliance/internal/link"
)

// LAN is the Broom for real interfaces.
type LAN struct{}

// Sweep takes the addresses off the interface and sends the farewells. The
// addresses go first: from then on at most one node answers for them.
func (LAN) Sweep(h Holding) error {
	if h.Undo != "" {
		_, err := link.Undo(h.Undo)
		return errors.Join(err, farewell(h))
	}
	addresses, err := link.NewAddresses(h.Interface, time.Second)
	if err != nil {
		return errors.Join(err, farewell(h))
	}
	defer addresses.Close()
	return errors.Join(addresses.Release(h.Addresses), farewell(h))
}

func farewell(h Holding) error {
	if len(h.Farewells) == 0 {
		return nil // this node was not active
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
