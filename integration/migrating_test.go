package integration

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"appliance/internal/lab"
)

// oldNode is what runs on a node before the appliance does.
type oldNode struct {
	p                 *pair
	node              *lab.Node
	keepalived, nginx *lab.Process
}

const oldKeepalived = `
global_defs {
 router_id %[1]s
 script_user root
 enable_script_security
}
vrrp_script check_ng {
 script "/run/checkNG.sh"
 interval 2
 fall 2
}
vrrp_instance VI_1 {
 state %[2]s
 interface eth0
 virtual_router_id 50
 priority %[3]d
 advert_int 1
 authentication {
  auth_type PASS
  auth_pass 1111
 }
 virtual_ipaddress {
  192.168.15.3/24
 }
 track_script {
  check_ng
 }
}
`

const oldCheck = `#!/bin/sh
kill -0 "$(cat /run/nginx.pid)"
`

const oldNginx = `
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
worker_processes 1;
pid /run/nginx.pid;
error_log /run/nginx.log;
events {}
http {
 access_log off;
 upstream web { server 172.16.1.51:80 max_fails=3; server 172.16.1.52:80; server 172.16.1.53:80; }
 server { listen 80; location / { proxy_pass http://web; proxy_set_header Host $host; } }
}
stream {
 upstream web { least_conn; server 172.16.1.51:80; server 172.16.1.52:80; server 172.16.1.53:80; }
 server { listen 8080; proxy_pass web; }
}
`

