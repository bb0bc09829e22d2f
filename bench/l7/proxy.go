package main

import (
	"bytes"
	"crypto"
	ec "crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	rs "crypto/rsa"
	"crypto/x509"
	"debug/buildinfo"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The ports of each proxy.
const (
	plainPort  = 80
	loggedPort = 81
	uploadPort = 82 // to the sink
	ecdsaPort  = 443
	rsaPort    = 444
)

// The servers.
const (
	origin  = "127.0.1.1:80"
	uploads = "127.0.1.2:80"
)

// proxy is one contestant, with an address of its own.
type proxy struct {
	name, version string
	ours          bool
	address       string
	command       []string
	log           string // a file for what it says on its standard output: HAProxy's access log
	cmd           *exec.Cmd
	said          bytes.Buffer
}

// rig is all that runs.
type rig struct {
	dir     string
	servers []*exec.Cmd
	proxies []*proxy
}

// start starts the servers, on processor 1. The proxies are made ready.
func start(dir string, descriptors int) (*rig, error) {
	r := &rig{dir: dir}
	for _, kind := range []string{"ecdsa", "rsa"} {
		if err := writeCertificate(dir, kind); err != nil {
			return nil, err
		}
	}
	for name, data := range map[string]string{
		"get.lua": script,
		"1m.lua":  script + "wrk.method = 'POST'\nwrk.body = string.rep('x', 1048576)\n",
		"64m.lua": script + "wrk.method = 'POST'\nwrk.body = string.rep('x', 67108864)\n",
		"1m":      strings.Repeat("x", 1<<20),
		"64m":     strings.Repeat("x", 64<<20),
		"origin.conf": fmt.Sprintf(`
worker_processes 1; daemon off; master_process off; pid %[1]s/origin.pid; error_log %[1]s/origin.log; user root;
events { worker_connections %[2]d; }
http { access_log off; keepalive_requests 1000000000; keepalive_timeout 300; client_max_body_size 0; sendfile on; tcp_nopush on;
  client_body_temp_path %[1]s/ocb; proxy_temp_path %[1]s/ocp; fastcgi_temp_path %[1]s/ocf; uwsgi_temp_path %[1]s/ocu; scgi_temp_path %[1]s/ocs;
  server { listen %[3]s backlog=4096;
    location / { default_type text/plain; return 200 "%[4]s"; }
    location /1m { root %[1]s; }
    location /64m { root %[1]s; } } }`, dir, descriptors/2, origin, strings.Repeat("0123456789", 6)),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		return nil, err
	}
	for _, server := range []struct {
		address string
		command []string
	}{
		{origin, []string{nginx, "-e", dir + "/origin.log", "-c", dir + "/origin.conf"}},
		{uploads, []string{os.Args[0], "-sink", uploads}},
	} {
		cmd := exec.Command("taskset", append([]string{"-c", "1"}, server.command...)...)
		if err := cmd.Start(); err != nil {
			return r, err
		}
		r.servers = append(r.servers, cmd)
		if err := listening(server.address); err != nil {
			return r, err
		}
	}
	haproxy, err := exec.LookPath("haproxy")
	if err != nil {
		return r, err
	}
	for i, one := range []struct {
		name    string
		version []string
		config  func(dir, address string, descriptors int) string
		command []string // and the configuration
	}{
		{"applianctl", []string{*binary, "version"}, applianceConfig, []string{*binary, "run", "--config"}},
		{earlier, []string{*before, "version"}, applianceConfig, []string{*before, "run", "--config"}},
		{"nginx", []string{nginx, "-v"}, nginxConfig, []string{nginx, "-e", dir + "/nginx.log", "-c"}},
		{"HAProxy", []string{haproxy, "-v"}, haproxyConfig, []string{haproxy, "-db", "-f"}},
		{"Caddy", []string{*caddy, "version"}, caddyConfig, []string{*caddy, "run", "--adapter", "caddyfile", "--config"}},
	} {
		if one.name == "Caddy" && *caddy == "" || one.name == earlier && *before == "" || *peers != "" && !slices.Contains(strings.Split(*peers, ","), one.name) {
			continue
		}
		p := &proxy{name: one.name, ours: i == 0, address: fmt.Sprint("127.0.3.", i+1), log: filepath.Join(dir, strconv.Itoa(i)+".log")}
		path := filepath.Join(dir, strconv.Itoa(i)+".conf")
		if err := os.WriteFile(path, []byte(one.config(dir, p.address, descriptors)), 0o600); err != nil {
			return r, err
		}
		out, _ := exec.Command(one.version[0], one.version[1:]...).CombinedOutput()
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		p.version, _, _ = strings.Cut(first, " - ")
		if one.name == "Caddy" {
			p.version = "Caddy " + moduleVersion(*caddy)
		}
		p.command = append(append([]string{"-c", "0"}, one.command...), path)
		r.proxies = append(r.proxies, p)
	}
	return r, nil
}

// start starts a process of the proxy, with one worker, on processor 0.
func (p *proxy) start(dir string) error {
	p.cmd = exec.Command("taskset", p.command...)
	p.cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	log, err := os.Create(p.log)
	if err != nil {
		return err
	}
	defer log.Close() // the proxy has it too
	p.cmd.Stdout, p.cmd.Stderr = log, &p.said
	if err := p.cmd.Start(); err != nil {
		return err
	}
	for _, port := range []int{plainPort, uploadPort, ecdsaPort, rsaPort} {
		if err := listening(fmt.Sprintf("%s:%d", p.address, port)); err != nil {
			return fmt.Errorf("%w:\n%s", err, p.said.String())
		}
	}
	return nil
}

// stop ends the process, if there is one.
func (p *proxy) stop() {
	if p.cmd != nil {
		end(p.cmd, syscall.SIGTERM)
		p.cmd = nil
	}
}

func end(cmd *exec.Cmd, how os.Signal) {
	_ = cmd.Process.Signal(how)
	_ = cmd.Wait()
}

func listening(address string) error {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", address); err == nil {
			return c.Close()
		}
	}
	return fmt.Errorf("nobody listens on %s", address)
}

