package guard

import (
	"errors"
	"time"

	"appliance/internal/link"
)

// LAN is the Broom for real interfaces.
type LAN struct{}

// Sweep takes the addresses off the interface and sends the farewell. The
// addresses go first: from then on at most one node answers for them.
func (LAN) Sweep(h Holding) error {
	addresses, err := link.NewAddresses(h.Interface, time.Second)
	if err != nil {
		return errors.Join(err, farewell(h))
	}
	defer addresses.Close()
	return errors.Join(addresses.Release(h.Addresses), farewell(h))
}

func farewell(h Holding) error {
	adverts, err := link.ListenAdverts(h.Interface, h.Source)
	if err != nil {
		return err
	}
	return errors.Join(adverts.Send(h.Farewell), adverts.Close())
}
