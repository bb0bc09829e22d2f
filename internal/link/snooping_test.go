package link

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// snoopingSwitch makes a bridge that sends groups of IPv6 only where they were
// asked for, with the ports of v0, v1 and v2, whose addresses are fe80::1 to 3.
func snoopingSwitch(t *testing.T) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "switch"
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	bridge, err := netlink.LinkByName("switch")
	must(t, err)
	// The kernel takes the interval into account when the switch becomes a querier.
	setBridge(t, bridge, nl.IFLA_BR_MCAST_QUERY_RESPONSE_INTVL, nl.Uint64Attr(1)) // hundredths of a second
	setBridge(t, bridge, nl.IFLA_BR_MCAST_QUERIER, nl.Uint8Attr(1))
	must(t, netlink.LinkSetUp(bridge))
	for i := range 3 {
		name, port := fmt.Sprintf("v%d", i), fmt.Sprintf("port%d", i)
		must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: port}))
		p, err := netlink.LinkByName(port)
		must(t, err)
		must(t, netlink.LinkSetMaster(p, bridge))
		must(t, netlink.LinkSetUp(p))
		l, err := netlink.LinkByName(name)
		must(t, err)
		must(t, netlink.LinkSetUp(l))
		a, err := netlink.ParseAddr(fmt.Sprintf("fe80::%d/64", i+1))
		must(t, err)
		a.Flags = unix.IFA_F_NODAD
		must(t, netlink.AddrAdd(l, a))
	}
}

// setBridge changes one setting of a bridge.
func setBridge(t *testing.T, bridge netlink.Link, attribute int, value []byte) {
	t.Helper()
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(bridge.Attrs().Index)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(attribute, value)
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	must(t, err)
}

// A switch that listens to MLD delivers adverts, for it was told that they are
// wanted, and keeps them from those who have not asked.
func TestSnoopingSwitchDelivers(t *testing.T) {
	privateNamespace(t)
	snoopingSwitch(t)
	a, b := listen(t, "v0", "fe80::1"), listen(t, "v1", "fe80::2")
	// The third one hears without having joined.
	c := listen(t, "v2", "fe80::3")
	must(t, unix.Close(c.helper))
	var err error
	c.helper, err = unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)

	heard := func(on *Adverts, within time.Duration) bool {
		must(t, on.conn.SetReadDeadline(time.Now().Add(within)))
		_, _, _, _, err := on.Receive(make([]byte, 100))
		return err == nil
	}
	const soon = 50 * time.Millisecond
	drain := func() {
		for heard(c, soon) {
		}
	}
	// Until the switch is a querier it sends everything everywhere.
	eventually(t, 20*time.Second, "the switch keeps the group from the third port", func() bool {
		drain()
		must(t, a.Send([]byte("an advert"), netip.MustParseAddr("ff02::12")))
		if !heard(b, 20*time.Second) {
			t.Fatal("the switch does not deliver to a member")
		}
		return !heard(c, soon)
	})
}
