package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"appliance/internal/link"
)

// EventKind says what a capture saw.
type EventKind int

// The kinds of events.
const (
	Advert     EventKind = iota + 1 // a VRRP advert
	Gratuitous                      // a gratuitous ARP, or an unsolicited neighbour advertisement
)

// String returns the kind in words.
func (k EventKind) String() string {
	switch k {
	case Advert:
		return "advert"
	case Gratuitous:
		return "gratuitous arp"
	}
	return "unknown"
}

// Event is one frame of interest on the LAN.
type Event struct {
	Time time.Time // when the switch's kernel got it
	Kind EventKind
	// Host is the name of the host whose cable it came from, whatever the frame
	// says of itself.
	Host string
	MAC  net.HardwareAddr // the sender's in the Ethernet header
	// Address is the source of an advert, or the address that is announced.
	Address netip.Addr
	// Version, VRID and Priority are those of an advert.
	Version, VRID, Priority int
}

// Capture notes the VRRP adverts and gratuitous ARPs that hosts send on a LAN.
// It hears a frame as it leaves the host, even if the host is cut off.
type Capture struct {
	tap    *link.Tap
	ports  map[int]string // hosts by the index of their port
	events journal[Event]
	ended  chan struct{}
	err    error // why it ended; set before ended is closed
}

// newCapture starts a capture in the switch's network. Close ends it.
func newCapture(sw *Host, ports map[int]string) (*Capture, error) {
	c := &Capture{ports: ports, ended: make(chan struct{})}
	err := sw.Do(func() (err error) {
		c.tap, err = link.OpenTap()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	go c.run()
	return c, nil
}

func (c *Capture) run() {
	defer close(c.ended)
	buf := make([]byte, 2048)
	for {
		f, err := c.tap.Read(buf)
		if err != nil {
			c.err = err
			return
		}
		if e, ok := c.decode(f); ok {
			c.events.add(e)
		}
	}
}

func (c *Capture) decode(f link.Frame) (Event, bool) {
	host, ok := c.ports[f.Port]
	if !ok || len(f.Data) < etherHeader {
		return Event{}, false
	}
	e := Event{Time: f.Time, Host: host, MAC: slices.Clone(f.Data[6:12])}
	if a, ok := parseARP(f.Data); ok && a.gratuitous() {
		e.Kind, e.Address = Gratuitous, a.sender
		return e, true
	}
	if a, ok := parseAdvert(f.Data); ok {
		e.Kind, e.Address = Advert, a.source
		e.Version, e.VRID, e.Priority = a.version, a.vrid, a.priority
		return e, true
	}
	if target, solicited, ok := parseNA(f.Data); ok && !solicited {
		e.Kind, e.Address = Gratuitous, target
		return e, true
	}
	return Event{}, false
}

// Events returns what has been seen so far, in order. The caller must not
// change it.
func (c *Capture) Events() []Event { return c.events.all() }

// First returns the first event of a kind that a host sent at or after since.
func (c *Capture) First(kind EventKind, host string, since time.Time) (Event, bool) {
	for _, e := range c.Events() {
		if e.Kind == kind && e.Host == host && !e.Time.Before(since) {
			return e, true
		}
	}
	return Event{}, false
}

// Last returns the last event of a kind that a host sent before until.
func (c *Capture) Last(kind EventKind, host string, until time.Time) (Event, bool) {
	for _, e := range slices.Backward(c.Events()) {
		if e.Kind == kind && e.Host == host && e.Time.Before(until) {
			return e, true
		}
	}
	return Event{}, false
}

// Close ends the capture; what it saw stays readable. The error tells if it had
// ended before.
func (c *Capture) Close() error {
	err := c.tap.Close()
	<-c.ended
	if errors.Is(c.err, os.ErrClosed) {
		return err
	}
	return errors.Join(fmt.Errorf("capture: %w", c.err), err)
}
