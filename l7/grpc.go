package l7

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
)

// isGRPC reports whether a request is a call of gRPC. Such a client looks for the
// outcome in fields of its own, and takes what has none for a broken connection. All
// calls are POSTs: a GET that says so would have a cache on its way keep an error for
// others, as an answer with status 200.
func isGRPC(ex *exchange) bool {
	if ex.method != http.MethodPost {
		return false
	}
	rest, ok := strings.CutPrefix(ex.fields.get("Content-Type"), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// The codes of gRPC that our errors have. Which status has which is in gRPC's
// document "HTTP to gRPC Status Code Mapping".
const (
	grpcUnknown         = 2
	grpcDeadline        = 4
	grpcPermission      = 7
	grpcExhausted       = 8
	grpcUnimplemented   = 12
	grpcInternal        = 13
	grpcUnavailable     = 14
	grpcUnauthenticated = 16
)

// grpcCode returns what a status is in terms of gRPC.
func grpcCode(status int) int {
	switch status {
	case http.StatusBadRequest, http.StatusRequestHeaderFieldsTooLarge:
		return grpcInternal
	case http.StatusUnauthorized:
		return grpcUnauthenticated
	case http.StatusForbidden:
		return grpcPermission
	case http.StatusNotFound:
		return grpcUnimplemented
	case http.StatusRequestEntityTooLarge:
		return grpcExhausted
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return grpcUnavailable
	}
	return grpcUnknown
}

// tellGRPC gives an error of our own to a client of gRPC: an answer that has no
// body, and the outcome in its head ("Trailers-Only").
func (p *pipeline) tellGRPC(ex *exchange, status int, more []field) error {
	return p.tellOutcome(ex, status, grpcCode(status), more)
}

// tellOutcome is tellGRPC with another code than that of the status.
func (p *pipeline) tellOutcome(ex *exchange, status, code int, more []field) error {
	p.count.answered(status)
	head := append(fields{
		{Name: "Content-Type", Value: "application/grpc"},
		{Name: "Grpc-Status", Value: strconv.Itoa(code)},
		{Name: "Grpc-Message", Value: strconv.Itoa(status) + " " + http.StatusText(status)},
	}, more...)
	if err := p.writeHead(ex, http.StatusOK, head); err != nil {
		return err
	}
	if err := ex.answer.Finish(nil); err != nil {
		return err
	}
	ex.because(ownEnd(status), nil)
	return nil
}

// grpcOverdue reports whether err is that a server has given a call up whose deadline
// is over. Servers know it as well as the client that has set it, and may be quicker
// than that.
func grpcOverdue(ex *exchange, err error) bool {
	var reset *resetError
	if !errors.As(err, &reset) || reset.code != http2.ErrCodeCancel || !isGRPC(ex) || ex.trail.began.IsZero() {
		return false
	}
	limit, ok := grpcTimeout(ex.fields.get("Grpc-Timeout"))
	return ok && time.Since(ex.trail.began) >= limit
}

// grpcTimeout reads a timeout, at most eight digits and a unit; ok is false if it is
// none.
func grpcTimeout(text string) (limit time.Duration, ok bool) {
	if len(text) < 2 || len(text) > 9 {
		return 0, false
	}
	last := len(text) - 1
	n, err := strconv.ParseUint(text[:last], 10, 32)
	unit, known := grpcUnits[text[last]]
	if err != nil || !known {
		return 0, false
	}
	return min(time.Duration(n), math.MaxInt64/unit) * unit, true
}

var grpcUnits = map[byte]time.Duration{
	'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
}
