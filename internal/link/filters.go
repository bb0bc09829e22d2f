package link

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Filters are the BPF programs of this process at the ingress of interfaces, where the
// kernel has no tcx (before Linux 6.6): filters of a clsact queueing discipline, in
// direct action. What others have there stays as it is. A discipline that is missing is
// made, and the last filter of ours takes it away again, unless somebody else uses it by
// then. Filters stay until they are removed, whatever becomes of the process. Whose they
// are, and that the discipline is ours, is part of their names, so that anybody can remove
// them as we would.
//
// Its network is that of the thread that opened it. The caller closes it.
type Filters struct {
	handle  *netlink.Handle
	network *os.File // its namespace, see alone
}

// Filter tells which program it is at the ingress of which interface. Another process
// can remove it by that.
type Filter struct {
	Interface int    // its index
	Program   uint32 // its number
}

const (
	// filterName begins the names of all filters of ours.
	filterName = "applianctl "
	// filterOwner comes before the process that a filter is of, see filterProcess.
	filterOwner = ", process "
	// filterMade ends the names of those at a discipline of ours.
	filterMade = " clsact"
	// handleMinEgress is TC_H_MIN_EGRESS of linux/pkt_sched.h, at clsact.
	handleMinEgress = 0xFFFFFFF3
)

// OpenFilters returns the filters of the calling thread's network namespace.
func OpenFilters() (*Filters, error) {
	network, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open the network namespace: %w", err)
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open netlink: %w", err), network.Close())
	}
	return &Filters{handle: h, network: network}, nil
}

// Close releases what is open. The filters stay.
func (f *Filters) Close() {
	f.handle.Close()
	f.network.Close()
}

// aloneTime bounds how long is waited for others, alonePace is how often.
const (
	aloneTime = 500 * time.Millisecond
	alonePace = time.Millisecond
)

// alone waits until nobody else of ours, in this process or another, puts or removes
// filters in this network namespace; done lets them. Else one might remove the
// discipline that another one has just found. The lock is the namespace's own file,
// which goes with a process; but anybody can open that, so the wait has an end.
func (f *Filters) alone() (done func()) {
	fd := int(f.network.Fd())
	for begun := time.Now(); unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil; time.Sleep(alonePace) {
		if time.Since(begun) > aloneTime {
			return func() {}
		}
	}
	return func() { _ = unix.Flock(fd, unix.LOCK_UN) } // cannot fail
}

// Put adds a filter, of which program is a descriptor and name says what it does.
// Filters of smaller preferences see packets first, and of equal ones the latest. An
// error means that nothing has changed.
func (f *Filters) Put(at Filter, preference uint16, name string, program int) (err error) {
	defer f.alone()()
	made, err := f.discipline(at.Interface)
	if err != nil {
		return err
	}
	if made {
		defer func() {
			if err != nil {
				err = errors.Join(err, f.removeDiscipline(at.Interface))
			}
		}()
	}
	all, err := f.list(at.Interface, netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		return err
	}
	for _, other := range all {
		b := asOurs(other)
		made = made || b != nil && strings.HasSuffix(b.Name, filterMade)
	}
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: at.Interface, Parent: netlink.HANDLE_MIN_INGRESS, Priority: preference, Protocol: unix.ETH_P_ALL,
		},
		Fd: program, Name: filterName + name + filterOwner + filterProcess(os.Getpid()), DirectAction: true,
	}
	if made {
		filter.Name += filterMade
	}
	switch err := f.handle.FilterAdd(filter); {
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("clsact: filters of another kind may have preference %d: %w", preference, err)
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("clsact: the kernel has no BPF filters (CONFIG_NET_CLS_BPF): %w", err)
	case err != nil:
		return fmt.Errorf("clsact: add a filter: %w", err)
	}
	return nil
}

// discipline makes sure that an interface has one, and reports whether it has made it.
func (f *Filters) discipline(index int) (made bool, err error) {
	switch err := f.handle.QdiscAdd(clsact(index)); {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EEXIST): // that of kind ingress, the older one, does as well
		return false, nil
	case errors.Is(err, unix.ENOENT):
		return false, fmt.Errorf("clsact: the kernel does not have it (CONFIG_NET_SCH_INGRESS): %w", err)
	default:
		return false, fmt.Errorf("clsact: add it: %w", err)
	}
}

// Has reports whether a filter is there.
func (f *Filters) Has(at Filter) (bool, error) {
	b, err := f.find(at)
	return b != nil, err
}