// start starts keepalived and nginx on the node.
func (o *oldNode) start(state string, priority int) {
	t := o.p.t
	t.Helper()
	keepalived, nginx := need(t, "keepalived", "keepalived"), need(t, "nginx", "nginx")
	for path, text := range map[string]string{
		keepalivedConfig: fmt.Sprintf(oldKeepalived, o.node.Name, state, priority), "/run/checkNG.sh": oldCheck, "/run/nginx.conf": oldNginx,
	} {
		if err := o.node.WriteFile(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(o.node.Path("/run/checkNG.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	o.nginx = o.run(nginx, "-c", "/run/nginx.conf", "-p", "/run", "-e", "/run/nginx.log")
	waitAccepting(t, o.node.Host, netip.MustParseAddrPort("127.0.0.1:80"), o.nginx)
	o.keepalived = o.run(keepalived, "--dont-fork", "--log-console", "--no-syslog", "--vrrp",
		"--use-file="+keepalivedConfig, "--pid=/run/keepalived.pid", "--vrrp_pid="+keepalivedChild)
}

func (o *oldNode) run(program string, args ...string) *lab.Process {
	o.p.t.Helper()
	process, err := o.node.Host.Start(o.node.Command(program, args...))
	if err != nil {
		o.p.t.Fatal(err)
	}
	o.p.t.Cleanup(func() { killTree(process) })
	return process
}

// stop is `systemctl disable --now keepalived nginx`.
func (o *oldNode) stop() {
	o.p.t.Helper()
	for _, process := range []*lab.Process{o.keepalived, o.nginx} {
		if err := process.Signal(syscall.SIGTERM); err != nil {
			o.p.t.Fatal(err)
		}
		select {
		case <-process.Done():
		case <-time.After(20 * time.Second):
			o.p.t.Fatalf("a program of %s does not end", o.node.Name)
		}
	}
}

// migratingConfig is the file while lb01 still runs keepalived: it speaks as that
// does.
const migratingConfig = `
[node.lb01]
address    = "192.168.15.11"
priority   = 100
keepalived = true
[node.lb02]
address  = "192.168.15.12"
priority = 90

[[vrrp]]
name              = "VI_1"
virtual_router_id = 50
addresses         = ["192.168.15.3/24"]
version           = 2
authentication    = { type = "pass", password = "1111" }
track             = [{ service = "web" }]

[[l7]]
name   = "web"
listen = ["192.168.15.3:80"]
pool   = "web"

[[l4]]
name   = "relay"
listen = ["192.168.15.3:8080"]
pool   = "web"

[pool.web]
servers = ["172.16.1.51:80", "172.16.1.52:80", "172.16.1.53:80"]
check   = { type = "http", interval = "1s" }
`

// A pair of keepalived and nginx becomes a pair of appliances, one node at a time, as
// docs/migrating.md says, while clients ask.
func TestMigrating(t *testing.T) {
	t.Parallel()
	p := newPair(t, migratingConfig)
	one, two := &oldNode{p: p, node: p.LB01}, &oldNode{p: p, node: p.LB02}
	one.start("MASTER", 100)
	two.start("BACKUP", 90)
	p.waitActive(p.LB01)
	l := p.load(100, 80, 8080)
	began := time.Now()

	// What still runs there is seen.
	if code, out := p.applianctl(p.LB02, "check", "--config", lab.ConfigPath); code != 0 || !strings.Contains(out, "note: keepalived speaks VRRP on this machine") {
		t.Errorf("check beside a keepalived: exit code %d\n%s", code, out)
	}

	two.stop()
	p.startBackup(p.LB02)
	if s := p.status(p.LB02).VRRP[0]; s.ActiveRouter == nil || s.ActiveRouter.Priority != 100 || s.RefusedAdvert != nil {
		t.Errorf("lb02 beside the keepalived of lb01: %+v", s)
	}
	p.noFailures(l, began, "lb02 replaced")

	// The larger one takes over while the other one still has the address.
	began = time.Now()
	mixed := replaced(t, migratingConfig, "priority = 90", "priority = 110")
	p.reload(p.LB02, mixed)
	p.waitActive(p.LB02)
	eventually(t, 20*time.Second, "keepalived has let the address go", func() bool { return slices.Equal(p.holders(p.VIP), []string{"lb02"}) })
	p.waitRequests(l, 20)
	// What was under way through nginx is cut with the address.
	if r := l.Report(began, time.Now()); r.Failures() > r.Kinds[lab.Reset] || r.Failures() > 5 {
		t.Errorf("the switch from keepalived: %v", r)
	}

	began = time.Now()
	one.stop()
	pairFile := replaced(t, mixed, "keepalived = true\n", "", "[[vrrp]]", "[peer]\nsecret_file = \"peer.secret\"\n\n[[vrrp]]")
	p.reload(p.LB02, pairFile)
	if err := p.LB01.WriteConfig(pairFile); err != nil {
		t.Fatal(err)
	}
	p.startBackup(p.LB01)
	eventually(t, 20*time.Second, "the nodes run the same file", func() bool {
		peers := p.status(p.LB02).Peers
		return len(peers) == 1 && peers[0].Link == "up" && peers[0].SameConfig
	})
	p.noFailures(l, began, "lb01 replaced")

	// From version 2 to 3: the backup first, then a switch, then the other one.
	began = time.Now()
	last := replaced(t, pairFile, "version           = 2\nauthentication    = { type = \"pass\", password = \"1111\" }\n", "preempt           = false\n")
	p.reload(p.LB01, last)
	p.failover(p.LB02)
	p.reload(p.LB02, last)
	eventually(t, 20*time.Second, "lb02 hears lb01", func() bool {
		s := p.status(p.LB02).VRRP[0]
		return s.State == "backup" && s.ActiveRouter != nil && s.ActiveRouter.Address == "192.168.15.11"
	})
	p.failover(p.LB01)
	p.noFailures(l, began, "version 3")
}

// startBackup starts a node's appliance and waits until it is a backup that hears the
// active one.
func (p *pair) startBackup(n *lab.Node) {
	p.t.Helper()
	p.startNode(n)
	eventually(p.t, 20*time.Second, n.Name+" hears the active node", func() bool {
		s := p.status(n).VRRP[0]
		return s.State == "backup" && s.ActiveRouter != nil
	})
}

// noFailures fails the test if a request has failed since began, once some more have
// been made.
func (p *pair) noFailures(l *lab.Load, began time.Time, what string) {
	p.t.Helper()
	p.waitRequests(l, 20)
	if r := l.Report(began, time.Now()); r.Failures() > 0 {
		p.t.Errorf("%s: %v", what, r)
	}
}
