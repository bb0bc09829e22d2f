package appliance

import (
	"strings"
	"testing"

	"appliance/internal/config"
)

func TestNotes(t *testing.T) {
	file, err := config.Parse("f.toml", []byte(`
[node.lb01]
address  = "192.0.2.11"
priority = 100
[node.lb02]
address  = "192.0.2.12"
priority = 100
[[vrrp]]
name = "VI_1"
virtual_router_id = 50
addresses = ["192.0.2.3/24"]
[[l7]]
name = "web"
listen = ["192.0.2.3:443", "192.0.2.4:80", "192.0.2.11:80", "[::]:80", "127.0.0.1:80"]
servers = ["192.0.2.21:80"]
`))
	if err != nil {
		t.Fatal(err)
	}
	node, err := file.ForNode("lb02")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"vrrp VI_1: lb02 and lb01 have the same priority 100: ",
		"service web: 192.0.2.3:443 without [l7.tls] speaks HTTP, not HTTPS",
		"service web: 192.0.2.4 is neither a virtual address nor ",
		"node lb02: this machine has no address 192.0.2.12: ",
	}
	got := Notes(node)
	if len(got) != len(want) {
		t.Fatalf("got %d notes:\n%s", len(got), strings.Join(got, "\n"))
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("note %d\n got %s\nwant %s...", i, got[i], want[i])
		}
	}
}
