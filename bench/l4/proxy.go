package main

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// proxy is one of those that are compared, running.
type proxy struct {
	name    string
	version string
	ours    bool
	address netip.Addr
	cmd     *exec.Cmd
	said    bytes.Buffer
}

// startAll starts the proxies, each pinned to processor 0 with one worker.
func startAll(dir string) (started []*proxy, err error) {
	haproxy, err := find("haproxy")
	if err != nil {
		return nil, err
	}
	nginx, err := find("nginx")
	if err != nil {
		return nil, err
	}
	for i, one := range []struct {
		name    string
		version []string
		config  func(listen string) string
		command func(config string) []string
	}{
		{"applianctl", []string{*binary, "version"}, applianceConfig(dir), func(c string) []string {
			return []string{*binary, "run", "--config", c}
		}},
		{"nginx stream", []string{nginx, "-v"}, nginxConfig(dir), func(c string) []string {
			return []string{nginx, "-c", c}
		}},
		{"HAProxy, splice-auto", []string{haproxy, "-v"}, haproxyConfig("option splice-auto"), func(c string) []string {
			return []string{haproxy, "-db", "-f", c}
		}},
		{"HAProxy, splice forced", nil, haproxyConfig("option splice-request\n  option splice-response"), func(c string) []string {
			return []string{haproxy, "-db", "-f", c}
		}},
	} {
		if *peer != "" && *peer != one.name {
			continue
		}
		p := &proxy{name: one.name, ours: i == 0, address: netip.AddrFrom4([4]byte{127, 0, 3, byte(1 + i)})}
		path := filepath.Join(dir, strconv.Itoa(i)+".conf")
		if err := os.WriteFile(path, []byte(one.config(p.address.String())), 0o600); err != nil {
			return started, err
		}
		if one.version != nil {
			out, _ := exec.Command(one.version[0], one.version[1:]...).CombinedOutput()
			first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
			p.version, _, _ = strings.Cut(first, " - ")
		}
		args := append([]string{"-c", "0"}, one.command(path)...)
		p.cmd = exec.Command("taskset", args...)
		p.cmd.Stdout, p.cmd.Stderr = &p.said, &p.said
		if err := p.cmd.Start(); err != nil {
			return started, err
		}
		started = append(started, p)
		if err := p.awaitListening(); err != nil {
			return started, err
		}
	}
	return started, nil
}

func (p *proxy) awaitListening() error {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", netip.AddrPortFrom(p.address, sourcePort).String())
		if err == nil {
			c.Close()
			return nil
		}
	}
	return fmt.Errorf("%s does not listen:\n%s", p.name, p.said.String())
}

func (p *proxy) pid() int { return p.cmd.Process.Pid }

func (p *proxy) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
}

var ports = []int{echoPort, sinkPort, sourcePort}

func applianceConfig(dir string) func(string) string {
	return func(listen string) string {
		var b strings.Builder
		fmt.Fprintf(&b, "[admin]\nsocket = %q\n", filepath.Join(dir, "control.sock"))
		for _, port := range ports {
			fmt.Fprintf(&b, "[[l4]]\nname = \"p%d\"\nlisten = [\"%s:%d\"]\nservers = [", port, listen, port)
			for _, s := range servers() {
				fmt.Fprintf(&b, "\"%s:%d\", ", s, port)
			}
			b.WriteString("]\n")
		}
		return b.String()
	}
}

func nginxConfig(dir string) func(string) string {
	return func(listen string) string {
		var b strings.Builder
		fmt.Fprintf(&b, `load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; worker_processes 1;
pid %s; error_log stderr error;
events { worker_connections 40000; }
stream {
tcp_nodelay on;
`, filepath.Join(dir, "nginx.pid"))
		for _, port := range ports {
			fmt.Fprintf(&b, "upstream p%d {\n", port)
			for _, s := range servers() {
				fmt.Fprintf(&b, "server %s:%d max_fails=0;\n", s, port)
			}
			fmt.Fprintf(&b, "}\nserver { listen %s:%d backlog=4096; proxy_pass p%d; proxy_timeout 1h; }\n", listen, port, port)
		}
		b.WriteString("}\n")
		return b.String()
	}
}

func haproxyConfig(options string) func(string) string {
	return func(listen string) string {
		var b strings.Builder
		fmt.Fprintf(&b, `global
  nbthread 1
  maxconn %d
  maxpipes 200
defaults
  mode tcp
  %s
  timeout connect 3s
  timeout client 1h
  timeout server 1h
`, idleConnections+200, options)
		for _, port := range ports {
			fmt.Fprintf(&b, "listen p%d\n  bind %s:%d backlog 4096\n  balance roundrobin\n", port, listen, port)
			for i, s := range servers() {
				fmt.Fprintf(&b, "  server s%d %s:%d\n", i, s, port)
			}
		}
		return b.String()
	}
}
