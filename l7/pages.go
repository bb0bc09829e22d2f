package l7

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"
)

// maxPage bounds the file of a page, in bytes.
const maxPage = 1 << 20

// Respond is a fixed answer.
type Respond struct {
	// Status is 200 to 599; default 200.
	Status int `toml:"status"`
	// Body is what the answer says; default nothing.
	Body string `toml:"body"`
	// ContentType is the type of the body; default "text/plain; charset=utf-8".
	ContentType string `toml:"content_type"`
}

func (r *Respond) validate(at string, problem func(key, message string)) {
	if r.Status != 0 && (r.Status < 200 || r.Status > 599) {
		problem(at+".status", fmt.Sprintf("status %d is no final one; use 200 to 599", r.Status))
	}
	if (r.Status == http.StatusNoContent || r.Status == http.StatusNotModified) && r.Body != "" {
		problem(at+".body", fmt.Sprintf("an answer with status %d has no body", r.Status))
	}
	if err := validText(r.ContentType); err != nil {
		problem(at+".content_type", err.Error())
	}
}

// Maintenance is a page for when there is nothing else to show.
type Maintenance struct {
	// Page is the file that is shown while no server is usable; required.
	Page string `toml:"page"`
	// Active shows it at once, whether servers are usable or not.
	Active bool `toml:"active"`
	// RetryAfter is when clients are told to come again; default 1 m.
	RetryAfter time.Duration `toml:"retry_after"`
}

// EffectiveRetryAfter returns RetryAfter with its default applied.
func (m Maintenance) EffectiveRetryAfter() time.Duration {
	if m.RetryAfter == 0 {
		return time.Minute
	}
	return m.RetryAfter
}

// page is an answer's body with its type.
type page struct {
	body string
	kind string
}

// loadPage reads the file of a page.
func loadPage(path string) (*page, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxPage {
		return nil, fmt.Errorf("%s is no file of at most 1 MiB", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return &page{string(b), contentType(path)}, nil
}

// errorStatus returns the status that a key of error_pages stands for.
func errorStatus(key string) (int, error) {
	n, err := strconv.Atoi(key)
	if err != nil || n < 400 || n > 599 || len(key) != 3 {
		return 0, fmt.Errorf("%q is no status of an error, 400 to 599", key)
	}
	return n, nil
}

// maintenance is a page, ready to be shown.
type maintenance struct {
	page       *page
	active     bool
	retryAfter string
}

func newMaintenance(m *Maintenance) (*maintenance, error) {
	if m == nil {
		return nil, nil
	}
	pg, err := loadPage(m.Page)
	if err != nil {
		return nil, fmt.Errorf("maintenance.page: %w", err)
	}
	return &maintenance{pg, m.Active, strconv.Itoa(int(m.EffectiveRetryAfter().Seconds()))}, nil
}

// maintain shows the page.
func (p *pipeline) maintain(ex *exchange, m *maintenance) error {
	return p.tell(ex, http.StatusServiceUnavailable, m.page,
		field{Name: "Retry-After", Value: m.retryAfter}, field{Name: "Cache-Control", Value: "no-store"})
}

// fixed is a fixed answer, ready to be given.
type fixed struct {
	status int
	page   *page
}

func newFixed(r *Respond) *fixed {
	f := &fixed{r.Status, &page{r.Body, r.ContentType}}
	if f.status == 0 {
		f.status = http.StatusOK
	}
	if f.page.kind == "" {
		f.page.kind = plainText
	}
	return f
}

// shownInstead returns the page that is shown in the place of a server's answer,
// nil for none.
func shownInstead(ex *exchange, status int) *page {
	if ex.rules == nil || !ex.rules.intercept {
		return nil
	}
	return ex.rules.pages[status]
}

// keptOfError returns what a client needs of an answer whose body it does not get.
func keptOfError(in fields) fields {
	var out fields
	for _, f := range in {
		switch http.CanonicalHeaderKey(f.Name) {
		case "Www-Authenticate", "Retry-After", "Allow", "Set-Cookie", "Vary":
			out = append(out, f)
		}
	}
	return out
}
