package l7

import (
	"net/http"
	"strconv"
	"strings"
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
	p.count.answered(status)
	head := append(fields{
		{Name: "Content-Type", Value: "application/grpc"},
		{Name: "Grpc-Status", Value: strconv.Itoa(grpcCode(status))},
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
