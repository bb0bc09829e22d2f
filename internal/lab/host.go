package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"appliance/internal/link"
)

// ErrHostClosed is the error of what is asked of a Host after Close.
var ErrHostClosed = errors.New("the host is closed")

// Host is one machine of the laboratory: a host name, a network, mounts and a
// /run of its own. It lasts until Close, which also ends what runs on it.
//
// It is a thread that left the namespaces of the others. Linux keeps those of
// a process per thread, so everything the thread starts or opens belongs to the
// host: a process, a socket, a file below /run. What has been opened may then be
// used from anywhere.
type Host struct {
	// Name is the host's name, the one that hostname(1) prints there.
	Name string
	// Network builds the host's interfaces and addresses.
	Network *link.Topology

	tid       int
	namespace *os.File // of its network, for cables
	calls     chan func()
	stop      chan struct{} // closed by Close
	ended     chan struct{} // closed when the thread is gone

	mu        sync.Mutex
	processes map[*Process]struct{}
}

// NewHost starts a host. It has a loopback interface and no others, an empty
// /run/appliance, and `applianctl` in its PATH, which is the program at binary.
// Without binary it has none. It works in a sandbox only.
func NewHost(name, binary string) (*Host, error) {
	h := &Host{
		Name:      name,
		calls:     make(chan func()),
		stop:      make(chan struct{}),
		ended:     make(chan struct{}),
		processes: make(map[*Process]struct{}),
	}
	started := make(chan error, 1)
	go onOwnThread(h.ended, func() { h.run(binary, started) })
	if err := <-started; err != nil {
		<-h.ended
		return nil, fmt.Errorf("host %s: %w", name, err)
	}
	return h, nil
}

// onOwnThread runs fn on a thread that ends with it, and then closes ended.
func onOwnThread(ended chan struct{}, fn func()) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The main thread cannot end before the process does, and its namespaces
		// are what /proc/self shows. Hold it while another one is found.
		go onOwnThread(ended, fn)
		<-ended
		runtime.UnlockOSThread()
		return
	}
	// No unlock: the runtime ends a locked thread together with its goroutine.
	defer close(ended)
	fn()
}

// run is the host's thread.
func (h *Host) run(binary string, started chan<- error) {
	err := h.setUp(binary)
	started <- err
	if err != nil {
		h.release()
		return
	}
	defer h.release()
	for {
		select {
		case call := <-h.calls:
			call()
		case <-h.stop:
			return
		}
	}
}

func (h *Host) release() {
	if h.Network != nil {
		h.Network.Close()
	}
	if h.namespace != nil {
		h.namespace.Close()
	}
}

// setUp moves the calling thread into namespaces of its own and furnishes them.
func (h *Host) setUp(binary string) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("making namespaces: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making the mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	// /sys/class/net shows the network of whoever mounted it. Only people look
	// there, and a container may forbid the mount, so the old one will do.
	_ = unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if err := unix.Sethostname([]byte(h.Name)); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	for _, dir := range []string{"/run/appliance", hostBin} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if binary != "" {
		if err := os.Symlink(binary, hostBin+"/applianctl"); err != nil {
			return err
		}
	}
	// Duplicate address detection would keep IPv6 addresses unusable for a
	// second; a kernel without IPv6 has no such setting.
	for _, conf := range []string{"all", "default"} {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/"+conf+"/accept_dad", []byte("0"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EROFS) {
			return err
		}
	}
	h.tid = unix.Gettid()
	var err error
	if h.namespace, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return err
	}
	if h.Network, err = link.OpenTopology(); err != nil {
		return err
	}
	return h.Network.SetUp("lo", true)
}

// hostBin is the directory that comes first in a host's PATH.
const hostBin = "/run/bin"

// Do runs fn on the host's thread and returns its error: processes it starts
// and sockets it opens are the host's, names of files too. One call at a time
// runs, so fn must not wait for anything, and must not end its goroutine
// (testing's FailNow does).
func (h *Host) Do(fn func() error) error {
	result := make(chan error, 1)
	select {
	case h.calls <- func() { result <- fn() }:
		return <-result
	case <-h.ended:
		return fmt.Errorf("host %s: %w", h.Name, ErrHostClosed)
	}
}

// Path returns the name by which this process reaches a file of the host, its
// control socket for example; path is absolute.
func (h *Host) Path(path string) string {
	return filepath.Join(fmt.Sprintf("/proc/self/task/%d/root", h.tid), path)
}

// WriteFile writes a file on the host that its owner alone can read; path is
// absolute.
func (h *Host) WriteFile(path string, data []byte) error {
	if err := os.WriteFile(h.Path(path), data, 0o600); err != nil {
		return fmt.Errorf("host %s: %w", h.Name, err)
	}
	return nil
}

// Close kills the host's processes and removes the host with its interfaces.
// It must be called once.
func (h *Host) Close() {
	for _, p := range h.running() {
		p.killGroup()
		<-p.Done()
	}
	close(h.stop)
	<-h.ended
}

func (h *Host) running() []*Process {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []*Process
	for p := range h.processes {
		list = append(list, p)
	}
	return list
}

// loopbackUp brings up the loopback interface of the calling thread's network.
func loopbackUp() error {
	t, err := link.OpenTopology()
	if err != nil {
		return err
	}
	defer t.Close()
	return t.SetUp("lo", true)
}
