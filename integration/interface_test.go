package integration

import (
	"testing"
	"time"

	"appliance/internal/lab"
)

// interfaceTrouble bounds how long nobody may answer for the address when the
// active node's interface goes: it is back by then, or handed over.
const interfaceTrouble = time.Second

// The interface of the active node goes down and up, or is deleted and comes back.
// The address is restored or handed over within a second, never silently absent,
// and in the end one node has it and says so.
func TestInterfaceTrouble(t *testing.T) {
	t.Parallel()
	p := newPair(t, labConfig(t))
	p.start()
	for _, c := range interfaceTroubles(p) {
		p.interfaceTrouble(c)
	}
}

// With adverts of a second nobody may wait for three of them either, where the
// trouble is over so soon that the node can say goodbye after all.
func TestInterfaceFlapWithSlowAdverts(t *testing.T) {
	t.Parallel()
	for _, i := range []int{0, 2} {
		p := newPair(t, labConfig(t, `advert_interval   = "100ms"`, `advert_interval   = "1s"`))
		c := interfaceTroubles(p)[i]
		t.Run(c.name, func(t *testing.T) {
			p.t = t
			p.start()
			p.interfaceTrouble(c)
		})
	}
}

// interfaceCase is what happens to the interface of lb01.
type interfaceCase struct {
	name    string
	trouble func() error
	heal    func() error // nil: it is over at once
	told    string       // by lb01
}

func interfaceTroubles(p *pair) []interfaceCase {
	network := p.LB01.Network
	return []interfaceCase{
		{"down and up at once", func() error {
			if err := network.SetUp(lab.LAN, false); err != nil {
				return err
			}
			return network.SetUp(lab.LAN, true)
		}, nil, ""},
		{"carrier lost for a moment", func() error {
			if err := p.Cut(p.LB01.Host, lab.LAN, lab.Unplugged); err != nil {
				return err
			}
			return p.Heal(p.LB01.Host, lab.LAN)
		}, nil, ""},
		{"deleted and back at once", func() error {
			if err := p.Remove(p.LB01.Host, lab.LAN); err != nil {
				return err
			}
			return p.Return(p.LB01.Host, lab.LAN)
		}, nil, ""},
		{"down", func() error { return network.SetUp(lab.LAN, false) },
			func() error { return network.SetUp(lab.LAN, true) }, "administratively down"},
		{"deleted", func() error { return p.Remove(p.LB01.Host, lab.LAN) },
			func() error { return p.Return(p.LB01.Host, lab.LAN) }, "does not exist"},
	}
}

// interfaceTrouble lets it happen to lb01, which is active before and after.
func (p *pair) interfaceTrouble(c interfaceCase) {
	t := p.t
	t.Helper()
	begun := time.Now()
	if err := c.trouble(); err != nil {
		t.Fatal(err)
	}
	if c.heal != nil {
		p.waitActive(p.LB02)
	}
	silent := p.unanswered(begun)
	active, err := p.WaitAnyActive(p.within(20 * time.Second))
	if err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	t.Logf("%s: %v unanswered, then %s", c.name, silent.Round(time.Millisecond), active.Name)
	if silent > interfaceTrouble {
		t.Errorf("%s: nobody answered for %v", c.name, silent)
	}
	eventually(t, 10*time.Second, c.name+": "+active.Name+" announces the address", func() bool { return len(p.announcements(active, begun)) > 0 })
	if c.told != "" {
		p.tells(p.LB01, "fault", "interface eth0", c.told)
	}
	if c.heal != nil {
		if err := c.heal(); err != nil {
			t.Fatal(err)
		}
	}
	// lb01 is well again, and takes the address back by hand if it has lost it.
	p.settle()
	if active, err = p.WaitAnyActive(p.within(20 * time.Second)); err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	p.alone(active)
	if active == p.LB02 {
		p.failover(p.LB02)
		p.waitActive(p.LB01)
	}
}
