package health

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// healthCheck is the method that servers of gRPC are asked by: the protocol is
// gRPC's document "GRPC Health Checking Protocol".
const healthCheck = "/grpc.health.v1.Health/Check"

// servingStatus are the states of a service.
var servingStatus = []string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}

// grpcCodes are the codes that a call ends with, by number.
var grpcCodes = []string{"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"}

var errNotGRPC = errors.New("the answer is not gRPC")

// prepareGRPC returns a probe that passes when the target says that the service of
// the check is serving.
func prepareGRPC(target Target) (probe, error) {
	check := target.Check
	request, err := newRequest(Config{Method: http.MethodPost, Path: healthCheck, Host: check.Host, Headers: check.Headers})
	if err != nil {
		return nil, err
	}
	if request.Host == "" {
		request.Host = target.Address.Host()
	}
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("Te", "trailers")
	ask := newHTTP2Asker(target, check.TLS, request, grpcMessage(protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), check.Service)))
	return func(ctx context.Context) (finding, error) {
		var found finding
		answer, err := ask(ctx, &found)
		if err != nil {
			return finding{}, err
		}
		if err := servingIn(&answer); err != nil {
			return finding{}, err
		}
		found.words = "SERVING"
		return found, nil
	}, nil
}

// newHTTP2Asker returns what asks request by HTTP/2, on a new connection each time.
func newHTTP2Asker(target Target, encrypted bool, request *http.Request, body []byte) func(ctx context.Context, found *finding) (http2Answer, error) {
	scheme := "http"
	var client *tlsClient
	if encrypted {
		scheme = "https"
		client = newTLSClient(target.Check, hostName(target.Check.Host, target.Address), protocolHTTP2)
	}
	text := http2Text(request, scheme, body)
	reader := bufio.NewReaderSize(nil, 1<<10)
	return func(ctx context.Context, found *finding) (http2Answer, error) {
		conn, warning, err := dialSecured(ctx, target, client)
		if err != nil {
			return http2Answer{}, err
		}
		defer func() { _ = conn.Close() }()
		if err := agreed(conn); err != nil {
			return http2Answer{}, err
		}
		found.warning = warning
		return askHTTP2(conn, reader, text)
	}
}

// grpcMessage returns a message as gRPC frames it: not compressed, with its length.
func grpcMessage(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// servingIn returns why an answer does not say that the service is serving.
func servingIn(a *http2Answer) error {
	if a.status != http.StatusOK {
		return fmt.Errorf("status %d, which is no answer of gRPC", a.status)
	}
	if !strings.HasPrefix(a.field("content-type"), "application/grpc") {
		return errNotGRPC
	}
	code, err := strconv.Atoi(a.field("grpc-status"))
	if err != nil || code < 0 {
		return errNotGRPC
	}
	if code != 0 {
		name := strconv.Itoa(code)
		if code < len(grpcCodes) {
			name = grpcCodes[code]
		}
		if message, err := url.PathUnescape(a.field("grpc-message")); err == nil && message != "" {
			name += ": " + message
		}
		return errors.New(name)
	}
	status, err := servingOf(a.body)
	switch {
	case err != nil:
		return err
	case status < uint64(len(servingStatus)) && servingStatus[status] != "SERVING":
		return fmt.Errorf("the service is %s", servingStatus[status])
	case status >= uint64(len(servingStatus)):
		return fmt.Errorf("the service is in state %d, which nobody knows", status)
	}
	return nil
}

// servingOf reads the one message of an answer.
func servingOf(body []byte) (status uint64, err error) {
	if len(body) < 5 || body[0] != 0 || uint64(binary.BigEndian.Uint32(body[1:5])) != uint64(len(body)-5) {
		return 0, errNotGRPC
	}
	for b := body[5:]; len(b) > 0; {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return 0, errNotGRPC
		}
		b = b[n:]
		if number == 1 && kind == protowire.VarintType {
			if status, n = protowire.ConsumeVarint(b); n < 0 {
				return 0, errNotGRPC
			}
		} else if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return 0, errNotGRPC
		}
		b = b[n:]
	}
	return status, nil
}
