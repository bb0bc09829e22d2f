package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"appliance/internal/link"
)

// Holding is what an appliance holds as the active router of one virtual
// router, or still holds after another node has become that.
type Holding struct {
	Interface string
	// Source is the node's own address, that the farewell is sent from.
	Source netip.Addr
	// Addresses are the virtual addresses on Interface.
	Addresses []netip.Prefix
	// MAC is the hardware address that the farewells leave from; nil is the
	// interface's own.
	MAC net.HardwareAddr `json:",omitempty"`
	// Undo is the path of the link.Record of what else is to be undone; empty if
	// there is nothing. With it the addresses go.
	Undo string `json:",omitempty"`
	// Unicast says that the farewells go to single nodes, and so from Source and
	// no other address.
	Unicast bool
	// Farewells tell the other nodes that this one is not active any more:
	// adverts of priority 0. Where it is not there are none.
	Farewells []Farewell
}

// Farewell is a message and where it goes.
type Farewell struct {
	To      netip.Addr
	Message []byte
}

// message is one line on the socket: what is held under a name from now on. A
// Holding without addresses is held no more.
type message struct {
	Name    string
	Holding Holding
	// Keep says, instead of both, how many descriptors came with the line, which
	// are to be kept open instead of those before.
	Keep *int `json:",omitempty"`
	// Filters says, instead of all that, which filters there are under Name from now
	// on.
	Filters *[]link.Filter `json:",omitempty"`
	// Goodbye says that the appliance ends in order: nothing is left to do.
	Goodbye bool `json:",omitempty"`
}

// Broom does away with a Holding.
type Broom interface {
	// Shut makes sure that nothing new begins by the files that are kept.
	Shut(kept []*os.File) error
	// Release takes the addresses off the interface.
	Release(Holding) error
	// Farewell sends the farewells, if there are any. It may be called for several
	// at a time.
	Farewell(Holding) error
	// Remove removes filters that a dead appliance has left.
	Remove([]link.Filter) error
}

// Watch reads from the appliance until it ends or dies, and in the latter case
// sweeps up what it held. It returns when nothing is left to do; the error joins
// what could not be swept.
func Watch(pipe io.Reader, broom Broom) error {
	held, filters := make(map[string]Holding), make(map[string][]link.Filter)
	files, _ := pipe.(*Files)
	lines := json.NewDecoder(pipe)
	for {
		var m message
		err := lines.Decode(&m)
		switch {
		case err != nil:
			// The pipe broke, in the middle of a line perhaps.
			return sweep(held, files.remains(), slices.Concat(slices.Collect(maps.Values(filters))...), broom)
		case m.Goodbye:
			return nil
		case m.Keep != nil:
			files.keep(*m.Keep)
		case m.Filters != nil:
			filters[m.Name] = *m.Filters
		case len(m.Holding.Addresses) == 0:
			delete(held, m.Name)
		default:
			held[m.Name] = m.Holding
		}
	}
}

// overlap is for how long what is kept outlives the addresses: neighbours that have
// not heard yet where these went, and packets that are under way, still come here.
const overlap = time.Second

// sweep releases all addresses first: from then on at most one node answers for
// them. Nobody waits for another one's farewell, whose socket takes its time to
// close.
func sweep(held map[string]Holding, kept []*os.File, filters []link.Filter, broom Broom) error {
	names := slices.Sorted(maps.Keys(held))
	failed := make([]error, 2*len(names), 2*len(names)+2)
	note := func(i int, name string, err error) {
		if err != nil {
			failed[i] = fmt.Errorf("guard: %s: %w", name, err)
		}
	}
	if err := broom.Shut(kept); err != nil {
		failed = append(failed, fmt.Errorf("guard: %w", err))
	}
	for i, name := range names {
		note(i, name, broom.Release(held[name]))
	}
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() { note(len(names)+i, name, broom.Farewell(held[name])) })
	}
	all.Wait()
	if len(kept) > 0 {
		time.Sleep(overlap)
	}
	if len(filters) > 0 {
		if err := broom.Remove(filters); err != nil {
			failed = append(failed, fmt.Errorf("guard: %w", err))
		}
	}
	return errors.Join(failed...)
}
