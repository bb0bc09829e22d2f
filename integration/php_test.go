package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"appliance/internal/lab"
)

const phpConfig = nodesConfig + `
[[l7]]
name   = "forum"
listen = ["192.168.15.3:443"]
tls    = { certificates = [{ cert = "forum.pem", key = "forum.key" }] }

[[l7.route]]
hosts  = ["forum.example.com"]
pool   = "forum"
sticky = { cookie = "srv", key_file = "sticky.key" }

[pool.forum]
servers = [{ name = "web1", address = "172.16.1.51:8080" },
           { name = "web2", address = "172.16.1.52:8080" }]
check   = { type = "http", path = "/index.php/health", host = "forum.example.com", ` + quickCheck + ` }
`

// phpForum keeps its sessions in files of the server's own, as PHP does unless
// it is told otherwise.
const phpForum = `<?php
session_set_cookie_params(['secure' => true, 'httponly' => true]);
session_start();
$path = $_SERVER['PATH_INFO'] ?? '/';
header('X-Powered-By: ' . gethostname());
switch ($path) {
case '/health':
    echo 'ok';
    break;
case '/login':
    $_SESSION['user'] = $_POST['user'];
    header('Location: /index.php/seen', true, 303);
    break;
case '/upload':
    $f = $_FILES['picture'];
    echo json_encode(['name' => $f['name'], 'size' => $f['size'], 'hash' => hash_file('sha256', $f['tmp_name']), 'title' => $_POST['title']]);
    break;
case '/long':
    for ($i = 0; $i < 5; $i++) {
        echo str_repeat("$i", 10000);
        flush();
    }
    break;
default:
    echo json_encode([
        'server' => gethostname(),
        'user' => $_SESSION['user'] ?? '',
        'host' => $_SERVER['HTTP_HOST'],
        'forwarded_for' => $_SERVER['HTTP_X_FORWARDED_FOR'] ?? '',
        'proto' => $_SERVER['HTTP_X_FORWARDED_PROTO'] ?? '',
        'query' => $_SERVER['QUERY_STRING'],
        'agent' => $_SERVER['HTTP_USER_AGENT'] ?? '',
    ]);
}
`

const phpPool = `
[global]
daemonize = no
error_log = /dev/stderr
[www]
user = root
listen = /run/php.sock
pm = static
pm.max_children = 4
php_admin_value[session.save_path] = /run
php_admin_value[upload_max_filesize] = 64M
php_admin_value[post_max_size] = 64M
`

const phpNginx = `
daemon off; worker_processes 1; pid /run/nginx.pid; error_log stderr crit; user root;
events {}
http {
    access_log off; client_max_body_size 64m; client_body_temp_path /run/body; fastcgi_temp_path /run/fastcgi;
    server {
        listen 8080;
        location ~ ^/index\.php(/|$) {
            include /etc/nginx/fastcgi_params;
            fastcgi_split_path_info ^(/index\.php)(/.*)?$;
            fastcgi_param SCRIPT_FILENAME /run/index.php;
            fastcgi_param PATH_INFO $fastcgi_path_info;
            fastcgi_pass unix:/run/php.sock;
        }
    }
}
`

// phpSeen is what the forum says of a request.
type phpSeen struct {
	Server       string
	User         string
	Host         string
	ForwardedFor string `json:"forwarded_for"`
	Proto        string
	Query        string
	Agent        string
}

// A PHP site, by nginx and php-fpm, works behind the appliance: its users stay
// logged in although each server keeps sessions of its own, upload files, and
// cannot pretend to be another client, not even with underscores, which PHP
// takes for dashes.
func TestPHP(t *testing.T) {
	t.Parallel()
	nginx, php := need(t, "nginx", "nginx"), need(t, "php-fpm8.2", "php-fpm")
	p := newPair(t, phpConfig)
	roots, _ := djangoCertificates(p, "forum")
	for _, n := range p.Nodes() {
		if err := n.WriteFile("/run/appliance/sticky.key", []byte(strings.Repeat("0123456789abcdef", 4))); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range p.Servers[:2] {
		phpServe(t, s, nginx, php)
	}
	p.start()
	p.waitUp("forum", "web1", "web2")

	servers := make(map[string]bool)
	for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
		// As many users as it takes for both servers to have one.
		for i := range 4 {
			b := djangoNewBrowser(t, p.Client, roots, version)
			servers[phpUse(b, fmt.Sprintf("user%d", i))] = true
		}
	}
	if !servers["web1"] || !servers["web2"] {
		t.Errorf("the users were at %v only", servers)
	}
}

// phpServe starts the forum on a server.
func phpServe(t *testing.T, s *lab.Server, nginx, php string) {
	t.Helper()
	for path, text := range map[string]string{"/run/index.php": phpForum, "/run/php.conf": phpPool, "/run/nginx.conf": phpNginx} {
		if err := s.Host.WriteFile(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{php, "--nodaemonize", "--allow-to-run-as-root", "--fpm-config", "/run/php.conf"},
		{nginx, "-c", "/run/nginx.conf", "-p", "/run", "-e", "stderr"},
	} {
		process, err := s.Host.Start(s.Host.Command(args[0], args[1:]...))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { killTree(process) })
		if args[0] == nginx {
			waitAccepting(t, s.Host, netip.AddrPortFrom(s.Address, 8080), process)
		}
	}
}

// phpUse is what one user does. It returns the server that the user was at.
func phpUse(b *djangoBrowser, user string) (server string) {
	b.t.Helper()
	const forum = "https://forum.example.com/index.php"
	form := url.Values{"user": {user}}
	resp, body := b.do(b.request("POST", forum+"/login", form.Encode(), "Content-Type", "application/x-www-form-urlencoded"))
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/index.php/seen" {
		b.t.Fatalf("login: status %d to %q: %s", resp.StatusCode, resp.Header.Get("Location"), body)
	}
	for range 6 {
		var s phpSeen
		code, body := b.get(forum+"/seen?a=1&b=%2F+x", "X-Forwarded-For", "10.9.9.9", "X_Forwarded_For", "10.9.9.9",
			"X_Forwarded_Proto", "http", "User-Agent", "browser/1.0")
		if err := json.Unmarshal([]byte(body), &s); err != nil || code != http.StatusOK {
			b.t.Fatalf("/seen: status %d, %v: %q", code, err, body)
		}
		if server == "" {
			server = s.Server
		}
		want := phpSeen{server, user, "forum.example.com", "192.168.15.100", "https", "a=1&b=%2F+x", "browser/1.0"}
		if s != want {
			b.t.Errorf("the forum sees %+v, want %+v", s, want)
		}
	}

	picture := bytes.Repeat([]byte("\x00\xff\r\n--picture"), 300_000)
	var upload bytes.Buffer
	w := multipart.NewWriter(&upload)
	part, err := w.CreateFormFile("picture", "cat.png")
	if err != nil {
		b.t.Fatal(err)
	}
	part.Write(picture)
	w.WriteField("title", "a cat & a dog")
	w.Close()
	_, body = b.do(b.request("POST", forum+"/upload", upload.String(), "Content-Type", w.FormDataContentType()))
	if want := fmt.Sprintf(`{"name":"cat.png","size":%d,"hash":"%x","title":"a cat & a dog"}`, len(picture), sha256.Sum256(picture)); body != want {
		b.t.Errorf("upload: %.300s, want %s", body, want)
	}

	var long strings.Builder
	for i := range 5 {
		long.WriteString(strings.Repeat(fmt.Sprint(i), 10000))
	}
	b.reaches(forum+"/long", long.String())
	return server
}
