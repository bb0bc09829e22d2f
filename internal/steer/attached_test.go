package steer

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"
	tcx "github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"appliance/internal/ingress"
	"appliance/internal/link"
)

// attached returns how many programs are at the ingress of an interface: by tcx, and as
// filters.
func attached(t *testing.T, index int) map[ingress.Way]int {
	t.Helper()
	filters, err := link.OurFilters()
	if err != nil {
		t.Fatal(err)
	}
	n := map[ingress.Way]int{ingress.TCX: 0, ingress.Clsact: len(filters)}
	r, err := tcx.QueryPrograms(tcx.QueryOptions{Target: index, Attach: ebpf.AttachTCXIngress})
	switch {
	case err == nil:
		n[ingress.TCX] = len(r.Programs)
	case !errors.Is(err, unix.EINVAL): // before Linux 6.6
		t.Fatal(err)
	}
	return n
}