// Remove removes a filter, and the discipline, if it is ours and nobody uses it any
// more. It is no error if the filter is not there.
func (f *Filters) Remove(at Filter) error {
	defer f.alone()()
	b, err := f.find(at)
	if err != nil || b == nil {
		return err
	}
	return f.remove(b)
}

// OurFilters returns all filters of ours in the namespace of the calling thread,
// whatever process they are of.
func OurFilters() ([]Filter, error) {
	return ourFilters(func(string) bool { return true })
}

// LeftFilters returns those whose processes are dead, and could not remove them.
func LeftFilters() ([]Filter, error) {
	return ourFilters(func(name string) bool { return !livingFilter(name) })
}

// ourFilters returns those whose names are wanted.
func ourFilters(wanted func(name string) bool) (ours []Filter, err error) {
	f, err := OpenFilters()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	links, err := listLinks(f.handle)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var errs []error
	for _, l := range links {
		all, err := f.list(l.Attrs().Index, netlink.HANDLE_MIN_INGRESS)
		errs = append(errs, err)
		for _, one := range all {
			if b := asOurs(one); b != nil && wanted(b.Name) {
				ours = append(ours, Filter{Interface: l.Attrs().Index, Program: uint32(b.Id)})
			}
		}
	}
	return ours, errors.Join(errs...)
}

// livingFilter reports whether the process lives that a filter of that name is of.
func livingFilter(name string) bool {
	_, owner, _ := strings.Cut(strings.TrimSuffix(name, filterMade), filterOwner)
	number, _, _ := strings.Cut(owner, " ")
	pid, err := strconv.Atoi(number)
	return err == nil && filterProcess(pid) == owner
}

// filterProcess returns what no other process has had since the machine was started: its
// number, and when it began, in ticks. It is empty if there is no such process.
func filterProcess(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The second field, in parentheses, may have any byte. The third is the state, the
	// 22nd the start (proc_pid_stat(5)).
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const state, start = 0, 22 - 3
	if len(fields) <= start || fields[state] == "Z" {
		return ""
	}
	return fmt.Sprintf("%d of %s", pid, fields[start])
}

// RemoveFilters removes filters in the namespace of the calling thread as Remove does.
func RemoveFilters(filters []Filter) error {
	if len(filters) == 0 {
		return nil
	}
	f, err := OpenFilters()
	if err != nil {
		return err
	}
	defer f.Close()
	var errs []error
	for _, one := range filters {
		errs = append(errs, f.Remove(one))
	}
	return errors.Join(errs...)
}

// remove removes b, one of ours.
func (f *Filters) remove(b *netlink.BpfFilter) error {
	b.Fd = -1 // what is meant is in its numbers
	if err := f.handle.FilterDel(b); err != nil && !absentFilter(err) {
		return fmt.Errorf("clsact: remove a filter: %w", err)
	}
	if strings.HasSuffix(b.Name, filterMade) {
		return f.removeDiscipline(b.LinkIndex)
	}
	return nil
}

// removeDiscipline removes that of an interface, unless there is a filter.
func (f *Filters) removeDiscipline(index int) error {
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, handleMinEgress} {
		if left, err := f.list(index, parent); err != nil || len(left) > 0 {
			return err
		}
	}
	if err := f.handle.QdiscDel(clsact(index)); err != nil && !absentFilter(err) {
		return fmt.Errorf("clsact: remove it: %w", err)
	}
	return nil
}

// find returns a filter of ours as the kernel has it, nil if it is not there.
func (f *Filters) find(at Filter) (*netlink.BpfFilter, error) {
	all, err := f.list(at.Interface, netlink.HANDLE_MIN_INGRESS)
	for _, one := range all {
		if b := asOurs(one); b != nil && uint32(b.Id) == at.Program {
			return b, err
		}
	}
	return nil, err
}

// list returns the filters at one side of an interface, none where there is no
// discipline for them.
func (f *Filters) list(index int, parent uint32) ([]netlink.Filter, error) {
	all, err := f.handle.FilterList(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}, parent)
	if err != nil && !absentFilter(err) {
		return nil, fmt.Errorf("clsact: list the filters: %w", err)
	}
	return all, nil
}

// absentFilter says whether an error means that there is no such interface,
// discipline or filter.
func absentFilter(err error) bool {
	return IsAbsent(err) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL)
}

// asOurs returns a filter of ours, nil if it is another one.
func asOurs(f netlink.Filter) *netlink.BpfFilter {
	b, ok := f.(*netlink.BpfFilter)
	if !ok || !strings.HasPrefix(b.Name, filterName) {
		return nil
	}
	return b
}

// clsact is the discipline of an interface.
func clsact(index int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
}
