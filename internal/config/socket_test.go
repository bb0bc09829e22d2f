package config

import (
	"os"
	"path/filepath"
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
		"[admin]\nsocket = 7\n": DefaultSocket,
		"= = =":                 DefaultSocket,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := SocketOf(path); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
