package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"
)

// ErrNotRunning is the error of a client whose socket nobody answers.
var ErrNotRunning = errors.New("no appliance is running")

// Client talks to a running appliance. It is safe for concurrent use and needs
// no closing.
type Client struct {
	path string
	http http.Client
	// patience bounds what an appliance that is alive answers at once. The
	// commands that wait for connections or for the other node have no bound.
	patience time.Duration
}

// NewClient returns a client of the socket at path. Nothing is opened before
// the first call.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	return &Client{path: path, patience: 5 * time.Second, http: http.Client{
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
	}}
}

// Status asks for the node's status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	var s Status
	err := c.call(ctx, http.MethodGet, "/v1/status", nil, &s)
	return s, err
}

// Failover gives the node's virtual addresses to the other node. It returns
// when that is active, or with what prevented it.
func (c *Client) Failover(ctx context.Context, r MoveRequest) ([]MoveResult, error) {
	var m []MoveResult
	err := c.call(ctx, http.MethodPost, "/v1/failover", r, &m)
	return m, err
}

// Failback takes back what Failover gave away.
func (c *Client) Failback(ctx context.Context, r MoveRequest) ([]MoveResult, error) {
	var m []MoveResult
	err := c.call(ctx, http.MethodPost, "/v1/failback", r, &m)
	return m, err
}

// Reload makes the appliance read its file again. After an error the old
// configuration is in force.
func (c *Client) Reload(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v1/reload", struct{}{}, nil)
}

// Reopen makes the appliance open its access logs anew.
func (c *Client) Reopen(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	return c.call(ctx, http.MethodPost, "/v1/reopen", struct{}{}, nil)
}

// SetServer sets a server's administrative state.
func (c *Client) SetServer(ctx context.Context, r ServerRequest) error {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	return c.call(ctx, http.MethodPost, "/v1/server", r, nil)
}

// Sessions asks for the connections of layer 4 that are under way.
func (c *Client) Sessions(ctx context.Context) ([]Session, error) {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	var s []Session
	err := c.call(ctx, http.MethodGet, "/v1/sessions", nil, &s)
	return s, err
}

// Cut ends sessions.
func (c *Client) Cut(ctx context.Context, r CutRequest) (CutResult, error) {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	var result CutResult
	err := c.call(ctx, http.MethodPost, "/v1/cut", r, &result)
	return result, err
}

// call sends one request and decodes the answer into out, unless that is nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("control: %w", err)
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://appliance"+path, body)
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
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(response.Body).Decode(out); err != nil {
		return fmt.Errorf("control socket %s: the answer broke off: %w", c.path, err)
	}
	return nil
}

// refusal reads an answer that is no success.
func refusal(response *http.Response) error {
	var f failure
	if err := json.NewDecoder(response.Body).Decode(&f); err != nil || f.Error == "" {
		f.Error = "the appliance answered " + response.Status
	}
	return &Error{Status: response.StatusCode, Message: f.Error}
}

// explain turns a failed connection into words that say what to do.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("control socket %s: %w; start it with applianctl run, or name its socket with --socket", c.path, ErrNotRunning)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("control socket %s: the appliance does not answer; its process may be stopped", c.path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("control socket %s: permission denied; run this as the user that runs the appliance, usually root", c.path)
	}
	return fmt.Errorf("control socket %s: %w", c.path, err)
}
