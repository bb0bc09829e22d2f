package link

import (
	"maps"
	"slices"
	"testing"
)

func TestRawSockets(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
    1: 00000000:0001 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 11 2 0000000000000000 0
  112: 00000000:0070 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 0
  112: 0B0FA8C0:0070 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 0
`
	inodes := make(map[string]bool)
	rawSockets(table, protocolVRRP, inodes)
	if got := slices.Sorted(maps.Keys(inodes)); !slices.Equal(got, []string{"4711", "4712"}) {
		t.Errorf("got %v", got)
	}
}
