package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const rulesService = `[[l7]]
name = "web"
listen = ["192.168.15.3:80"]
`

// Mistakes in rules are reported where they stand, wherever that is.
func TestRuleProblems(t *testing.T) {
	_, err := Parse("f.toml", []byte(rulesService+`pool = "a"
underscores = "keep"
hash_by = { header = "X" }
hsts = { preload = true }

[l7.response_headers.set]
X-Good = "{client}"
"X Bad" = "1"
Content-Length = "1"

[[l7.route]]
pool = "a"
respond = {}
paths = ["/x", "~ ("]
compress = { algorithms = ["br"], level = 9 }
forward_auth = { pool = "b" }
per_client = { max_connections = 5 }
retry = { statuses = [404] }

[[l7.route]]
redirect = { to = "{path}" }
error_pages = { 404 = "a.html", 200 = "b.html" }
per_client = {}

[pool.a]
servers = ["10.0.0.1:80"]
`))
	want := []string{
		`f.toml:5:1: l7[0].underscores: unknown policy "keep"; known: drop, pass, refuse`,
		`f.toml:6:1: l7[0].hash_by: pool a chooses no server by a hash; give it balance = "source_hash"`,
		`f.toml:7:10: l7[0].hsts.preload: the lists of browsers ask for include_subdomains`,
		`f.toml:11:1: l7[0].response_headers.set."X Bad": "X Bad" is no name of a field`,
		`f.toml:12:1: l7[0].response_headers.set.Content-Length: Content-Length tells where a message ends`,
		`f.toml:15:1: l7[0].route[0].pool: a route has one of pool, redirect, respond and files, not several`,
		`f.toml:17:16: l7[0].route[0].paths[1]: "(" is no regular expression: missing closing )`,
		`f.toml:18:28: l7[0].route[0].compress.algorithms[0]: unknown algorithm "br"; known: zstd, gzip`,
		`f.toml:18:35: l7[0].route[0].compress.level: unknown key`,
		`f.toml:19:18: l7[0].route[0].forward_auth.pool: there is no pool b`,
		`f.toml:20:16: l7[0].route[0].per_client.max_connections: connections are bounded by the service`,
		`f.toml:21:23: l7[0].route[0].retry.statuses[0]: 404 is no status of a server's failure`,
		`f.toml:24:14: l7[0].route[1].redirect.to: "{path}" is neither a URL`,
		`f.toml:25:33: l7[0].route[1].error_pages.200: "200" is no status of an error`,
		`f.toml:26:1: l7[0].route[1].per_client: a bound for clients needs rate, max_requests or, in a service, max_connections`,
	}
	got := strings.Split(err.Error(), "\n")
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || !strings.HasPrefix(got[i], want[i]) {
			t.Fatalf("problem %d of\n%v\nwant\n%s", i, err, strings.Join(want, "\n"))
		}
	}
}

// Files that rules name begin at the file's folder, and must be of use.
func TestFilesOfRules(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"page.html": "x", "users": "ann\n", "short.key": "abc"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "f.toml")
	text := rulesService + `error_pages = { 404 = "page.html", 500 = "gone.html" }
basic_auth = { users_file = "users" }
sticky = { cookie = "srv", key_file = "short.key" }
maintenance = { page = "." }

[[l7.route]]
files = "page.html"

[[l7.route]]
paths = ["/x"]
files = { root = "." }
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	if err == nil {
		t.Fatal("no problem was found")
	}
	got := strings.Split(err.Error(), "\n")
	want := []string{"l7[0].error_pages.500: open " + dir + "/gone.html", "l7[0].basic_auth.users_file: " + dir + "/users: line 1 is no name:hash",
		"l7[0].sticky.key_file: " + dir + "/short.key has less than 16 bytes", "l7[0].maintenance.page: " + dir + " is no file", "l7[0].route[0].files.root: open"}
	if len(got) != len(want) {
		t.Fatalf("problems:\n%v", err)
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("%s\nwant %s", got[i], want[i])
		}
	}
}
