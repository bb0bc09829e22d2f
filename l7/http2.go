package l7

import (
	"bytes"
	"cmp"
	"time"

	"golang.org/x/net/http2"
)

// HTTP2Config says how clients are spoken to by HTTP/2. The zero value of each field
// means its default.
type HTTP2Config struct {
	// Enabled offers HTTP/2 to clients. With TLS they choose it by ALPN; default
	// true. Without, those are served that begin with it unasked (h2c by prior
	// knowledge, RFC 9113, section 3.3); default false.
	Enabled *bool `toml:"enabled"`
	// MaxStreams bounds the requests under way on one connection, 1 to 1000;
	// default 128. More are refused; clients send those again.
	MaxStreams int `toml:"max_streams"`
	// Window is how much of a request's body may wait for its server, 64 KiB to
	// 16 MiB; default 256 KiB. For all requests of a connection it is four times
	// that.
	Window int64 `toml:"window"`
	// MaxNuisance is how much of what does no work a client may send at once, 100
	// to 1000000; default 1000. See nuisance.
	MaxNuisance int `toml:"max_nuisance"`
}

// EffectiveEnabled returns Enabled with its default applied.
func (h HTTP2Config) EffectiveEnabled(tls bool) bool {
	if h.Enabled == nil {
		return tls
	}
	return *h.Enabled
}

// EffectiveMaxStreams returns MaxStreams with its default applied.
func (h HTTP2Config) EffectiveMaxStreams() int { return cmp.Or(h.MaxStreams, 128) }

// EffectiveWindow returns Window with its default applied.
func (h HTTP2Config) EffectiveWindow() int64 { return cmp.Or(h.Window, 256<<10) }

// EffectiveMaxNuisance returns MaxNuisance with its default applied.
func (h HTTP2Config) EffectiveMaxNuisance() int { return cmp.Or(h.MaxNuisance, 1000) }

func (h HTTP2Config) validate(problem func(key, message string)) {
	if n := h.EffectiveMaxStreams(); n < 1 || n > 1000 {
		problem("http2.max_streams", "the number must be between 1 and 1000")
	}
	if n := h.EffectiveWindow(); n < 64<<10 || n > 16<<20 {
		problem("http2.window", "the size must be between 64KiB and 16MiB")
	}
	if n := h.EffectiveMaxNuisance(); n < 100 || n > 1000000 {
		problem("http2.max_nuisance", "the number must be between 100 and 1000000")
	}
}

// http2Limits are what a server holds its HTTP/2 clients to; comparable.
type http2Limits struct {
	streams  int
	window   int64
	nuisance int
}

const (
	// windowsPerConn is how many of its streams can fill their windows at the
	// same time.
	windowsPerConn = 4
	// mostContinuations bounds the frames of one head. With max_header_size,
	// which bounds the bytes, it ends floods of CONTINUATION.
	mostContinuations = 64
	// queuedMost is how much may wait to be sent before those who have more wait.
	queuedMost = 64 << 10
	// overfullMost bounds what waits to be sent to a side that has it grow by
	// itself: its PINGs and settings are answered, whether it takes that or not.
	overfullMost = 4 << 20
	// lingerError is how long what a client sends is read and thrown away after
	// its connection was given up, so that it gets to see why.
	lingerError = time.Second
	// goAwayTime bounds the wait for a client's answer to the announcement that
	// its connection will end: requests may be on their way until then.
	goAwayTime = time.Second
	// resetsRemembered is of how many streams that we have reset we know that
	// frames for them may be under way still.
	resetsRemembered = 256
)

// What clients may do but have no use in doing often costs a connection some of
// its max_nuisance. What was spent comes back with time, and with work that is
// done: all clients cancel a request now and then, and busy ones more often. Who
// has nothing left is told to be calm (ENHANCE_YOUR_CALM) and cut off.
type nuisance struct {
	left, most float64
	at         time.Time
}

const (
	// nuisanceRate is how much comes back in a second.
	nuisanceRate = 100
	// costFrame is what a frame costs that changes nothing: PING, SETTINGS,
	// PRIORITY, an unknown one, DATA without data, a piece of a head, a window
	// that is opened without need, a stream beyond max_streams.
	costFrame = 1
	// costReset is what a request costs that the client gives up, or that has to
	// be reset because it is malformed: it may have reached a server.
	costReset = 3
	// refundAnswer is what comes back with an answer that went out in full.
	refundAnswer = 1
)

// spend reports false if there is not so much left.
func (n *nuisance) spend(cost float64, now time.Time) bool {
	if passed := now.Sub(n.at).Seconds(); passed > 0 {
		n.left = min(n.most, n.left+passed*nuisanceRate)
		n.at = now
	}
	n.left -= cost
	return n.left >= 0
}

func (n *nuisance) refund(d float64) { n.left = min(n.most, n.left+d) }

var clientPreface = []byte(http2.ClientPreface)

// beginsHTTP2 reports whether b begins like the preface of HTTP/2, which is made
// to look like a head of HTTP/1 (RFC 9113, section 3.4).
func beginsHTTP2(b []byte) bool {
	return bytes.HasPrefix(b, clientPreface[:len("PRI * HTTP/2.0\r\n\r\n")])
}
