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

// httpCheck is what an http check asks, and what it makes of the answer.
type httpCheck struct {
	request *http.Request
	passing []statusRange
	status  string // passing, in the words of the file
	want    pattern
	unnamed string // the host asked for if the file names none
}

func newHTTPCheck(target Target) (*httpCheck, error) {
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
	unnamed := ""
	if request.Host == "" {
		unnamed = target.Address.Host()
		request.Host = unnamed
	}
	return &httpCheck{request, passing, orDefault(check.Status, defaultStatus), want, unnamed}, nil
}

// judge passes an answer with a status in the check's list, and with a body that
// contains what the check expects. A redirect is an answer, not an order. The
// status is 0 where err came before it.
func (c *httpCheck) judge(status int, body []byte, err error) (finding, error) {
	switch {
	case (status == http.StatusBadRequest || status == http.StatusMisdirectedRequest) && !passes(c.passing, status) && c.unnamed != "":
		// Django answers so to hosts that it does not know.
		return finding{}, fmt.Errorf("status %d, want %s; the check asks for the host %s, name one of the site's with host", status, c.status, c.unnamed)
	case status != 0 && !passes(c.passing, status):
		return finding{}, fmt.Errorf("status %d, want %s", status, c.status)
	case err != nil:
		return finding{}, err
	case !c.want.in(body):
		return finding{}, fmt.Errorf("status %d, but the body has no %v", status, c.want)
	}
	return finding{words: fmt.Sprintf("status %d", status)}, nil
}

// prepareHTTP returns the exchange of a check by HTTP/1.1.
//
// Each check has a connection of its own, because one that was kept would go
// on passing while the server no longer accepts new ones. It does without
// http.Transport, which would follow the environment to a proxy, and which
// writes what a server says unasked to the log of the whole process.
func prepareHTTP(target Target) (*exchange, error) {
	c, err := newHTTPCheck(target)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	if err := c.request.Write(&text); err != nil {
		return nil, err
	}
	reader := bufio.NewReaderSize(nil, 1<<10) // most heads are short
	return &exchange{address: target.Address, send: text.Bytes(), most: maxHTTPAnswer, judge: func(answer []byte, ended error) (finding, error) {
		come := &soFar{answer: answer, ended: ended}
		status, body, err := readAnswer(come, reader, c.request, c.want)
		if come.short {
			return finding{}, errMore
		}
		return c.judge(status, body, err)
	}}, nil
}

// prepareHTTP2 returns the probe of a check by HTTP/2.
func prepareHTTP2(target Target) (probe, error) {
	c, err := newHTTPCheck(target)
	if err != nil {
		return nil, err
	}
	ask := newHTTP2Asker(target, target.Check.Type == HTTPS, c.request, nil)
	return func(ctx context.Context) (finding, error) {
		var about finding
		answer, err := ask(ctx, &about)
		if answer.status != 0 && (c.want.any() || c.want.in(answer.body)) {
			err = nil // what is wanted is there
		}
		found, err := c.judge(answer.status, answer.body, err)
		found.warning = about.warning
		return found, err
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
// none. Unless everything will do, it also returns the body, as far as it has come.
func readAnswer(come *soFar, reader *bufio.Reader, request *http.Request, want pattern) (status int, body []byte, err error) {
	reader.Reset(come)
	for range maxInterim + 1 {
		answer, err := http.ReadResponse(reader, request)
		if err != nil {
			return 0, nil, answerError(err, come.ended == errFull)
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
		if err != nil && come.ended != errFull && !want.in(body) {
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
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		if tooLong {
			return errLongHead
		}
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
