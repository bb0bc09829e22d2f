package health

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// maxHTTPAnswer bounds what an http check reads of an answer, in bytes: all of
// its head, and of the body what then is left.
const maxHTTPAnswer = 64 << 10

// maxInterim bounds how many interim answers (1xx) may come before the answer.
const maxInterim = 5

// defaultStatus is the list of statuses that pass when the check has none.
const defaultStatus = "200-399"

// Why a server's answer is no answer.
var (
	errNotHTTP  = errors.New("the answer is not HTTP")
	errLongHead = fmt.Errorf("the head of the answer is longer than %d KiB", maxHTTPAnswer>>10)
)

// prepareHTTP returns a probe that passes when the target answers the check's
// request with a status in the check's list, and with a body that contains what
// the check expects. A redirect is an answer, not an order.
//
// Each check has a connection of its own, because one that was kept would go
// on passing while the server no longer accepts new ones. It does without
// http.Transport, which would follow the environment to a proxy, and which
// writes what a server says unasked to the log of the whole process.
func prepareHTTP(target Target) (probe, error) {
	check := target.Check
	passing, err := parseStatus(check.Status)
	if err != nil {
		return nil, err
	}
	want, err := newPattern(check)
	if err != nil {
		return nil, err
	}
	request, err := newRequest(check)
	if err != nil {
		return nil, err
	}
	if request.Host == "" {
		request.Host = target.Address.Host()
	}
	ask, err := newHTTP1Asker(target, request, want)
	if check.HTTP == http2Version {
		by2 := newHTTP2Asker(target, check.Type == HTTPS, request, nil)
		ask = func(ctx context.Context, found *finding) (int, []byte, error) {
			answer, err := by2(ctx, found)
			if answer.status != 0 && (want.any() || want.in(answer.body)) {
				err = nil // what is wanted is there
			}
			return answer.status, answer.body, err
		}
	}
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (finding, error) {
		var found finding
		status, body, err := ask(ctx, &found)
		if status != 0 && !passes(passing, status) {
			return finding{}, fmt.Errorf("status %d, want %s", status, orDefault(check.Status, defaultStatus))
		}
		if err != nil {
			return finding{}, err
		}
		if !want.in(body) {
			return finding{}, fmt.Errorf("status %d, but the body has no %v", status, want)
		}
		found.words = fmt.Sprintf("status %d", status)
		return found, nil
	}, nil
}

// newHTTP1Asker returns what asks request by HTTP/1.1, and wants that of the body.
func newHTTP1Asker(target Target, request *http.Request, want pattern) (func(ctx context.Context, found *finding) (int, []byte, error), error) {
	var text bytes.Buffer
	if err := request.Write(&text); err != nil {
		return nil, err
	}
	var client *tlsClient
	if target.Check.Type == HTTPS {
		client = newTLSClient(target.Check, hostName(target.Check.Host, target.Address), "http/1.1")
	}
	reader := bufio.NewReaderSize(nil, 1<<10) // most heads are short
	return func(ctx context.Context, found *finding) (int, []byte, error) {
		conn, warning, err := dialSecured(ctx, target.Address, client)
		if err != nil {
			return 0, nil, err
		}
		defer func() { _ = conn.Close() }()
		found.warning = warning
		if _, err := conn.Write(text.Bytes()); err != nil {
			return 0, nil, err
		}
		return readAnswer(conn, reader, request, want)
	}, nil
}

// passes reports whether a status is in a list.
func passes(passing []statusRange, status int) bool {
	for _, r := range passing {
		if r.low <= status && status <= r.high {
			return true
		}
	}
	return false
}

// readAnswer reads the answer to request, by way of reader, and returns its status, 0 when it has
// none. Unless everything will do, it also returns the body, as far as it is in
// bounds.
func readAnswer(conn io.Reader, reader *bufio.Reader, request *http.Request, want pattern) (status int, body []byte, err error) {
	bounded := &io.LimitedReader{R: conn, N: maxHTTPAnswer}
	reader.Reset(bounded)
	for range maxInterim + 1 {
		answer, err := http.ReadResponse(reader, request)
		if err != nil {
			return 0, nil, answerError(err, bounded.N == 0)
		}
		if answer.StatusCode/100 == 1 && answer.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		defer func() { _ = answer.Body.Close() }()
		if want.any() {
			// The status is the verdict. The body is read only so that the
			// server need not see its answer cut off.
			_, _ = io.Copy(io.Discard, answer.Body)
			return answer.StatusCode, nil, nil
		}
		body, err := io.ReadAll(answer.Body)
		if err != nil && bounded.N > 0 && !want.in(body) {
			return answer.StatusCode, nil, answerError(err, false)
		}
		return answer.StatusCode, body, nil
	}
	return 0, nil, errNotHTTP
}

// answerError returns why an answer could not be read: the connection broke,
// which err tells, or what came is no answer.
func answerError(err error, tooLong bool) error {
	var broken net.Error
	switch {
	case errors.As(err, &broken):
		return err
	case tooLong:
		return errLongHead
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return err
	default:
		return errNotHTTP
	}
}

// newRequest returns the request of an http check, without the address to send
// it to. Host is empty unless the check names one.
func newRequest(check Config) (*http.Request, error) {
	const unknown = "http://check"
	if _, err := url.ParseRequestURI(orDefault(check.Path, "/")); err != nil {
		return nil, fmt.Errorf("%q is no path of a request", check.Path)
	}
	request, err := http.NewRequest(orDefault(check.Method, http.MethodGet), unknown+orDefault(check.Path, "/"), nil)
	if err != nil {
		return nil, fmt.Errorf("%q is no method of a request", check.Method)
	}
	if strings.ContainsAny(check.Host, " \t\r\n/?#@") {
		return nil, fmt.Errorf("%q is no host of a request", check.Host)
	}
	request.Host = check.Host
	request.Close = true
	request.Header.Set("User-Agent", "applianctl")
	check.Headers.each(request.Header.Set)
	return request, nil
}
