package l7

import (
	"errors"
	"strings"
)

// errLoop says that a request has been here before.
var errLoop = errors.New("the request has come by here before: its Via names this service")

// via is what a service tells servers of itself in the field Via (RFC 9110, section
// 7.6.3); empty: nothing.
type via struct{ name, by10, by11, by2 string }

func newVia(name string) via {
	if name == "" {
		return via{}
	}
	return via{name, "1.0 " + name, "1.1 " + name, "2.0 " + name}
}

// loops reports whether a request has come by here before.
func (v *via) loops(request fields) bool {
	if v.name == "" {
		return false
	}
	for step := range request.tokens("Via") {
		// The version, who it was, perhaps a comment.
		if words := strings.Fields(step); len(words) > 1 && strings.EqualFold(words[1], v.name) {
			return true
		}
	}
	return false
}

// tell appends the field to those that a server gets: behind those of others, for the
// order is that of the way.
func (v *via) tell(ex *exchange) {
	if v.name == "" {
		return
	}
	step := v.by11
	switch ex.trail.protocol {
	case protocolName2:
		step = v.by2
	case "HTTP/1.0":
		step = v.by10
	}
	ex.out.request = append(ex.out.request, field{Name: "Via", Value: step})
}
