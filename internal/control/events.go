package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/events"
)

// Event is one entry of the event history, and one line of the answer to GET
// /v1/events and of the file.
type Event = events.Event

// EventsRequest says which events are wanted.
type EventsRequest struct {
	// After leaves out those up to this Seq.
	After uint64
	// Last leaves out all but the latest so many; 0 leaves out none.
	Last int
	// Follow goes on with new events as they happen.
	Follow bool
}

func (r EventsRequest) query() string {
	q := url.Values{}
	if r.After > 0 {
		q.Set("after", strconv.FormatUint(r.After, 10))
	}
	if r.Last > 0 {
		q.Set("last", strconv.Itoa(r.Last))
	}
	if r.Follow {
		q.Set("follow", "true")
	}
	return q.Encode()
}

// parseEventsRequest reads a query.
func parseEventsRequest(q url.Values) (r EventsRequest, err error) {
	for key, values := range q {
		value := values[0]
		switch key {
		case "after":
			r.After, err = strconv.ParseUint(value, 10, 64)
		case "last":
			var last uint64
			last, err = strconv.ParseUint(value, 10, 31)
			r.Last = int(last)
		case "follow":
			r.Follow, err = strconv.ParseBool(value)
		default:
			err = errors.New("unknown parameter; known: after, last, follow")
		}
		if err != nil {
			return r, &Error{Status: http.StatusBadRequest, Message: fmt.Sprintf("%s: %v", key, err)}
		}
	}
	return r, nil
}

// serveEvents answers GET /v1/events with one event a line. A follower's answer
// goes on until it leaves, or the socket closes, or it does not take in the time
// patience, if that is not 0, what there is.
func serveEvents(log zerolog.Logger, after func(uint64) ([]Event, <-chan struct{}), closing <-chan struct{}, patience time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, err := parseEventsRequest(r.URL.Query())
		if err != nil {
			answer(w, log, nil, err)
			return
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		list, changed := after(q.After)
		if q.Last > 0 {
			list = list[max(0, len(list)-q.Last):]
		}
		seen, lines, door := q.After, json.NewEncoder(w), http.NewResponseController(w)
		for over := false; ; {
			if patience > 0 && door.SetWriteDeadline(time.Now().Add(patience)) != nil {
				return
			}
			for _, e := range list {
				if lines.Encode(e) != nil {
					return // the follower has left
				}
				seen = e.Seq
			}
			if !q.Follow || over {
				return
			}
			// The first time, the head as well: whoever follows knows that it does.
			if door.Flush() != nil {
				return
			}
			select {
			case <-changed:
			case <-r.Context().Done():
				return
			case <-closing:
				over = true // but for what has just happened
			}
			list, changed = after(seen)
		}
	}
}

// Events calls each for the events that r asks for, in order, until there are no
// more of them, or each returns an error, which ends it. Following ends with ctx,
// or with ErrNotRunning when the appliance stops.
func (c *Client) Events(ctx context.Context, r EventsRequest, each func(Event) error) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://appliance/v1/events?"+r.query(), nil)
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return c.explain(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return refusal(response)
	}
	lines := json.NewDecoder(response.Body)
	for {
		var e Event
		switch err := lines.Decode(&e); {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && r.Follow:
			return fmt.Errorf("control socket %s: the appliance has stopped: %w", c.path, ErrNotRunning)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("control socket %s: the answer broke off: %w", c.path, err)
		}
		if err := each(e); err != nil {
			return err
		}
	}
}
