package main

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"appliance/l4/kernel"
)

// contestant is one way from the client to the server.
type contestant struct {
	name    string
	version string
	target  string // what the client connects to
	pids    []int  // besides wrk, whose processes do the work
	stop    func()
}

// The names of those that others are compared with.
const (
	nobody     = "no balancer"
	forwarding = "forwarding"
	haproxy    = "HAProxy, splice-auto"
	ours       = "applianctl, kernel"
)

// startAll starts the server and the contestants.
func startAll(n *network, dir string) (started []*contestant, err error) {
	server, err := startServer(dir)
	if err != nil {
		return nil, err
	}
	started = append(started,
		&contestant{name: nobody, target: n.straight + ":80", pids: []int{server.pid()}, stop: server.stop},
		&contestant{name: forwarding, target: n.forwarded + ":80", pids: []int{server.pid()}, stop: func() {}})
	for i, p := range proxies {
		if *one != "" && *one != p.name && p.name != haproxy {
			continue
		}
		listen := fmt.Sprintf("%s:%d", n.vip, 8001+i)
		path := filepath.Join(dir, fmt.Sprintf("proxy%d.conf", i))
		if err := os.WriteFile(path, []byte(p.config(dir, listen, n.server+":80")), 0o600); err != nil {
			return started, err
		}
		proc, err := start("balancer", listen, p.command(path)...)
		if err != nil {
			return started, fmt.Errorf("%s: %w", p.name, err)
		}
		started = append(started, &contestant{name: p.name, version: version(p.version...), target: listen, pids: []int{server.pid(), proc.pid()}, stop: proc.stop})
	}
	if *one != "" && *one != ours {
		return started, nil
	}
	listen := n.vip + ":8100"
	var path *kernel.Path
	err = within("balancer", func() error {
		if path, err = kernel.Open(kernel.Options{}); err != nil {
			return err
		}
		var interfaces []kernel.Interface
		for _, name := range n.interfaces {
			i, err := net.InterfaceByName(name)
			if err != nil {
				return err
			}
			interfaces = append(interfaces, kernel.Interface{Index: i.Index})
		}
		return path.Attach(interfaces)
	})
	if err != nil {
		return started, err
	}
	c := &contestant{name: ours, target: listen, pids: []int{server.pid(), os.Getpid()}, stop: func() {
		if s, err := path.Stats(); err == nil && s.Services[0].Fallback != (kernel.Fallback{}) {
			fmt.Fprintf(os.Stderr, "bench kernel: not all connections were carried: %+v\n", s.Services[0])
		}
		path.Close()
	}}
	path.OnChanges(func([]kernel.Change) {}) // as with a node to tell them to
	return append(started, c), path.Set([]kernel.Service{{
		Name: "bench", Protocol: kernel.TCP,
		Listen:  []netip.AddrPort{netip.MustParseAddrPort(listen)},
		Servers: []kernel.Server{{Addr: netip.MustParseAddrPort(n.server + ":80")}},
	}})
}

// proxies are those that end connections, with one worker each.
var proxies = []struct {
	name    string
	version []string
	config  func(dir, listen, server string) string
	command func(config string) []string
}{
	{haproxy, []string{"haproxy", "-v"}, func(_, listen, server string) string {
		return fmt.Sprintf(`global
  nbthread 1
  maxconn 4000
defaults
  mode tcp
  option splice-auto
  timeout connect 3s
  timeout client 1h
  timeout server 1h
listen bench
  bind %s backlog 4096
  server s %s
`, listen, server)
	}, func(c string) []string { return []string{"haproxy", "-db", "-f", c} }},
	{"nginx stream", []string{"nginx", "-v"}, func(dir, listen, server string) string {
		return fmt.Sprintf(`load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; worker_processes 1;
pid %s/stream.pid; error_log stderr error;
events { worker_connections 10000; }
stream {
server { listen %s backlog=4096; tcp_nodelay on; proxy_pass %s; proxy_timeout 1h; }
}
`, dir, listen, server)
	}, func(c string) []string { return []string{"nginx", "-c", c} }},
	{"applianctl, proxy", []string{"", "version"}, func(dir, listen, server string) string {
		return fmt.Sprintf("[admin]\nsocket = %q\n[[l4]]\nname = \"bench\"\nlisten = [%q]\nservers = [%q]\n", dir+"/control.sock", listen, server)
	}, func(c string) []string { return []string{*binary, "run", "--config", c} }},
}

// startServer starts nginx, which answers with 128 bytes, or with 64 MiB.
func startServer(dir string) (*process, error) {
	big, err := os.Create(filepath.Join(dir, "bulk"))
	if err != nil {
		return nil, err
	}
	defer big.Close()
	if err := big.Truncate(64 << 20); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "server.conf")
	text := fmt.Sprintf(`daemon off; master_process off; worker_processes 1; user root;
pid %[1]s/server.pid; error_log stderr error;
events { worker_connections 10000; }
http {
access_log off; sendfile on; keepalive_requests 1000000000;
server { listen 80 backlog=4096; root %[1]s; location = / { return 200 "%[2]s"; } }
}
`, dir, strings.Repeat("x", 128))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return start("server", "127.0.0.1:80", "nginx", "-c", config)
}

// process is one that runs in a namespace.
type process struct {
	cmd  *exec.Cmd
	said bytes.Buffer
}

// start starts a command and waits until it listens.
func start(namespace, listen string, command ...string) (*process, error) {
	p := &process{cmd: exec.Command("ip", append([]string{"netns", "exec", namespace}, command...)...)}
	p.cmd.Env = append(os.Environ(), "GOMAXPROCS=1") // one worker, as the others have
	p.cmd.Stdout, p.cmd.Stderr = &p.said, &p.said
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	err := within(namespace, func() error {
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if c, err := net.Dial("tcp", listen); err == nil {
				c.Close()
				return nil
			}
		}
		return fmt.Errorf("it does not listen at %s: %s", listen, p.said.String())
	})
	if err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// pid is that of the command: ip(8) has become it.
func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) stop() {
	_ = p.cmd.Process.Signal(os.Interrupt)
	_ = p.cmd.Wait()
}

// version returns the first line that a program says about itself.
func version(command ...string) string {
	if command[0] == "" {
		command[0] = *binary
	}
	out, _ := exec.Command(command[0], command[1:]...).CombinedOutput()
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	first, _, _ = strings.Cut(first, " - ")
	return first
}
