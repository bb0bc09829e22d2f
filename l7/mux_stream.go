package l7

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"time"

	"golang.org/x/net/http2"

	"appliance/internal/pool"
)

// muxStream is an exchange on a connection by HTTP/2, and its answer. The
// goroutine of the exchange calls its exported side, which is that of an answer;
// that of the upload calls sendBody.
type muxStream struct {
	answerHead
	conn   *muxConn
	id     uint32
	ex     *exchange
	server *pool.Server
	wake   chan struct{} // something has come
	room   chan struct{} // something may be sent
	timer  *time.Timer

	// The exchange's own.
	part int  // of the first of in that next has returned
	rest bool // a body that is there has to be sent yet
	// connect is the head of an extended CONNECT, for a server that takes it; nil: the
	// request is for no WebSocket. connects says that it was sent.
	connect  []byte
	connects bool
	closed   bool // close has been called

	// Guarded by conn.mu.
	window  int64 // what may be sent
	sent    bool  // all of the request has been
	stopped bool  // nothing more is to be
	gone    bool  // the stream does not exist any more for the server
	err     error // why there is no more than what is here
	heads   []muxInterim
	answers int // heads that came, interim ones included
	final   bool
	length  int64 // of the answer's body; -1 if it is not known
	got     int64 // of it
	in      []*inbox
	taken   int64 // of the window, by what has come and was not given back
	freed   int64 // of that, what the client has taken
	widened int64 // how much larger than muxLeast the window is
	ended   bool  // all of the answer has come
	lines   fields
}

// muxInterim is an interim answer.
type muxInterim struct {
	status int
	fields fields
}

// errOverrun says that a server has sent more than it may.
var errOverrun = errors.New("the server has sent more than it was allowed to")

func newMuxStream(ex *exchange, server *pool.Server) *muxStream {
	return &muxStream{ex: ex, server: server, wake: make(chan struct{}, 1), room: make(chan struct{}, 1), length: -1}
}

// poke wakes who waits for c.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// roomForMore wakes the sender. conn.mu is held.
func (st *muxStream) roomForMore() { poke(st.room) }

// fail notes that nothing more comes, unless all has come. conn.mu is held.
func (st *muxStream) fail(err error) {
	if st.err == nil && !st.ended {
		st.err = err
	}
	if st.gone || st.conn.err != nil {
		st.sent = true // or nobody wants it
	}
	poke(st.wake)
	poke(st.room)
}

// breakOff makes the exchange fail. It is called by other goroutines.
func (st *muxStream) breakOff() {
	c := st.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	st.stopped = true
	st.fail(errAborted)
}

// silent reports whether the server has said nothing about the request.
func (st *muxStream) silent() bool {
	c := st.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	return st.answers == 0
}

// ask sends what is left of the request, or begins to, and waits for the head of
// the answer.
func (st *muxStream) ask(interim func(ex *exchange, status int, head fields)) error {
	ex := st.ex
	up := &ex.out.upload
	if st.rest {
		if err := st.sendWhole(); err != nil {
			return err
		}
	}
	switch {
	case up.started(): // to a stream that the server has not looked at
		if err := up.move(st); err != nil && err != errStopped && err != errUnprocessed {
			return err
		}
	case ex.body != nil && ex.whole == nil && !ex.expect:
		up.start(st, ex)
	}
	if err := st.awaitHead(interim); err != nil {
		return err
	}
	up.answered()
	if ex.whole != nil {
		ex.sent(len(ex.whole))
	}
	return nil
}

// sendWhole sends a body that is there and did not fit the window. A server that
// answers before it has all is listened to.
func (st *muxStream) sendWhole() error {
	u := upload{}
	err := st.sendBody(&u, st.ex.whole, true)
	if err == errStopped {
		return nil
	}
	return err
}

// awaitHead waits for the final head; interim is called for those before.
func (st *muxStream) awaitHead(interim func(ex *exchange, status int, head fields)) error {
	ex, c := st.ex, st.conn
	// The client's body is on its way, or there is none.
	asked := !(ex.expect && ex.whole == nil) || ex.out.upload.started()
	invite := func() error {
		asked = true
		if err := ex.body.invite(); err != nil {
			ex.interrupt()
			return errAborted
		}
		ex.out.upload.start(st, ex)
		return nil
	}
	began := ex.now
	for {
		c.mu.Lock()
		heads, final, err := st.heads, st.final, st.err
		st.heads = nil
		c.mu.Unlock()
		for _, h := range heads {
			if h.status != http.StatusContinue {
				interim(ex, h.status, h.fields)
			} else if !asked {
				if err := invite(); err != nil {
					return err
				}
			}
			began = time.Now()
		}
		if final {
			return nil
		}
		if err != nil {
			return st.failure(err)
		}
		limit := c.up.settings.response
		if !asked {
			limit = min(limit, waitForContinue)
		}
		if err := st.await(st.wake, began, limit); err == errTimeout && !asked {
			if err := invite(); err != nil {
				return err
			}
			began = time.Now()
		} else if err != nil {
			return err
		}
	}
}

