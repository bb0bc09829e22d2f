package integration

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"appliance/internal/lab"
)

// notifyPath is where the manager of a node listens, on the node.
const notifyPath = "/run/appliance/notify"

// manager does for one node what a service manager does that has a file descriptor
// store: see sd_notify(3).
type manager struct {
	*pair
	node *lab.Node
	conn *net.UnixConn

	mu    sync.Mutex
	names []string
	files []*os.File
	asked chan struct{} // has one for each managerAsks that was read
}

// managerAsks is what the manager itself says, to know that all is read that was
// said before.
const managerAsks = "X_READ=1"

func newManager(p *pair, n *lab.Node) *manager {
	p.t.Helper()
	m := &manager{pair: p, node: n, asked: make(chan struct{}, 1)}
	var err error
	if m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: n.Path(notifyPath), Net: "unixgram"}); err != nil {
		p.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.serve()
	}()
	p.t.Cleanup(func() {
		m.conn.Close()
		<-done
		m.stop()
	})
	return m
}

// serve takes what the service says.
func (m *manager) serve() {
	text, rights := make([]byte, 4096), make([]byte, 1024)
	for {
		n, controls, _, _, err := m.conn.ReadMsgUnix(text, rights)
		if err != nil {
			return
		}
		var files []*os.File
		messages, _ := unix.ParseSocketControlMessage(rights[:controls])
		for _, c := range messages {
			fds, _ := unix.ParseUnixRights(&c)
			for _, fd := range fds {
				files = append(files, os.NewFile(uintptr(fd), "kept"))
			}
		}
		m.take(strings.Split(string(text[:n]), "\n"), files)
	}
}

func (m *manager) take(lines []string, files []*os.File) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := ""
	for _, l := range lines {
		if value, ok := strings.CutPrefix(l, "FDNAME="); ok {
			name = value
		}
	}
	switch {
	case slices.Contains(lines, "FDSTORE=1"):
		for _, f := range files {
			m.names, m.files = append(m.names, name), append(m.files, f)
		}
	case slices.Contains(lines, managerAsks):
		m.asked <- struct{}{}
	case slices.Contains(lines, "FDSTOREREMOVE=1"):
		for i := len(m.names) - 1; i >= 0; i-- {
			if m.names[i] == name {
				m.files[i].Close()
				m.names, m.files = slices.Delete(m.names, i, i+1), slices.Delete(m.files, i, i+1)
			}
		}
	}
}

// stop closes what is kept, as the stop of the service does.
func (m *manager) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.files {
		f.Close()
	}
	m.names, m.files = nil, nil
}

// hear returns when all has been taken that was said until now.
func (m *manager) hear() {
	m.t.Helper()
	c, err := net.Dial("unixgram", m.node.Path(notifyPath))
	if err != nil {
		m.t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(managerAsks)); err != nil {
		m.t.Fatal(err)
	}
	<-m.asked
}

// kept returns how many files are.
func (m *manager) kept() int {
	m.hear()
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.files)
}

// startAppliance starts the node's process with all that is kept.
func (m *manager) startAppliance() {
	m.t.Helper()
	m.hear()
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.node.StartApplianceBy(func(c *exec.Cmd) {
		// Its process id is the one of the shell.
		c.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`}, c.Args...)
		c.Path = "sh"
		c.Env = append(c.Env, "NOTIFY_SOCKET="+notifyPath, fmt.Sprintf("LISTEN_FDS=%d", len(m.files)), "LISTEN_FDNAMES="+strings.Join(m.names, ":"))
		c.ExtraFiles = slices.Clone(m.files)
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

// A node that has no other one restarts, for an upgrade and after a crash, while
// connections of the kernel path are under way. None ends; and a stop leaves nothing.
func TestKernelPathConnectionsOutliveARestart(t *testing.T) {
	t.Parallel()
	p := newKernelPair(t, kernelConfig)
	m := newManager(p, p.LB01)
	m.startAppliance()
	p.waitActive(p.LB01)
	p.waitUp("tcp", "web1", "web2", "web3")
	p.inKernel(p.LB01, "tcp", "tcp6", "udp")
	talks := p.talks(12)

	for _, c := range []struct {
		when string
		end  func() error
	}{
		{"a restart", func() error { return p.LB01.Terminate(p.within(20 * time.Second)) }},
		{"a crash", p.LB01.Kill},
		{"another restart", func() error { return p.LB01.Terminate(p.within(20 * time.Second)) }},
	} {
		busy := p.busy(talks[:6])
		if err := c.end(); err != nil {
			t.Fatal(err)
		}
		if n := p.programs(p.LB01); n != 2 {
			t.Errorf("after %s %d programs look at the packets; want 2", c.when, n)
		}
		m.startAppliance()
		p.waitActive(p.LB01)
		p.inKernel(p.LB01, "tcp", "tcp6", "udp")
		busy()
		goOn(t, talks, "after "+c.when)
		if n := p.programs(p.LB01); n != 2 {
			t.Errorf("after %s and a start %d programs look at the packets; want 2", c.when, n)
		}
		if k := p.status(p.LB01).Kernel; k.Strays > 0 {
			t.Errorf("after %s, %d connections were not known any more", c.when, k.Strays)
		}
		talks = append(talks, p.talks(3)...)
	}
	eventually(t, 10*time.Second, "two maps and two attachments are kept", func() bool { return m.kept() == 4 })
	m.changesItsFile()
	if err := p.LB01.Terminate(p.within(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	m.stop()
	eventually(t, 10*time.Second, "nothing is left", func() bool { return p.programs(p.LB01) == 0 })
}

// changesItsFile has the node come back from a crash with a file that has no service
// of the kernel path: what is left of that ends. Then the file is as before.
func (m *manager) changesItsFile() {
	m.t.Helper()
	without := strings.NewReplacer(`forward = "dnat"`, "", `"kernel"`, `"proxy"`, `"auto"`, `"proxy"`).Replace(kernelConfig)
	if err := errors.Join(m.LB01.Kill(), m.LB01.WriteConfig(without)); err != nil {
		m.t.Fatal(err)
	}
	m.startAppliance()
	m.waitActive(m.LB01)
	eventually(m.t, 10*time.Second, "nothing is carried any more", func() bool { return m.programs(m.LB01) == 0 && m.kept() == 0 })
	if err := errors.Join(m.LB01.Terminate(m.within(20*time.Second)), m.LB01.WriteConfig(kernelConfig)); err != nil {
		m.t.Fatal(err)
	}
	m.startAppliance()
	m.waitActive(m.LB01)
	m.inKernel(m.LB01, "tcp", "tcp6", "udp")
}

// busy has connections talk until the returned function is called.
func (p *pair) busy(talks []*talk) (end func()) {
	stop := make(chan struct{})
	var all sync.WaitGroup
	for i, k := range talks {
		all.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := k.say(fmt.Sprintf("line %d", n)); err != nil {
					p.t.Errorf("connection %d, to %s, after %d lines: %v", i, k.server, n, err)
					return
				}
			}
		})
	}
	return func() {
		close(stop)
		all.Wait()
	}
}
