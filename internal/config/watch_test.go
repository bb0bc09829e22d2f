package config

import (
	"strings"
	"testing"
)

// The door for watchers is not opened to everybody by mistake, and access logs and
// certificates of clients are judged where they stand.
func TestWatchingProblems(t *testing.T) {
	const service = "[[l7]]\nname = \"web\"\nlisten = [\"192.168.15.3:443\"]\nredirect = { scheme = \"https\" }\n"
	for _, one := range []struct{ text, want string }{
		{"[admin]\nlisten = \"127.0.0.1:9112\"\n" + service, ""},
		{"[admin]\nlisten = \"[::1]:9112\"\n" + service, ""},
		{"[admin]\nlisten = \"0.0.0.0:9112\"\nallow = [\"10.0.0.0/8\"]\n" + service, ""},
		{"[admin]\nlisten = \"192.168.15.11:9112\"\n" + service, `f.toml:2:1: admin.listen: whoever reaches 192.168.15.11:9112 would learn of all servers`},
		{"[admin]\nallow = [\"10.0.0.0/8\"]\n" + service, `f.toml:2:1: admin.allow: the networks that may look at what?`},
		{"[admin]\nlisten = \"127.0.0.1:0\"\n" + service, `f.toml:2:1: admin.listen: the port must be`},
		{"[admin]\nlisten = \"0.0.0.0:443\"\nallow = [\"10.0.0.0/8\"]\n" + service, `f.toml:2:1: admin.listen: 0.0.0.0:443 is taken by l7[0].listen[0], service web`},
		{service + "access_log = \"stdout\"\n", ""},
		{service + "access_log = { path = \"a.log\", format = \"combined\" }\n", ""},
		{service + "access_log = { format = \"xml\" }\n", "f.toml:5:1: l7[0].access_log.path: an access log needs the path of a file, or \"stdout\"\n" +
			`f.toml:5:16: l7[0].access_log.format: unknown format "xml"; known: json, common, combined`},
		{service + "tls = { certificates = [{ cert = \"a\", key = \"b\" }], client_auth = \"maybe\" }\n", `f.toml:5:53: l7[0].tls.client_auth: unknown value "maybe"; known: require, optional`},
	} {
		_, err := Parse("f.toml", []byte(one.text))
		switch {
		case err == nil && one.want != "":
			t.Errorf("nothing is wrong with\n%s", one.text)
		case err != nil && (one.want == "" || !strings.HasPrefix(err.Error(), one.want)):
			t.Errorf("got  %v\nwant %s", err, one.want)
		}
	}
}
