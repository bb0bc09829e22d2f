package appliance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"appliance/internal/pool"
)

func wishedPools() map[string]*pool.Pool {
	two := func(name string) *pool.Pool {
		return pool.New(pool.Config{Name: name, Servers: []pool.ServerConfig{{Name: "a", Address: "10.0.0.1:80"}, {Address: "unix:/run/b"}}})
	}
	return map[string]*pool.Pool{"web": two("web"), "db": two("db")}
}

// wished returns the states of the servers, web's before db's.
func wished(pools map[string]*pool.Pool) string {
	var all []string
	for _, name := range []string{"web", "db"} {
		for _, s := range pools[name].Servers() {
			all = append(all, s.Stats().Admin.String())
		}
	}
	return strings.Join(all, " ")
}

func TestWishesOutliveTheProcess(t *testing.T) {
	events := filepath.Join(t.TempDir(), "events.jsonl")
	w, pools := newWishes(events), wishedPools()
	set := func(p, server string, state pool.Admin) {
		t.Helper()
		if err := pools[p].SetAdmin(server, state); err != nil {
			t.Fatal(err)
		}
		if err := w.keep(pools); err != nil {
			t.Fatal(err)
		}
	}
	again := func(want string) {
		t.Helper()
		w, pools = newWishes(events), wishedPools()
		if err := w.restore(pools); err != nil {
			t.Fatal(err)
		}
		if got := wished(pools); got != want {
			t.Errorf("afterwards %s, want %s", got, want)
		}
	}
	again("ready ready ready ready") // there is no file yet
	set("web", "a", pool.Maint)
	set("db", "unix:/run/b", pool.Drain)
	again("maint ready ready drain")
	// What the file of the appliance has no more is forgotten.
	delete(pools, "db")
	if err := w.keep(pools); err != nil {
		t.Fatal(err)
	}
	again("maint ready ready ready")
	set("web", "a", pool.Ready)
	again("ready ready ready ready")
	if left, err := filepath.Glob(filepath.Dir(events) + "/*"); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

// What cannot be read or written is said; without a history nothing is kept.
func TestWishesThatCannotBeKept(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "servers.json")
	for _, text := range []string{"", "{", `{"web":{"a":"fine"}}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := newWishes(folder + "/events.jsonl").restore(wishedPools()); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("a file of %q: %v", text, err)
		}
	}
	pools := wishedPools()
	if err := pools["web"].SetAdmin("a", pool.Maint); err != nil {
		t.Fatal(err)
	}
	if err := newWishes(path + "/events.jsonl").keep(pools); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a folder that is none: %v", err)
	}
	w := newWishes("")
	if err := w.keep(pools); err != nil {
		t.Error(err)
	}
	if err := w.restore(pools); err != nil {
		t.Error(err)
	}
}
