package integration

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"appliance/internal/lab"
)

// A reload that fails after the file was found good, for an address that
// another program has, changes nothing of what the file says.
func TestReloadAddressTaken(t *testing.T) {
	t.Parallel()
	p := newPair(t, patientConfig(t))
	p.start()
	load := p.load(100, 80, 8080)
	taken, err := p.LB01.Listen(netip.MustParseAddrPort("0.0.0.0:9091"))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	before, from := p.status(p.LB01), time.Now()

	// Everything changes in this file, and one address of it is not to be had.
	text := patientConfig(t,
		"priority = 100 ", "priority = 150 ",
		`addresses         = ["192.168.15.3/24"]`, `addresses         = ["192.168.15.3/24", "192.168.15.4/24"]`,
		`           { name = "web2", address = "172.16.1.52:80" },`+"\n", "",
		`{ name = "web1", address = "172.16.1.51:80" }`, `{ name = "web1", address = "172.16.1.51:80", weight = 9 }`,
		`listen = ["192.168.15.3:8080"]`, `listen = ["192.168.15.3:8081"]`,
		`listen = ["192.168.15.3:3306"]`, `listen = ["192.168.15.3:3306", "192.168.15.3:9091"]`,
	) + reloadExtra
	if err := p.LB01.WriteConfig(text); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		code, output := p.applianctl(p.LB01, "reload")
		if code != 1 || !strings.Contains(output, "192.168.15.3:9091") || !strings.Contains(output, "in use") {
			t.Fatalf("reload: exit code %d, want 1 and the address that is taken: %s", code, output)
		}
	}
	p.waitRequests(load, 50)
	p.waitAdverts(p.LB01, 3)
	now := p.status(p.LB01)
	reloadSame(t, before, now)
	if !strings.Contains(now.Config.Error, "192.168.15.3:9091") || now.Config.SHA256 != before.Config.SHA256 {
		t.Errorf("config.error is %q, sha256 %s", now.Config.Error, now.Config.SHA256)
	}
	if v := now.VRRP[0]; v.BasePriority != 100 || len(v.Addresses) != 1 {
		t.Errorf("the virtual router has priority %d and the addresses %v", v.BasePriority, v.Addresses)
	}
	if last, ok := p.Capture.Last(lab.Advert, "lb01", time.Now()); !ok || last.Priority != 100 {
		t.Errorf("lb01 says priority %d", last.Priority)
	}
	if has, err := p.LB01.Network.HasAddress(netip.MustParseAddr("192.168.15.4")); err != nil || has {
		t.Errorf("lb01 has the address of the refused file: %v, %v", has, err)
	}
	if s := now.Pools[1].Servers; len(s) != 3 || s[0].Weight != 1 {
		t.Errorf("the pool has %+v", s)
	}
	if len(now.Pools) != 2 || len(now.Services) != 3 {
		t.Errorf("there are %d pools and %d services, want 2 and 3", len(now.Pools), len(now.Services))
	}
	for _, port := range []uint16{8081, 9090} {
		if c, err := p.Client.Dial(p.within(5*time.Second), netip.AddrPortFrom(p.VIP, port)); err == nil {
			c.Close()
			t.Errorf("port %d of the refused file accepts connections", port)
		}
	}
	reloadNoFailures(t, load, from)
	if r := load.Report(from, time.Now()); r.Servers["web2"] == 0 {
		t.Errorf("web2 was taken out by the refused file: %v", r.Servers)
	}
	load.Stop()

	// When the address is free the same file is taken.
	taken.Close()
	p.reload(p.LB01, text)
	if now := p.status(p.LB01); now.Config.Error != "" || now.VRRP[0].BasePriority != 150 || len(now.Pools) != 3 {
		t.Errorf("after the reload: error %q, priority %d, %d pools", now.Config.Error, now.VRRP[0].BasePriority, len(now.Pools))
	}
	p.dialEcho(9091)
}
