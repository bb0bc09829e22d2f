package guard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/link"
)

// The test's program plays two parts besides its own: the guard process, and
// an appliance that is killed.
const (
	part      = "GUARD_TEST_PART"
	sweptInto = "GUARD_TEST_SWEPT"
)

func TestMain(m *testing.M) {
	switch os.Getenv(part) {
	case "guard":
		files, err := NewFiles(os.Stdin)
		if err == nil {
			err = Watch(files, scribe(os.Getenv(sweptInto)))
		}
		if err != nil {
			os.Exit(1)
		}
	case "victim":
		victim()
	default:
		os.Exit(m.Run())
	}
}

// scribe is a Broom that writes down what it would have swept.
type scribe string

func (scribe) Shut([]*os.File) error { return nil }

func (scribe) Release(Holding) error { return nil }

func (scribe) Remove([]link.Filter) error { return nil }

func (s scribe) Farewell(h Holding) error {
	f, err := os.OpenFile(string(s), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, h.Interface, h.Addresses, string(h.Farewells[0].Message))
	return err
}

func guardCommand(swept string) func() *exec.Cmd {
	return func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), part+"=guard", sweptInto+"="+swept)
		return cmd
	}
}

func holding(iface string) Holding {
	return Holding{Interface: iface, Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.15.3/24")}, Farewells: []Farewell{{Message: []byte("bye")}}}
}

// victim holds two, lets go of one, says so, and waits to be killed.
func victim() {
	g, err := Start(guardCommand(os.Getenv(sweptInto)), zerolog.Nop())
	if err != nil {
		os.Exit(1)
	}
	g.Hold("VI_1", holding("eth0"))
	g.Hold("VI_2", holding("eth1"))
	g.Hold("VI_2", Holding{})
	fmt.Println("held")
	select {}
}

func TestGuardSweepsAfterAKill(t *testing.T) {
	swept := filepath.Join(t.TempDir(), "swept")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), part+"=victim", sweptInto+"="+swept)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("held\n"))); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed, as it should be
	want := "eth0 [192.168.15.3/24] bye\n"
	deadline := time.Now().Add(10 * time.Second)
	for {
		text, _ := os.ReadFile(swept)
		if string(text) == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("swept %q, want %q", text, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestGuardThatIsDismissedSweepsNothing(t *testing.T) {
	swept := filepath.Join(t.TempDir(), "swept")
	g, err := Start(guardCommand(swept), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	g.Hold("VI_1", holding("eth0"))
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(swept); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("swept %q, %v", text, err)
	}
	g.Hold("VI_1", holding("eth0")) // too late, and no harm
}

// What the guard keeps ends when it is given something else, or with it, and not
// with the appliance.
func TestGuardKeepsFiles(t *testing.T) {
	g, err := Start(guardCommand(filepath.Join(t.TempDir(), "swept")), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	// A pipe of which the guard alone has the writing end has no end.
	pipe := func() *os.File {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		g.Keep([]*os.File{w})
		return r
	}
	ended := func(r *os.File) bool {
		r.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err := r.Read(make([]byte, 1))
		return errors.Is(err, io.EOF)
	}
	first := pipe()
	if ended(first) {
		t.Error("the guard keeps nothing")
	}
	second := pipe()
	first.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := first.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("what was kept before is kept still: %v", err)
	}
	if ended(second) {
		t.Error("the guard keeps nothing any more")
	}
	g.Hold("VI_1", holding("eth0")) // lines without files go between
	g.Keep(nil)
	second.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := second.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("kept after it was to be given up: %v", err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
}

// broom remembers what it swept.
type broom struct {
	shut  bool
	swept []string
	err   error

	mu      sync.Mutex
	parted  []string
	removed []link.Filter
}

func (b *broom) Shut([]*os.File) error {
	b.shut = true
	return b.err
}

func (b *broom) Release(h Holding) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.shut || len(b.parted) > 0 {
		return errors.New("an address went before the door was shut, or after a farewell")
	}
	b.swept = append(b.swept, h.Interface)
	return b.err
}

func (b *broom) Farewell(h Holding) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.parted = append(b.parted, h.Interface)
	return b.err
}

func (b *broom) Remove(filters []link.Filter) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.removed = append(b.removed, filters...)
	return b.err
}

func TestWatch(t *testing.T) {
	line := func(m message) string {
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(text) + "\n"
	}
	hold := line(message{Name: "b", Holding: holding("eth1")}) + line(message{Name: "a", Holding: holding("eth0")})
	for name, c := range map[string]struct {
		pipe string
		want []string
	}{
		"death":             {hold, []string{"eth0", "eth1"}},
		"death in a line":   {hold + `{"Name":"c","Hol`, []string{"eth0", "eth1"}},
		"garbage":           {hold + "\x00\xff", []string{"eth0", "eth1"}},
		"let go":            {hold + line(message{Name: "a"}), []string{"eth1"}},
		"changed":           {hold + line(message{Name: "a", Holding: holding("eth7")}), []string{"eth7", "eth1"}},
		"good-bye":          {hold + line(message{Goodbye: true}), nil},
		"death at birth":    {"", nil},
		"death after sweep": {hold + line(message{Name: "a"}) + line(message{Name: "b"}), nil},
	} {
		var b broom
		if err := Watch(bytes.NewReader([]byte(c.pipe)), &b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		slices.Sort(b.parted) // they go at the same time
		wantParted := slices.Sorted(slices.Values(c.want))
		if !slices.Equal(b.swept, c.want) || !slices.Equal(b.parted, wantParted) {
			t.Errorf("%s: swept %v, farewells of %v, want %v", name, b.swept, b.parted, c.want)
		}
	}
	filters := line(message{Name: "x", Filters: &[]link.Filter{{Interface: 2, Program: 7}}}) + line(message{Name: "y", Filters: &[]link.Filter{{Interface: 3, Program: 8}}}) +
		line(message{Name: "x", Filters: &[]link.Filter{}})
	for pipe, want := range map[string][]link.Filter{filters: {{Interface: 3, Program: 8}}, filters + line(message{Goodbye: true}): nil} {
		var b broom
		if err := Watch(strings.NewReader(pipe), &b); err != nil || !slices.Equal(b.removed, want) {
			t.Errorf("filters %v removed, %v; want %v", b.removed, err, want)
		}
	}
	b := broom{err: errors.New("no such interface")}
	if err := Watch(strings.NewReader(hold), &b); err == nil || len(b.swept) != 2 || len(b.parted) != 2 {
		t.Errorf("one failure must not keep it from the rest: swept %v, error %v", b.swept, err)
	}
}

// The guard may have ended before the pipe to it is closed: that is no error of
// an appliance that stops in order.
func TestGuardThatEndsFirstIsDismissedWithoutAnError(t *testing.T) {
	g := &Guard{command: guardCommand(filepath.Join(t.TempDir(), "swept")), log: zerolog.Nop()}
	c, err := g.launch()
	if err != nil {
		t.Fatal(err)
	}
	g.tell(c, message{Goodbye: true})
	c.ended <- <-c.ended
	if err := g.dismiss(c); err != nil {
		t.Error(err)
	}
}
