package appliance

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"appliance/internal/config"
)

// checkRights refuses to run a node whose process may not do what an election needs:
// it would believe that it can take addresses over, and could not.
func checkRights(node *config.Node) error {
	if len(node.VRRP) == 0 {
		return nil
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("asking for this process's capabilities: %w", err)
	}
	var missing []string
	for _, c := range []struct {
		name string
		bit  int
	}{{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN}, {"CAP_NET_RAW", unix.CAP_NET_RAW}} {
		if data[c.bit/32].Effective&(1<<(c.bit%32)) == 0 {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("virtual addresses and adverts need %s, which this process does not have; run it as root, or by its systemd unit",
			strings.Join(missing, " and "))
	}
	return nil
}
