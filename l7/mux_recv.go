package l7

import (
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// muxHead collects the fields of an answer's head, or of trailers, as they are
// decoded. What a field may be it has from the heads of requests.
type muxHead struct {
	http2Head
	of     uint32 // the stream that the block was for which has been read
	status int    // 0: there is none
}

func (h *muxHead) begin(stream uint32, end bool) {
	h.http2Head.begin(stream, end)
	h.fields = nil // those of before are somebody's
	h.status = 0
}

// add takes a field that has been decoded.
func (h *muxHead) add(f hpack.HeaderField) {
	if !h.counts(f) {
		return
	}
	if !strings.HasPrefix(f.Name, ":") {
		h.wrong = h.field(f.Name, f.Value)
		return
	}
	n, err := strconv.Atoi(f.Value)
	if f.Name != ":status" || h.status != 0 || len(h.fields) > 0 || len(f.Value) != 3 || err != nil || n < 100 {
		h.wrong = errPseudo
		return
	}
	h.status = n
}

// muxFrames bounds the frames of one head.
const muxFrames = 128

// read is the reader.
func (c *muxConn) read() {
	defer c.up.forget(c)
	for {
		f, err := c.framer.ReadFrame()
		var code http2.ErrCode
		var se http2.StreamError
		switch {
		case err == nil:
			code = c.handle(f)
		case errors.As(err, &se):
			c.mu.Lock()
			c.refuse(se.StreamID, se.Code, &malformedError{"a frame is out of place"})
			c.startFlush()
			c.mu.Unlock()
		default:
			code = codeOf(err)
			if code == http2.ErrCodeNo {
				if err == io.EOF {
					err = io.ErrUnexpectedEOF
				}
				c.mu.Lock()
				c.fail(err)
				c.mu.Unlock()
				return
			}
		}
		if code != http2.ErrCodeNo {
			c.goAway(code)
			return
		}
	}
}

// codeOf returns what is wrong with frames that cannot be read, ErrCodeNo if the
// connection has ended.
func codeOf(err error) http2.ErrCode {
	var ce http2.ConnectionError
	switch {
	case errors.As(err, &ce):
		return http2.ErrCode(ce)
	case errors.Is(err, http2.ErrFrameTooLarge):
		return http2.ErrCodeFrameSize
	}
	return http2.ErrCodeNo
}

// goAway ends the connection because of a mistake of the server.
func (c *muxConn) goAway(code http2.ErrCode) {
	c.mu.Lock()
	out := c.queue()
	out.b = appendGoAway(out.b, 0, code)
	c.leaving = true
	c.mu.Unlock()
	_ = c.tcp.SetWriteDeadline(time.Now().Add(time.Second)) // fails only if closed
	c.flush()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail(&malformedError{"the server breaks the rules of HTTP/2: " + code.String()})
}

// handle takes a frame. The code is why the connection cannot go on.
func (c *muxConn) handle(f http2.Frame) http2.ErrCode {
	code := c.handleHead(f)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard, c.pinged = time.Now(), time.Time{}
	if code == http2.ErrCodeNo {
		switch f := f.(type) {
		case *http2.HeadersFrame, *http2.ContinuationFrame:
			if c.head.stream != 0 {
				break // more of it comes
			}
			code = c.gotHead()
		case *http2.DataFrame:
			code = c.gotData(f)
		case *http2.RSTStreamFrame:
			code = c.gotReset(f)
		case *http2.SettingsFrame:
			if !f.IsAck() {
				code = c.setUp(f)
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				out := c.queue()
				out.b = appendPing(out.b, true, f.Data)
			}
		case *http2.WindowUpdateFrame:
			code = c.gotWindow(f)
		case *http2.GoAwayFrame:
			c.gotGoAway(f)
		case *http2.PushPromiseFrame:
			code = http2.ErrCodeProtocol // RFC 9113, section 8.4: we do not take any
		}
	}
	if c.overfull() {
		code = http2.ErrCodeEnhanceYourCalm // it asks, and does not take the answers
	}
	c.startFlush()
	return code
}

// handleHead decodes what belongs to a head. Once all is there, c.head.stream is 0
// and c.head.of is whose it is.
func (c *muxConn) handleHead(f http2.Frame) http2.ErrCode {
	var block []byte
	ended := false
	switch f := f.(type) {
	case *http2.HeadersFrame:
		c.head.begin(f.StreamID, f.StreamEnded())
		block, ended = f.HeaderBlockFragment(), f.HeadersEnded()
	case *http2.ContinuationFrame:
		block, ended = f.HeaderBlockFragment(), f.HeadersEnded()
	default:
		return http2.ErrCodeNo
	}
	c.head.frames++
	if c.head.bytes += int64(len(block)); c.head.bytes > maxAnswerHead || c.head.frames > muxFrames {
		return http2.ErrCodeEnhanceYourCalm
	}
	if _, err := c.decoder.Write(block); err != nil {
		return http2.ErrCodeCompression
	}
	if ended {
		if c.decoder.Close() != nil {
			return http2.ErrCodeCompression
		}
		c.head.of, c.head.stream = c.head.stream, 0
	}
	return http2.ErrCodeNo
}

// find returns a stream that is under way. The code is for one that never was.
func (c *muxConn) find(id uint32) (*muxStream, http2.ErrCode) {
	if id%2 == 0 || id >= c.next {
		return nil, http2.ErrCodeProtocol
	}
	return c.streams[id], http2.ErrCodeNo
}

// refuse resets a stream whose answer is none. c.mu is held.
func (c *muxConn) refuse(id uint32, code http2.ErrCode, err error) {
	st := c.streams[id]
	if st == nil {
		return
	}
	out := c.queue()
	out.b = appendReset(out.b, id, code)
	st.gone = true
	st.fail(err)
}

// gotHead takes a head, or trailers. c.mu is held.
func (c *muxConn) gotHead() http2.ErrCode {
	h := &c.head
	st, code := c.find(h.of)
	if st == nil || st.gone {
		return code
	}
	if err := st.gotHead(h); err != nil {
		c.refuse(st.id, http2.ErrCodeProtocol, err)
	}
	return http2.ErrCodeNo
}

// gotData takes a part of a body. What it takes of the connection's window is given
// back at once: each stream has a window of its own. c.mu is held.
func (c *muxConn) gotData(f *http2.DataFrame) http2.ErrCode {
	if c.received += int64(f.Length); c.received >= muxConnWindow/4 {
		out := c.queue()
		out.b = appendWindowUpdate(out.b, 0, int(c.received))
		c.received = 0
	}
	st, code := c.find(f.StreamID)
	if st == nil || st.gone {
		return code
	}
	if err := st.gotData(f); err != nil {
		code := http2.ErrCodeProtocol
		if err == errOverrun {
			code = http2.ErrCodeFlowControl
		}
		c.refuse(st.id, code, err)
	}
	return http2.ErrCodeNo
}

// gotReset takes the end of a stream. c.mu is held.
func (c *muxConn) gotReset(f *http2.RSTStreamFrame) http2.ErrCode {
	st, code := c.find(f.StreamID)
	if st == nil {
		return code
	}
	st.gone = true
	if f.ErrCode == http2.ErrCodeRefusedStream {
		st.fail(errUnprocessed)
		return http2.ErrCodeNo
	}
	st.fail(&resetError{f.ErrCode})
	return http2.ErrCodeNo
}

// gotWindow lets more be sent. c.mu is held.
func (c *muxConn) gotWindow(f *http2.WindowUpdateFrame) http2.ErrCode {
	if f.StreamID == 0 {
		if c.window += int64(f.Increment); c.window > 1<<31-1 {
			return http2.ErrCodeFlowControl
		}
		c.wakeWriters()
		return http2.ErrCodeNo
	}
	st, code := c.find(f.StreamID)
	if st == nil {
		return code
	}
	if st.window += int64(f.Increment); st.window > 1<<31-1 {
		c.refuse(st.id, http2.ErrCodeFlowControl, &malformedError{"a window is too large"})
	}
	st.roomForMore()
	return http2.ErrCodeNo
}

// setUp takes the server's settings. c.mu is held.
func (c *muxConn) setUp(f *http2.SettingsFrame) http2.ErrCode {
	code := http2.ErrCodeNo
	_ = f.ForeachSetting(func(s http2.Setting) error {
		switch s.ID {
		case http2.SettingMaxConcurrentStreams:
			c.most = int(min(s.Val, maxStreams))
		case http2.SettingInitialWindowSize:
			if s.Val > 1<<31-1 {
				code = http2.ErrCodeFlowControl
				return nil
			}
			for _, st := range c.streams {
				st.window += int64(s.Val) - c.initial // RFC 9113, section 6.9.2: it may become negative
				if st.window > 1<<31-1 {
					code = http2.ErrCodeFlowControl
				}
			}
			c.initial = int64(s.Val)
			c.wakeWriters()
		case http2.SettingEnableConnectProtocol:
			c.connects = s.Val == 1
		case http2.SettingMaxFrameSize:
			if s.Val < frameMost || s.Val > 1<<24-1 {
				code = http2.ErrCodeProtocol
			}
		}
		return nil
	})
	out := c.queue()
	out.b = appendSettingsAck(out.b)
	return code
}

// gotGoAway takes the server's farewell: what is above the last stream it has not
// looked at. c.mu is held.
func (c *muxConn) gotGoAway(f *http2.GoAwayFrame) {
	c.leaving = true
	for id, st := range c.streams {
		if id > f.LastStreamID {
			st.gone = true
			st.fail(errUnprocessed)
		}
	}
	if len(c.streams) == 0 {
		c.fail(errUnprocessed)
	}
}
