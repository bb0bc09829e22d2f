package link

import (
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bpfProgram loads a program that leaves every packet to whatever comes next, and
// returns its descriptor and number. It asks the kernel itself: this package has no
// library for that.
func bpfProgram(t *testing.T) (fd int, id uint32) {
	t.Helper()
	fd, id, err := loadPass()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("no BPF: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd, id
}

// seen is what tc(8) would show of an interface.
func seen(t *testing.T, l netlink.Link) (disciplines, filters []string) {
	t.Helper()
	all, err := netlink.QdiscList(l)
	must(t, err)
	for _, q := range all {
		if q.Attrs().Parent == netlink.HANDLE_CLSACT {
			disciplines = append(disciplines, q.Type())
		}
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, handleMinEgress} {
		list, err := netlink.FilterList(l, parent)
		must(t, err)
		for _, f := range list {
			name := f.Type()
			if b, ok := f.(*netlink.BpfFilter); ok {
				name = strings.Replace(b.Name, filterOwner+filterProcess(os.Getpid()), "", 1)
			}
			filters = append(filters, name)
		}
	}
	return disciplines, filters
}

func wantSeen(t *testing.T, what string, l netlink.Link, disciplines, filters string) {
	t.Helper()
	d, f := seen(t, l)
	if strings.Join(d, ",") != disciplines || strings.Join(f, ",") != filters {
		t.Errorf("%s: disciplines %q, filters %q; want %q, %q", what, d, f, disciplines, filters)
	}
}

// foreign adds a filter that somebody else has.
func foreign(t *testing.T, l netlink.Link, parent uint32, preference uint16) {
	t.Helper()
	f := &netlink.U32{ClassId: netlink.MakeHandle(1, 1), FilterAttrs: netlink.FilterAttrs{
		LinkIndex: l.Attrs().Index, Parent: parent, Priority: preference, Protocol: unix.ETH_P_ALL,
	}}
	must(t, netlink.FilterAdd(f))
}

func openFilters(t *testing.T) *Filters {
	t.Helper()
	f, err := OpenFilters()
	must(t, err)
	t.Cleanup(f.Close)
	return f
}

func TestFilterTakesItsDisciplineAway(t *testing.T) {
	privateNamespace(t)
	v0, _ := vethPair(t)
	fd, id := bpfProgram(t)
	f := openFilters(t)
	at := Filter{Interface: v0.Attrs().Index, Program: id}
	must(t, f.Put(at, 7112, "one", fd))
	wantSeen(t, "put", v0, "clsact", "applianctl one clsact")
	if has, err := f.Has(at); !has || err != nil {
		t.Errorf("%v, %v", has, err)
	}
	if has, err := f.Has(Filter{Interface: at.Interface, Program: id + 1}); has || err != nil {
		t.Errorf("another program: %v, %v", has, err)
	}
	must(t, f.Remove(Filter{Interface: at.Interface, Program: id + 1}))
	wantSeen(t, "another program removed", v0, "clsact", "applianctl one clsact")
	must(t, f.Remove(at))
	wantSeen(t, "removed", v0, "", "")
	must(t, f.Remove(at)) // nothing is left to do
	must(t, netlink.LinkDel(v0))
	must(t, f.Remove(at))
	if has, err := f.Has(at); has || err != nil {
		t.Errorf("without the interface: %v, %v", has, err)
	}
	if err := f.Put(at, 7112, "one", fd); err == nil {
		t.Error("no error without the interface")
	}
}

// What others have at an interface stays, whoever came first.
func TestFiltersOfOthersStay(t *testing.T) {
	for name, c := range map[string]struct {
		before, after func(netlink.Link) // what others do before ours is put, and after
		disciplines   string             // what is there in the end
		filters       string
	}{
		"their clsact": {before: func(l netlink.Link) { must(t, netlink.QdiscAdd(clsact(l.Attrs().Index))) }, disciplines: "clsact"},
		"their ingress": {before: func(l netlink.Link) {
			must(t, netlink.QdiscAdd(&netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS}}))
		}, disciplines: "ingress"},
		"their filter of the same preference and another kind": {before: func(l netlink.Link) {
			must(t, netlink.QdiscAdd(clsact(l.Attrs().Index)))
			foreign(t, l, netlink.HANDLE_MIN_INGRESS, 7112)
		}, disciplines: "clsact", filters: "u32"},
		"their filter at the ingress of ours": {after: func(l netlink.Link) { foreign(t, l, netlink.HANDLE_MIN_INGRESS, 1) }, disciplines: "clsact", filters: "u32"},
		"their filter at the egress of ours":  {after: func(l netlink.Link) { foreign(t, l, handleMinEgress, 1) }, disciplines: "clsact", filters: "u32"},
	} {
		t.Run(name, func(t *testing.T) {
			privateNamespace(t)
			v0, _ := vethPair(t)
			fd, id := bpfProgram(t)
			if c.before != nil {
				c.before(v0)
			}
			f := openFilters(t)
			at := Filter{Interface: v0.Attrs().Index, Program: id}
			err := f.Put(at, 7112, "one", fd)
			if clash := strings.Contains(name, "same preference"); clash != (err != nil) {
				t.Fatal(err)
			}
			if c.after != nil {
				c.after(v0)
			}
			must(t, f.Remove(at))
			wantSeen(t, "removed", v0, c.disciplines, c.filters)
		})
	}
}

