package integration

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"appliance/internal/lab"
	"appliance/internal/link"
)

// reloadAsk asks the LAN from the client who has an address, and reports
// whether that is answered soon.
func (p *pair) reloadAsk(address netip.Addr) bool {
	p.t.Helper()
	var tap *link.Tap
	err := p.Client.Do(func() (err error) {
		tap, err = link.OpenTap()
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	stop := time.AfterFunc(500*time.Millisecond, func() { tap.Close() })
	defer func() {
		if stop.Stop() {
			tap.Close()
		}
	}()
	port, err := p.Client.Network.Index(lab.LAN)
	if err != nil {
		p.t.Fatal(err)
	}
	mac := net.HardwareAddr{0x02, 0, 192, 168, 15, 100}
	frame := slices.Concat([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac, []byte{0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1},
		mac, []byte{0, 0, 0, 0}, make([]byte, 6), address.AsSlice())
	if err := tap.Send(port, frame); err != nil {
		p.t.Fatal(err)
	}
	buf := make([]byte, 2048)
	for {
		f, err := tap.Read(buf)
		if err != nil {
			return false // nobody in time
		}
		if len(f.Data) >= 42 && binary.BigEndian.Uint16(f.Data[12:]) == 0x0806 && f.Data[21] == 2 && slices.Equal(f.Data[28:32], address.AsSlice()) {
			return true
		}
	}
}

// Priority, preemption and the list of addresses of a virtual router change
// while it stays what it is.
func TestReloadVirtualRouter(t *testing.T) {
	t.Parallel()
	p := newPair(t, patientConfig(t))
	p.start()
	load := p.load(100, 80)
	before, from := p.status(p.LB01), time.Now()
	second := netip.MustParseAddr("192.168.15.4")
	if p.reloadAsk(second) {
		t.Fatalf("somebody answers for %s already", second)
	}
	with := []string{
		`addresses         = ["192.168.15.3/24"]`, `addresses         = ["192.168.15.3/24", "192.168.15.4/24"]`,
		`listen = ["192.168.15.3:80"]`, `listen = ["192.168.15.3:80", "192.168.15.4:80"]`,
	}
	p.reload(p.LB02, patientConfig(t, with...))
	p.reload(p.LB01, patientConfig(t, append(with, "priority = 100 ", "priority = 120 ")...))
	eventually(t, 10*time.Second, "lb01 announces the added address", func() bool {
		return slices.ContainsFunc(p.Capture.Events(), func(e lab.Event) bool {
			return e.Kind == lab.Gratuitous && e.Host == "lb01" && e.Address == second
		})
	})
	eventually(t, 10*time.Second, "somebody answers for "+second.String()+", which was added", func() bool { return p.reloadAsk(second) })
	browser := p.newBrowser(nil)
	browser.get("http://192.168.15.4/")
	eventually(t, 10*time.Second, "lb01 says its new priority", func() bool {
		last, ok := p.Capture.Last(lab.Advert, "lb01", time.Now())
		return ok && last.Priority == 120
	})
	s := p.status(p.LB01)
	reloadSame(t, before, s)
	if v := s.VRRP[0]; v.BasePriority != 120 || v.Priority != 120 || !slices.Equal(v.Addresses, []string{"192.168.15.3/24", "192.168.15.4/24"}) {
		t.Errorf("status shows priority %d of %d and the addresses %v", v.Priority, v.BasePriority, v.Addresses)
	}

	// It goes again; the first address never does.
	p.reload(p.LB02, patientConfig(t))
	p.reload(p.LB01, patientConfig(t))
	// At once, and not when its lease ends, which is 1.5 s later or more.
	eventually(t, time.Second, "no node has the removed address", func() bool { return len(p.holders(second)) == 0 })
	if p.reloadAsk(second) {
		t.Errorf("somebody answers for %s, which was removed", second)
	}
	reloadSame(t, before, p.status(p.LB01))
	p.waitRequests(load, 25)
	reloadNoFailures(t, load, from)
	// Of two questions the later one is not answered first.
	to := time.Now()
	p.waitActive(p.LB01)
	for _, silence := range p.Monitor.Silences() {
		if silence.Probes > 1 && silence.From.After(from) && silence.To.Before(to) {
			t.Errorf("for %v nobody answered for %s", silence.Length(), p.VIP)
		}
	}

	// A larger priority alone moves nothing: preempt is false. With preempt it
	// does, which shows that the reload put both in force.
	larger := []string{"priority = 90", "priority = 110"}
	p.reload(p.LB02, patientConfig(t, larger...))
	p.waitAdverts(p.LB01, 10)
	reloadSame(t, before, p.status(p.LB01))
	p.reload(p.LB02, patientConfig(t, append(larger, preemptOff, preemptOn)...))
	p.waitActive(p.LB02)
}
