package l7

import (
	"time"

	"golang.org/x/net/http2"
)

// windowUpdate lets more be sent.
func (c *http2Conn) windowUpdate(f *http2.WindowUpdateFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.useCredit(); err != nil {
		return err
	}
	if f.StreamID == 0 {
		if c.window += int64(f.Increment); c.window > windowMost {
			return http2.ConnectionError(http2.ErrCodeFlowControl) // RFC 9113, section 6.9.1
		}
		c.wakeWriters()
		return nil
	}
	if c.idle(f.StreamID) {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	st := c.find(f.StreamID)
	if st == nil {
		return nil // it has ended
	}
	if st.window += int64(f.Increment); st.window > windowMost {
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeFlowControl}
	}
	st.answer.wakeUp()
	return nil
}

// useCredit counts a frame that is a nuisance unless we have sent data, which it
// may be an answer to. c.mu is held.
func (c *http2Conn) useCredit() error {
	if c.credit > 0 {
		c.credit--
		return nil
	}
	return c.spendLocked(costFrame)
}

// windowMost is the largest window that there is.
const windowMost = 1<<31 - 1

// settings takes the client's settings.
func (c *http2Conn) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return c.spend(costFrame)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.spendLocked(costFrame + float64(f.NumSettings())/8); err != nil {
		return err
	}
	for i := range f.NumSettings() {
		s := f.Setting(i)
		if err := s.Valid(); err != nil {
			return err
		}
		if s.ID == http2.SettingInitialWindowSize {
			// RFC 9113, section 6.9.2
			grown := int64(s.Val) - c.initial
			c.initial = int64(s.Val)
			for _, st := range c.streams {
				if st.window += grown; st.window > windowMost {
					return http2.ConnectionError(http2.ErrCodeFlowControl)
				}
			}
			c.wakeWriters()
		}
	}
	out := c.queue()
	out.b = appendSettingsAck(out.b)
	c.startFlush()
	return nil
}

// pingLast is what we ask with whether requests are under way still.
var pingLast = [8]byte{'l', 'a', 's', 't', 'w', 'o', 'r', 'd'}

func (c *http2Conn) ping(f *http2.PingFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.IsAck() {
		if c.pinged && f.Data == pingLast {
			c.pinged = false // see arm
			return nil
		}
		return c.spendLocked(costFrame)
	}
	if err := c.useCredit(); err != nil {
		return err
	}
	out := c.queue()
	if out.b = appendPing(out.b, true, f.Data); c.overfull() {
		return errCalm // it asks, and does not take the answers
	}
	c.startFlush()
	return nil
}

// leave tells the client that the connection will end, and asks it to answer: what
// it has sent before it heard is carried out (RFC 9113, section 6.8). c.mu is held.
func (c *http2Conn) leave(now time.Time) {
	c.leaving, c.pinged = now, true
	out := c.queue()
	out.b = appendGoAway(out.b, windowMost, http2.ErrCodeNo)
	out.b = appendPing(out.b, false, pingLast)
	c.startFlush()
}

// sayLast tells the client which was the last stream. c.mu is held.
func (c *http2Conn) sayLast() {
	c.lastWord = true
	out := c.queue()
	out.b = appendGoAway(out.b, c.lastID, http2.ErrCodeNo)
	c.startFlush()
}

// wakeWriters wakes those that wait to send more. c.mu is held.
func (c *http2Conn) wakeWriters() {
	for _, st := range c.streams {
		st.answer.wakeUp()
	}
}

// take gives n bytes of the connection's window back. c.mu is held.
func (c *http2Conn) take(n int64) {
	if c.taken += n; c.taken >= c.server.set.limits.window && !c.broken {
		out := c.queue()
		out.b = appendWindowUpdate(out.b, 0, int(c.taken))
		c.received += c.taken
		c.taken = 0
	}
}