// failure returns err, or that the exchange is over if that is why.
func (st *muxStream) failure(err error) error {
	if st.ex.over() {
		return errAborted
	}
	return err
}

// await waits until there is news: see vigil.
func (st *muxStream) await(news chan struct{}, began time.Time, limit time.Duration) error {
	v := vigil{began: began, limit: limit}
	wait := v.first()
	for {
		if st.timer == nil {
			st.timer = time.NewTimer(wait)
		} else {
			st.timer.Reset(wait)
		}
		select {
		case <-news:
			st.ex.now = time.Now()
			return nil
		case <-st.timer.C:
		}
		var err error
		if wait, err = v.again(st.ex); err != nil {
			return err
		}
	}
}

// sendBody is described at uploadTarget.
func (st *muxStream) sendBody(u *upload, p []byte, last bool) error {
	c := st.conn
	for {
		c.mu.Lock()
		if st.sent || st.err != nil || st.stopped || st.ended && !st.connects || st.closed {
			err := errStopped
			if st.err == errUnprocessed && !st.stopped {
				err = errUnprocessed
			}
			c.mu.Unlock()
			return err
		}
		n := int64(0)
		if !c.full() {
			n = max(0, min(int64(len(p)), st.window, c.window, frameMost))
		}
		if n == 0 && len(p) > 0 {
			c.mu.Unlock()
			if err := st.awaitRoom(); err != nil {
				return err
			}
			continue
		}
		all := last && n == int64(len(p))
		if n > 0 || all && len(u.trailers) == 0 {
			out := c.queue()
			out.b = appendData(out.b, st.id, p[:n], all && len(u.trailers) == 0)
		}
		if all && len(u.trailers) > 0 {
			u.end = appendTableSize(u.end[:0])
			for _, f := range u.trailers {
				u.end = appendHeaderField(u.end, f.Name, f.Value)
			}
			out := c.queue()
			out.b = appendHead(out.b, st.id, u.end, true)
		}
		st.window -= n
		c.window -= n
		st.sent = st.sent || all
		c.unlockAndFlush()
		if p = p[n:]; len(p) == 0 {
			return nil
		}
	}
}

// awaitRoom waits until more may be sent.
func (st *muxStream) awaitRoom() error {
	limit := st.conn.up.settings.response
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-st.room:
		return nil
	case <-timer.C:
		return errTimeout
	}
}

// The methods of an answer are described there.

func (st *muxStream) head() *answerHead { return &st.answerHead }

func (st *muxStream) ready() bool {
	c := st.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	return st.ended || st.err != nil || st.have() > 0
}

// have returns how much there is to be read. conn.mu is held.
func (st *muxStream) have() int {
	n := -st.part
	for _, in := range st.in {
		n += in.w - in.r
	}
	return n
}

func (st *muxStream) next() ([]byte, error) {
	var began time.Time
	for {
		part, err, wait := st.take()
		if !wait {
			return part, err
		}
		if began.IsZero() {
			began = time.Now()
		}
		if err := st.await(st.wake, began, st.conn.up.settings.response); err != nil {
			return nil, err
		}
	}
}

// take is next, but does not wait: it says that there is nothing yet.
func (st *muxStream) take() (part []byte, err error, wait bool) {
	c := st.conn
	c.mu.Lock()
	st.settle()
	if len(st.in) > 0 && st.in[0].r < st.in[0].w {
		in := st.in[0]
		part = in.b[in.r:in.w]
		st.part = len(part)
	}
	ended, err := st.ended, st.err
	c.unlockAndFlush()
	switch {
	case part != nil:
		return part, nil, false
	case ended:
		st.trailers = st.lines
		return nil, io.EOF, false
	case err != nil:
		return nil, st.failure(err), false
	}
	return nil, nil, true
}

// settle frees the part that next has returned before. conn.mu is held.
func (st *muxStream) settle() {
	if st.part == 0 {
		return
	}
	in := st.in[0]
	in.r += st.part
	st.free(int64(st.part))
	st.part = 0
	if in.r == in.w {
		st.in = slices.Delete(st.in, 0, 1)
		putInbox(in)
	}
}

// splice is not for streams: their bodies are in frames.
func (st *muxStream) splice(answerWriter) error { return nil }

// release has nothing to give: others use the connection all the time.
func (st *muxStream) release() {}

func (st *muxStream) close() {
	st.ex.out.upload.finish(st.ex)
	st.ex.hold.take(nil)
	st.end()
}

// end ends the stream; the body that went to it may go to another one.
func (st *muxStream) end() {
	c := st.conn
	c.mu.Lock()
	if !st.closed {
		st.closed = true
		if !st.gone && !(st.ended && st.sent) && c.err == nil {
			code := http2.ErrCodeCancel
			if st.ended {
				code = http2.ErrCodeNo
			}
			out := c.queue()
			out.b = appendReset(out.b, st.id, code)
		}
		st.gone = true
		st.shut()
		for _, in := range st.in {
			putInbox(in)
		}
		st.in, st.part = nil, 0
		c.remove(st)
	}
	c.unlockAndFlush()
	if st.timer != nil {
		st.timer.Stop()
	}
}
