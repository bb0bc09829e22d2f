package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whoever repairs a broken file must reach the appliance that runs meanwhile.
func TestSocketOfABrokenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "appliance.toml")
	if got := SocketOf(path); got != DefaultSocket {
		t.Errorf("of a missing file: %q", got)
	}
	for text, want := range map[string]string{
		"[admin]\nsocket = \"/run/other.sock\"\nnonsense = 1\n":     "/run/other.sock",
		"[admin]\nsocket = \"/run/other.sock\"\n[[vrrp]]\nname =\n": "/run/other.sock",
		"[admin]\nsocket = 7\n":                                     DefaultSocket,
		"= = =":                                                     DefaultSocket,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := SocketOf(path); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// What counts is the path that will be bound, not the one in the file.
func TestSocketPathIsBounded(t *testing.T) {
	long := strings.Repeat("d", 60)
	for name, c := range map[string]struct {
		folder, socket string
		ok             bool
	}{
		"absolute, as long as can be": {"/etc", "/" + strings.Repeat("s", 106), true},
		"absolute, too long":          {"/etc", "/" + strings.Repeat("s", 107), false},
		"relative, as long as can be": {"/" + long, strings.Repeat("s", 45), true},
		"relative, too long":          {"/" + long, strings.Repeat("s", 46), false},
		"shorter than it looks":       {"/etc", strings.Repeat("x/../", 30) + "s", true},
	} {
		_, err := Parse(c.folder+"/f.toml", []byte("[admin]\nsocket = \""+c.socket+"\"\n"+service1))
		if c.ok != (err == nil) || err != nil && !strings.Contains(err.Error(), "f.toml:2:1: admin.socket: the path has 108 bytes") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
