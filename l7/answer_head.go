package l7

import (
	"net/http"
	"strconv"
	"strings"
)

// headFacts is what a door has to know of the head of an answer that it writes.
type headFacts struct {
	length int64 // of the body; -1 if it is not known
	dated  bool  // there is a Date
}

// note takes a field of an answer with that status, and reports whether the client
// gets it.
func (h *headFacts) note(status int, f *field) (bool, error) {
	switch len(f.Name) {
	case len("Date"):
		h.dated = h.dated || strings.EqualFold(f.Name, "Date")
	case len("Content-Length"):
		if !strings.EqualFold(f.Name, "Content-Length") {
			break
		}
		if status == http.StatusNoContent {
			return false, nil // RFC 9110, section 8.6
		}
		n, err := strconv.ParseInt(f.Value, 10, 64)
		if err != nil {
			return false, errAborted
		}
		h.length = n
	}
	return true, nil
}
