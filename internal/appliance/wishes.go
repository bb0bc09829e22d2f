package appliance

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"sync"

	"appliance/internal/pool"
)

// wishes keeps what administrators have set of servers in a file, so that one that is
// in maintenance stays so when the process is started anew.
type wishes struct {
	path string // empty: they end with the process

	mu   sync.Mutex
	kept adminStates // what the file says; guarded by mu
}

// adminStates are those of servers that are not ready, by pool and name.
type adminStates map[string]map[string]pool.Admin

// newWishes returns what keeps them beside the event history; without a history
// nothing is kept.
func newWishes(events string) *wishes {
	if events == "" {
		return new(wishes)
	}
	return &wishes{path: filepath.Join(filepath.Dir(events), "servers.json")}
}

// restore sets the servers of pools to what the file says. What it says of others is
// forgotten.
func (w *wishes) restore(pools map[string]*pool.Pool) error {
	if w.path == "" {
		return nil
	}
	text, err := os.ReadFile(w.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var said adminStates
	if err := json.Unmarshal(text, &said); err != nil {
		return fmt.Errorf("%s: %w", w.path, err)
	}
	for name, servers := range said {
		for label, state := range servers {
			if p := pools[name]; p != nil {
				_ = p.SetAdmin(label, state) // fails only without such a server
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = said
	return nil
}

// keep has the file say what is set of the servers of pools.
func (w *wishes) keep(pools map[string]*pool.Pool) error {
	if w.path == "" {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	are := adminStates{}
	for name, p := range pools {
		for _, s := range p.Servers() {
			state := s.Stats().Admin
			if state == pool.Ready {
				continue
			}
			if are[name] == nil {
				are[name] = make(map[string]pool.Admin)
			}
			are[name][s.Label()] = state
		}
	}
	if len(are) == len(w.kept) && (len(are) == 0 || reflect.DeepEqual(are, w.kept)) {
		return nil
	}
	if err := w.write(are); err != nil {
		return err
	}
	w.kept = are
	return nil
}

// write writes the file as a whole, or removes it where nothing is set, and returns
// when that is on the disk.
func (w *wishes) write(states adminStates) error {
	if len(states) == 0 {
		if err := os.Remove(w.path); !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(err, flushFolder(w.path))
		}
		return nil
	}
	text, err := json.Marshal(states)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(w.path), 0o755); err != nil {
		return err
	}
	draft := w.path + ".new"
	f, err := os.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_SYNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(draft, w.path); err != nil {
		return err
	}
	return flushFolder(w.path)
}

// flushFolder returns when it is on the disk which files the folder of path has.
func flushFolder(path string) error {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