// Of two filters of ours the last one takes the discipline away, whichever that is.
func TestTwoFilters(t *testing.T) {
	privateNamespace(t)
	v0, v1 := vethPair(t)
	fd1, id1 := bpfProgram(t)
	fd2, id2 := bpfProgram(t)
	f := openFilters(t)
	first, second := Filter{v0.Attrs().Index, id1}, Filter{v0.Attrs().Index, id2}
	must(t, f.Put(second, 7113, "two", fd2))
	must(t, f.Put(first, 7112, "one", fd1))
	wantSeen(t, "both", v0, "clsact", "applianctl one clsact,applianctl two clsact")
	must(t, f.Remove(second))
	wantSeen(t, "one removed", v0, "clsact", "applianctl one clsact")
	must(t, f.Put(second, 7112, "two", fd2)) // of the same preference the latest comes first
	wantSeen(t, "both, of one preference", v0, "clsact", "applianctl two clsact,applianctl one clsact")

	// Another process finds them, whoever put them.
	foreign(t, v1, addClsact(t, v1), 3)
	must(t, f.Put(Filter{v1.Attrs().Index, id1}, 7112, "one", fd1))
	all, err := OurFilters()
	must(t, err)
	if len(all) != 3 || !slices.Contains(all, first) || !slices.Contains(all, second) {
		t.Fatal(all)
	}
	must(t, RemoveFilters(all))
	wantSeen(t, "all removed", v0, "", "")
	wantSeen(t, "all removed", v1, "clsact", "u32")
	must(t, RemoveFilters(all))
	if all, err := OurFilters(); len(all) > 0 || err != nil {
		t.Error(all, err)
	}
}

// Whoever puts and removes filters at the same time, each is there until it is removed,
// and with the last one goes the discipline.
func TestFiltersAtTheSameTime(t *testing.T) {
	privateNamespace(t)
	v0, _ := vethPair(t)
	const parties, rounds = 4, 50
	var all sync.WaitGroup
	for range parties {
		fd, id := bpfProgram(t)
		f, at := openFilters(t), Filter{v0.Attrs().Index, id}
		all.Go(func() {
			for range rounds {
				if err := f.Put(at, 7113, "one", fd); err != nil {
					t.Error(err)
				}
				if has, err := f.Has(at); !has || err != nil {
					t.Error("it is not there", err)
				}
				if err := f.Remove(at); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	wantSeen(t, "in the end", v0, "", "")
}

// What a living process has put stays at the start of another one; what a dead one has
// left goes.
func TestFiltersThatAreLeft(t *testing.T) {
	privateNamespace(t)
	v0, _ := vethPair(t)
	fd, id := bpfProgram(t)
	must(t, openFilters(t).Put(Filter{v0.Attrs().Index, id}, 7112, "one", fd))
	other := exec.Command("sleep", "1000")
	must(t, other.Start())
	ended := false
	defer func() {
		if !ended {
			other.Process.Kill()
			other.Wait()
		}
	}()
	put := func(owner string) uint32 {
		fd, id := bpfProgram(t)
		must(t, netlink.FilterAdd(&netlink.BpfFilter{Fd: fd, Name: filterName + "two" + owner + filterMade, DirectAction: true, FilterAttrs: netlink.FilterAttrs{
			LinkIndex: v0.Attrs().Index, Parent: netlink.HANDLE_MIN_INGRESS, Priority: 7113, Protocol: unix.ETH_P_ALL,
		}}))
		return id
	}
	theirs := put(filterOwner + filterProcess(other.Process.Pid))
	dead := []uint32{
		put(filterOwner + strconv.Itoa(other.Process.Pid) + " of 1"), // had the same number
		put(filterOwner),
		put(""),
	}
	left := func(what string, want ...uint32) {
		t.Helper()
		all, err := LeftFilters()
		must(t, err)
		var got []uint32
		for _, f := range all {
			got = append(got, f.Program)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: left are %v; want %v", what, got, want)
		}
	}
	left("it lives", dead...)
	must(t, other.Process.Kill())
	eventually(t, 10*time.Second, "it is dead", func() bool { return filterProcess(other.Process.Pid) == "" })
	left("nobody has waited for it", append(dead, theirs)...)
	_ = other.Wait() // killed, as it should be
	ended = true
	left("it is gone", append(dead, theirs)...)
}

// addClsact gives an interface somebody else's discipline, and returns its ingress.
func addClsact(t *testing.T, l netlink.Link) uint32 {
	t.Helper()
	must(t, netlink.QdiscAdd(clsact(l.Attrs().Index)))
	return netlink.HANDLE_MIN_INGRESS
}
