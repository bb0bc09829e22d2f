package link

import (
	"net/netip"
	"testing"
)

func TestRouteTo(t *testing.T) {
	privateNamespace(t)
	v0, v1 := vethPair(t)
	if i := RouteTo(netip.MustParseAddr("10.9.0.77")); i != v0.Attrs().Index && i != v1.Attrs().Index {
		t.Errorf("a neighbour is reached by interface %d", i)
	}
	for _, address := range []string{"10.9.0.1", "127.0.0.1", "192.0.2.1", "2001:db8::1"} {
		if i := RouteTo(netip.MustParseAddr(address)); i != 0 {
			t.Errorf("%s, which is its own or nowhere, is reached by interface %d", address, i)
		}
	}
	if Index("v0") != v0.Attrs().Index || Index("v9") != 0 {
		t.Errorf("v0 is %d, v9 is %d", Index("v0"), Index("v9"))
	}
}
