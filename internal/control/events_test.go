package control

import (
	"context"
	"errors"
	"net/http"
	"os/user"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/events"
)

func TestEventsAreToldAndFollowed(t *testing.T) {
	history := events.Open("", zerolog.Nop())
	defer history.Close()
	for _, text := range []string{"a", "b", "c"} {
		history.Add(events.Start, "node lb01", text)
	}
	c, _ := open(t, Backend{Events: history.After})
	read := func(r EventsRequest) (texts []string) {
		t.Helper()
		if err := c.Events(t.Context(), r, func(e Event) error { texts = append(texts, e.Text); return nil }); err != nil {
			t.Error(err)
		}
		return texts
	}
	for _, tt := range []struct {
		r    EventsRequest
		want []string
	}{
		{EventsRequest{}, []string{"a", "b", "c"}},
		{EventsRequest{Last: 2}, []string{"b", "c"}},
		{EventsRequest{Last: 9}, []string{"a", "b", "c"}},
		{EventsRequest{After: 1, Last: 1}, []string{"c"}},
		{EventsRequest{After: 3}, nil},
	} {
		if got := read(tt.r); !slices.Equal(got, tt.want) {
			t.Errorf("%+v: %q, want %q", tt.r, got, tt.want)
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen := make(chan string)
	ended := make(chan error)
	go func() {
		ended <- c.Events(ctx, EventsRequest{Last: 1, Follow: true}, func(e Event) error { seen <- e.Text; return nil })
	}()
	if got := <-seen; got != "c" {
		t.Errorf("first followed %q", got)
	}
	history.Add(events.Start, "node lb01", "d")
	if got := <-seen; got != "d" {
		t.Errorf("then %q", got)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

// A follower must not hold a stop up, and hears the last of it.
func TestFollowersHearTheLastEventAndEnd(t *testing.T) {
	history := events.Open("", zerolog.Nop())
	defer history.Close()
	path := filepath.Join(t.TempDir(), "control.sock")
	s, err := Listen(path, Backend{Events: history.After}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- s.Run(ctx) }()
	history.Add(events.Start, "node lb01", "started")
	var last string
	following, ended := make(chan struct{}), make(chan error)
	go func() {
		ended <- NewClient(path).Events(t.Context(), EventsRequest{Follow: true}, func(e Event) error {
			if last == "" {
				close(following)
			}
			last = e.Text
			return nil
		})
	}()
	<-following
	history.Add(events.Stop, "node lb01", "stopped")
	begun := time.Now()
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 900*time.Millisecond {
		t.Errorf("the stop took %v", took)
	}
	if err := <-ended; !errors.Is(err, ErrNotRunning) || last != "stopped" {
		t.Errorf("the follower heard %q last and ended with %v", last, err)
	}
}

func TestBadEventRequestsAreRefused(t *testing.T) {
	c, _ := open(t, Backend{Events: func(uint64) ([]Event, <-chan struct{}) { t.Error("reached the backend"); return nil, nil }})
	for _, query := range []string{"after=x", "after=-1", "last=-1", "last=99999999999", "follow=maybe", "since=1"} {
		err := c.call(t.Context(), http.MethodGet, "/v1/events?"+query, nil, nil)
		if e, ok := errors.AsType[*Error](err); !ok || e.Status != http.StatusBadRequest {
			t.Errorf("%s: %v, want status 400", query, err)
		}
	}
}

// The kernel says who is at the other end of the socket.
func TestCallerIsKnown(t *testing.T) {
	var caller string
	c, _ := open(t, Backend{Reload: func(ctx context.Context) error { caller = Caller(ctx); return nil }})
	if err := c.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if caller != me.Username {
		t.Errorf("called by %q, want %q", caller, me.Username)
	}
	if got := userName(4294967294); got != "uid 4294967294" {
		t.Errorf("somebody unknown is %q", got)
	}
	if got := Caller(WithCaller(t.Context(), "root on lb02")); got != "root on lb02" {
		t.Errorf("%q", got)
	}
}
