package kernel

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	four, six := families[0], families[1]
	for want, change := range map[string]func(*Service){
		"name is empty":       func(s *Service) { s.Name = "" },
		"neither TCP nor UDP": func(s *Service) { s.Protocol = 1 },
		"unknown mode":        func(s *Service) { s.Mode = 3 },
		"negative":            func(s *Service) { s.Timeouts.Idle = -time.Second },
		"no address":          func(s *Service) { s.Listen = nil },
		"that packets can have": func(s *Service) {
			s.Listen[0] = netip.MustParseAddrPort("0.0.0.0:80")
		},
		"both families":               func(s *Service) { s.Listen = append(s.Listen, six.vip) },
		"an address of service":       func(s *Service) { s.Listen = append(s.Listen, s.Listen[0]) },
		"another family":              func(s *Service) { s.Servers[0].Addr = six.server },
		"there twice":                 func(s *Service) { s.Servers = append(s.Servers, s.Servers[0]) },
		"weight must be":              func(s *Service) { s.Servers[0].Weight = MaxWeight + 1 },
		"unknown state":               func(s *Service) { s.Servers[0].State = 4 },
		"have the port of the servic": func(s *Service) { s.Mode = Direct },
	} {
		s := four.service()
		change(&s)
		if err := validate([]Service{s}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v; want one that says %q", err, want)
		}
	}
	if err := validate([]Service{four.service(), six.service()}); err == nil {
		t.Error("two services of one name are not refused")
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{Flows: -1}, {Flows: MaxFlows + 1}, {Ports: [2]uint16{2, 1}}, {Ports: [2]uint16{0, 1}}} {
		if p, err := Open(o); err == nil {
			p.Close()
			t.Errorf("%+v is not refused", o)
		}
	}
}

// TestSetOften changes services over and over; nothing is left of them.
func TestSetOften(t *testing.T) {
	t.Parallel()
	f := families[0]
	r := newRig(t, Options{}, f.service())
	r.connect(f.client, f.vip, f.server)
	for i := range 50 {
		s := f.service()
		if i%2 == 0 {
			s.Name = "other"
			s.Listen[0] = netip.AddrPortFrom(f.vip.Addr(), uint16(1000+i))
		}
		if err := r.path.Set([]Service{s}); err != nil {
			t.Fatal(err)
		}
		r.path.sweepOnce(tick(), 0)
		if got := r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 101, ack: 501}); got.to != f.server {
			t.Fatalf("data goes to %s", got.to)
		}
	}
	if n := len(r.path.registry.byID); n > 2 {
		t.Errorf("%d services are left", n)
	}
}

// TestSetAfterOneThatFailed replaces more servers than there is room for beside those
// that go: it is refused, leaves nothing behind, and can be done once they are gone.
func TestSetAfterOneThatFailed(t *testing.T) {
	t.Parallel()
	f := families[0]
	r := newRig(t, Options{})
	many := func(name string, addr netip.Addr) Service {
		s := f.service()
		s.Name, s.Servers = name, nil
		for i := range maxServers/2 + 1000 {
			s.Servers = append(s.Servers, Server{Addr: netip.AddrPortFrom(addr, uint16(1000+i))})
		}
		return s
	}
	if err := r.path.Set([]Service{many("one", f.server.Addr())}); err != nil {
		t.Fatal(err)
	}
	two := []Service{many("two", f.second.Addr())}
	if err := r.path.Set(two); err == nil {
		t.Fatal("more servers than fit are taken")
	}
	r.path.sweepOnce(tick(), 0)
	r.path.sweepOnce(tick(), 0)
	if err := r.path.Set(two); err != nil {
		t.Fatalf("with those before gone: %v", err)
	}
	if got := r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: syn}); got.to.Addr() != f.second.Addr() {
		t.Errorf("a connection goes to %s", got.to)
	}
	if err := r.path.Set(nil); err != nil {
		t.Fatal(err)
	}
	r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: rst})
	r.path.sweepOnce(tick()+ticks(linger)+2, 0)
	r.path.sweepOnce(tick(), 0)
	if len(r.path.registry.servers) != 0 || len(r.path.registry.byID) != 0 {
		t.Errorf("%d servers and %d services are left", len(r.path.registry.servers), len(r.path.registry.byID))
	}
}
