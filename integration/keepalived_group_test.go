package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"appliance/internal/lab"
)

// newGrouped builds a pair of two-armed nodes, of which lb01 is ours with a group
// and lb02 a keepalived with a vrrp_sync_group. Neither is started.
func newGrouped(t *testing.T) *mixed {
	m := &mixed{dialect: dialects[2], ours: 100, theirs: 90, program: need(t, "keepalived", "keepalived")}
	m.pair = newPair(t, strings.NewReplacer("GROUP", `group = "edge"`, "preempt           = false", "preempt = true",
		"priority = 90", "priority = 90\nkeepalived = true").Replace(groupConfig))
	instance := func(name, ifname string, vrid int, vip string) string {
		return fmt.Sprintf(`vrrp_instance %s {
 state BACKUP
 interface %s
 virtual_router_id %d
 priority 90
 version 3
 advert_int 0.2
 virtual_ipaddress {
 %s
 }
}
`, name, ifname, vrid, vip)
	}
	text := "global_defs {\n router_id lb02\n}\nvrrp_sync_group edge {\n group {\n VI_1\n VI_2\n }\n}\n" +
		instance("VI_1", lab.LAN, 50, "192.168.15.3/24") + instance("VI_2", lab.SRV, 51, "172.16.1.3/24")
	if err := m.LB02.WriteFile(keepalivedConfig, []byte(text)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of keepalived:\n%s", m.keepalivedLog())
		}
	})
	return m
}

// A group of ours and a vrrp_sync_group of keepalived: both addresses are on one
// node, whatever moves them.
func TestGroupWithKeepalived(t *testing.T) {
	t.Parallel()
	m := newGrouped(t)
	m.startKeepalived()
	m.waitBoth(m.LB02, "keepalived is alone")
	m.startOurs()
	m.waitBoth(m.LB01, "ours preempts")

	began := time.Now()
	if err := m.Cut(m.LB01.Host, lab.SRV, lab.Unplugged); err != nil {
		t.Fatal(err)
	}
	m.waitBoth(m.LB02, "ours lost the carrier of one arm")
	if e, ok := m.Capture.First(lab.Advert, m.LB02.Name, began); ok {
		t.Logf("keepalived had the LAN %v after that", e.Time.Sub(began).Round(time.Millisecond))
	}
	if err := m.Heal(m.LB01.Host, lab.SRV); err != nil {
		t.Fatal(err)
	}
	m.waitBoth(m.LB01, "the carrier is back")
	m.terminateOurs()
	m.waitBoth(m.LB02, "SIGTERM of ours")
	m.startOurs()
	m.waitBoth(m.LB01, "ours is back")
	m.terminateKeepalived()
	m.waitAdverts(m.LB01, 5)
	if !m.hasBoth(m.LB01) {
		t.Errorf("the address is on %v", m.holders(m.VIP))
	}
}
