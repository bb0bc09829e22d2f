package endpoint

import (
	"net/netip"
	"strings"
	"testing"
)

func name(n string, port uint16) Endpoint {
	return Endpoint{name: n, ip: netip.AddrPortFrom(netip.Addr{}, port)}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]Endpoint{
		"172.16.1.51:3306":                        IP(netip.MustParseAddrPort("172.16.1.51:3306")),
		"[2001:DB8::0]:80":                        IP(netip.MustParseAddrPort("[2001:db8::]:80")),
		"App1.internal:8080":                      name("app1.internal", 8080),
		"db_1:3306":                               name("db_1", 3306),
		"app1.internal.:80":                       name("app1.internal.", 80),
		"3com.example:80":                         name("3com.example", 80),
		"unix:/run/app.sock":                      {path: "/run/app.sock"},
		"unix:/run/./app.sock":                    {path: "/run/app.sock"},
		"unix:/" + strings.Repeat("a", MaxPath-1): {path: "/" + strings.Repeat("a", MaxPath-1)},
	} {
		got, err := Parse(text)
		if err != nil || got != want {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
		if again, err := Parse(got.String()); err != nil || again != got {
			t.Errorf("%s: not the same after a round trip: %v, %v", text, again, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "not an address with a port",
		"10.0.0.1":                              "not an address with a port",
		"10.0.0.1:0":                            "not an address with a port",
		"app1":                                  "not an address with a port",
		"https://10.0.0.1:443":                  "is a URL",
		"app1:":                                 "not an address with a port",
		"app1:0":                                "not an address with a port",
		"app1:65536":                            "not an address with a port",
		"app1:+1":                               "not an address with a port",
		":80":                                   "not an address with a port",
		"a..b:80":                               "not an address with a port",
		"-a:80":                                 "not an address with a port",
		"a b:80":                                "not an address with a port",
		"10.0.0.256:80":                         "not an address with a port",
		"10.0.0:80":                             "not an address with a port",
		"1:80":                                  "not an address with a port",
		"/run/app.sock":                         "not an address with a port",
		"unix:":                                 "absolute path",
		"unix:app.sock":                         "absolute path",
		"unix:/a\x00b":                          "NUL",
		"unix:/" + strings.Repeat("a", MaxPath): "at most 107 bytes",
	} {
		if got, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, %v, want %s", text, got, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("10.0.0.1:80")
	f.Add("[fe80::1%eth0]:80")
	f.Add("unix:/run/app.sock")
	f.Add("app1.internal:80")
	f.Fuzz(func(t *testing.T, text string) {
		e, err := Parse(text)
		if err != nil {
			return
		}
		if again, err := Parse(e.String()); err != nil || again != e {
			t.Errorf("%q became %q and then %v, %v", text, e, again, err)
		}
	})
}
