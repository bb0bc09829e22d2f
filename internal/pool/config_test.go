package pool

import (
	"slices"
	"testing"
)

func TestValidate(t *testing.T) {
	ok := ServerConfig{Name: "a", Address: "192.0.2.1:80"}
	for _, tt := range []struct {
		name string
		cfg  Config
		want []string // keys with a problem
	}{
		{"plain", Config{Servers: []ServerConfig{ok}}, nil},
		{"IPv6", Config{Servers: []ServerConfig{{Address: "[2001:db8::1]:80", Weight: 256}}}, nil},
		{"empty", Config{}, []string{"servers"}},
		{"balance", Config{Balance: "fair", Servers: []ServerConfig{ok}}, []string{"balance"}},
		{"no port", Config{Servers: []ServerConfig{{Address: "192.0.2.1"}}}, []string{"servers[0].address"}},
		{"port 0", Config{Servers: []ServerConfig{{Address: "192.0.2.1:0"}}}, []string{"servers[0].address"}},
		{"host name", Config{Servers: []ServerConfig{{Address: "db1"}}}, []string{"servers[0].address"}},
		{"weight", Config{Servers: []ServerConfig{{Address: "192.0.2.1:80", Weight: 257}}}, []string{"servers[0].weight"}},
		{"same name", Config{Servers: []ServerConfig{ok, ok}}, []string{"servers[1].name"}},
		{"same address as a name", Config{Servers: []ServerConfig{
			{Address: "192.0.2.1:80"}, {Name: "192.0.2.1:80", Address: "192.0.2.2:80"},
		}}, []string{"servers[1].name"}},
	} {
		var got []string
		tt.cfg.Validate(func(key, _ string) { got = append(got, key) })
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: problems at %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestAdminAsText(t *testing.T) {
	for word, want := range map[string]Admin{"ready": Ready, "drain": Drain, "maint": Maint} {
		var got Admin
		if err := got.UnmarshalText([]byte(word)); err != nil || got != want || got.String() != word {
			t.Errorf("%s is read as %v, %v", word, got, err)
		}
	}
	var a Admin
	if a.UnmarshalText([]byte("up")) == nil {
		t.Error("a word that is no admin state was accepted")
	}
}