func (r *rig) stop() {
	for _, p := range r.proxies {
		p.stop()
	}
	for _, s := range r.servers {
		end(s, syscall.SIGKILL)
	}
}

func (p *proxy) pid() int { return p.cmd.Process.Pid }

// moduleVersion returns the version of the module that a program was built from.
func moduleVersion(path string) string {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return "of unknown version"
	}
	return info.Main.Version
}

func applianceConfig(dir, address string, _ int) string {
	return fmt.Sprintf(`
[admin]
socket = "%[1]s/%[2]s.sock"
[[l7]]
name    = "plain"
listen  = ["%[2]s:80"]
servers = ["%[3]s"]
[[l7]]
name       = "logged"
listen     = ["%[2]s:81"]
servers    = ["%[3]s"]
access_log = { path = "%[1]s/%[2]s.access", format = "combined" }
[[l7]]
name    = "upload"
listen  = ["%[2]s:82"]
servers = ["%[4]s"]
[[l7]]
name    = "ecdsa"
listen  = ["%[2]s:443"]
servers = ["%[3]s"]
tls     = { certificates = [{ cert = "%[1]s/ecdsa.pem", key = "%[1]s/ecdsa.key" }] }
[[l7]]
name    = "rsa"
listen  = ["%[2]s:444"]
servers = ["%[3]s"]
tls     = { certificates = [{ cert = "%[1]s/rsa.pem", key = "%[1]s/rsa.key" }] }
`, dir, address, origin, uploads)
}

