package control

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// open runs a socket for b and returns a client of it. It ends with the test.
func open(t *testing.T, b Backend) (*Client, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "control.sock")
	s, err := Listen(path, b, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is still there after the end: %v", err)
		}
	})
	return NewClient(path), path
}

func TestSocketIsTheAdministratorsAlone(t *testing.T) {
	_, path := open(t, Backend{})
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("mode %o, want 600", got)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("folder holds %v, %v; want the socket alone", left, err)
	}
}

func TestSecondApplianceIsRefused(t *testing.T) {
	_, path := open(t, Backend{})
	if _, err := Listen(path, Backend{}, zerolog.Nop()); err == nil || !strings.Contains(err.Error(), "another appliance") {
		t.Errorf("a second appliance on the socket: %v", err)
	}
}

func TestFileThatIsNoSocketIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "appliance.toml")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, Backend{}, zerolog.Nop()); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a socket in the place of a file: %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
		t.Errorf("the file holds %q, %v", text, err)
	}
}

func TestFrozenApplianceIsNotWaitedForForEver(t *testing.T) {
	frozen := make(chan struct{})
	defer close(frozen)
	c, _ := open(t, Backend{Status: func() Status { <-frozen; return Status{} }})
	c.patience = 50 * time.Millisecond
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("status of a frozen appliance: %v", err)
	}
}

func TestSocketOfACrashIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	s, err := Listen(path, Backend{}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

func TestCommandsReachTheBackend(t *testing.T) {
	var server ServerRequest
	c, _ := open(t, Backend{
		Status: func() Status { return Status{Node: "lb01", Pools: []Pool{{Name: "mysql"}}} },
		Failover: func(_ context.Context, r MoveRequest) ([]MoveResult, error) {
			return []MoveResult{{VRRP: r.VRRP, Active: "192.168.15.12", Seconds: 0.25}}, nil
		},
		Failback:  func(context.Context, MoveRequest) ([]MoveResult, error) { return nil, errors.New("not yielded") },
		Reload:    func(context.Context) error { return nil },
		SetServer: func(_ context.Context, r ServerRequest) error { server = r; return nil },
	})
	ctx := t.Context()
	if s, err := c.Status(ctx); err != nil || s.Node != "lb01" || len(s.Pools) != 1 {
		t.Errorf("Status: %+v, %v", s, err)
	}
	if m, err := c.Failover(ctx, MoveRequest{VRRP: "VI_1"}); err != nil || len(m) != 1 || m[0].VRRP != "VI_1" || m[0].Seconds != 0.25 {
		t.Errorf("Failover: %+v, %v", m, err)
	}
	_, err := c.Failback(ctx, MoveRequest{})
	if e, ok := errors.AsType[*Error](err); !ok || e.Status != http.StatusConflict || e.Message != "not yielded" {
		t.Errorf("Failback: %v, want a refusal with the backend's words", err)
	}
	if err := c.Reload(ctx); err != nil {
		t.Errorf("Reload: %v", err)
	}
	want := ServerRequest{Pool: "mysql", Server: "172.16.1.51:3306", State: "drain"}
	if err := c.SetServer(ctx, want); err != nil || server != want {
		t.Errorf("SetServer: %v; backend got %+v", err, server)
	}
}

func TestBadRequestsAreRefused(t *testing.T) {
	c, _ := open(t, Backend{SetServer: func(context.Context, ServerRequest) error { t.Error("reached the backend"); return nil }})
	for name, body := range map[string]any{
		"unknown field": map[string]string{"pol": "mysql"},
		"wrong type":    map[string]int{"pool": 1},
		"too large":     map[string]string{"pool": strings.Repeat("x", maxRequest+1)},
	} {
		err := c.call(t.Context(), http.MethodPost, "/v1/server", body, nil)
		if e, ok := errors.AsType[*Error](err); !ok || e.Status != http.StatusBadRequest {
			t.Errorf("%s: %v, want status 400", name, err)
		}
	}
}

func TestClientSaysThatNothingRuns(t *testing.T) {
	_, err := NewClient(filepath.Join(t.TempDir(), "none.sock")).Status(t.Context())
	if !errors.Is(err, ErrNotRunning) {
		t.Errorf("error %v, want ErrNotRunning", err)
	}
}