func nginxConfig(dir, address string, descriptors int) string {
	return fmt.Sprintf(`
worker_processes 1; daemon off; master_process off; pid %[1]s/nginx.pid; error_log %[1]s/nginx.log; user root;
events { worker_connections %[4]d; }
http { access_log off; keepalive_requests 1000000000; keepalive_timeout 300; client_max_body_size 0;
  client_body_temp_path %[1]s/ncb; proxy_temp_path %[1]s/ncp; fastcgi_temp_path %[1]s/ncf; uwsgi_temp_path %[1]s/ncu; scgi_temp_path %[1]s/ncs;
  proxy_request_buffering off; proxy_max_temp_file_size 0; ssl_session_tickets on; ssl_session_cache off; ssl_protocols TLSv1.2 TLSv1.3;
  http2_max_requests 1000000000;
  upstream o { server %[3]s; keepalive 1024; keepalive_requests 1000000000; }
  upstream u { server %[5]s; keepalive 1024; keepalive_requests 1000000000; }
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;
  server { listen %[2]s:80 backlog=4096; location / { proxy_pass http://o; } }
  server { listen %[2]s:81 backlog=4096; access_log %[1]s/nginx.access combined buffer=64k flush=1s; location / { proxy_pass http://o; } }
  server { listen %[2]s:82 backlog=4096; location / { proxy_pass http://u; } }
  server { listen %[2]s:443 ssl http2 backlog=4096; ssl_certificate %[1]s/ecdsa.pem; ssl_certificate_key %[1]s/ecdsa.key; location / { proxy_pass http://o; } }
  server { listen %[2]s:444 ssl http2 backlog=4096; ssl_certificate %[1]s/rsa.pem; ssl_certificate_key %[1]s/rsa.key; location / { proxy_pass http://o; } } }
`, dir, address, origin, descriptors-1000, uploads)
}

func haproxyConfig(dir, address string, descriptors int) string {
	for _, kind := range []string{"ecdsa", "rsa"} {
		cert, _ := os.ReadFile(dir + "/" + kind + ".pem")
		key, _ := os.ReadFile(dir + "/" + kind + ".key")
		_ = os.WriteFile(dir+"/"+kind+".both", append(cert, key...), 0o600)
	}
	return fmt.Sprintf(`
global
  nbthread 1
  maxconn %[4]d
  no strict-limits
  maxpipes 200
  tune.ssl.default-dh-param 2048
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout http-keep-alive 300s
  option forwardfor
  option splice-request
  option splice-response
  http-reuse always
frontend f
  bind %[2]s:80 backlog 4096
  bind %[2]s:443 backlog 4096 ssl crt %[1]s/ecdsa.both alpn h2,http/1.1
  bind %[2]s:444 backlog 4096 ssl crt %[1]s/rsa.both alpn h2,http/1.1
  http-request set-header X-Forwarded-Proto https if { ssl_fc }
  default_backend b
frontend logged
  bind %[2]s:81 backlog 4096
  log stdout format raw daemon
  option httplog
  default_backend b
frontend upload
  bind %[2]s:82 backlog 4096
  default_backend u
backend b
  server s %[3]s
backend u
  server s %[5]s
`, dir, address, origin, descriptors-1000, uploads)
}

func caddyConfig(dir, address string, _ int) string {
	var b strings.Builder
	b.WriteString("{\n admin off\n auto_https off\n log {\n  level ERROR\n }\n servers {\n  protocols h1 h2\n }\n}\n")
	fmt.Fprintf(&b, "http://:80 {\n bind %s\n reverse_proxy %s\n}\n", address, origin)
	fmt.Fprintf(&b, "http://%s:%d {\n bind %[1]s\n log {\n  output file %[3]s/caddy.access\n }\n reverse_proxy %[4]s\n}\n", address, loggedPort, dir, origin)
	fmt.Fprintf(&b, "http://:%d {\n bind %s\n reverse_proxy %s\n}\n", uploadPort, address, uploads)
	for port, kind := range map[int]string{ecdsaPort: "ecdsa", rsaPort: "rsa"} {
		fmt.Fprintf(&b, "https://%s:%d {\n bind %[1]s\n tls %[3]s/%[4]s.pem %[3]s/%[4]s.key\n reverse_proxy %[5]s\n}\n", address, port, dir, kind, origin)
	}
	return b.String()
}

// writeCertificate writes a self-signed certificate for all addresses that the
// proxies have.
func writeCertificate(dir, kind string) error {
	var key crypto.Signer
	var err error
	if kind == "rsa" {
		key, err = rs.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ec.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	for i := range 5 {
		template.IPAddresses = append(template.IPAddresses, net.IPv4(127, 0, 3, byte(i+1)))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	for suffix, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(filepath.Join(dir, kind+suffix), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}
