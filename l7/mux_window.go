package l7

import "sync/atomic"

const (
	// muxLeast is the window of a stream, which is how much a server may send on it
	// before its client has taken some of that, and muxWindow how large it becomes
	// when there is more and the client's connection has room.
	muxLeast  = 64 << 10
	muxWindow = 256 << 10
	// muxConnWindow is how much a server may send on all streams of a connection
	// together before we have read some of it.
	muxConnWindow = 16 << 20
)

// answerRoom bounds what of the answers to the requests of one client's connection
// waits here, beyond muxLeast for each: or one that opens streams and reads nothing
// would have us hold muxWindow for each of them. Nil has room for all.
type answerRoom struct{ left atomic.Int64 }

// answerRoomMost is the room of a connection.
const answerRoomMost = windowsPerConn * muxWindow

func (r *answerRoom) init() { r.left.Store(answerRoomMost) }

// take takes as much of want as there is.
func (r *answerRoom) take(want int64) int64 {
	for r != nil {
		left := r.left.Load()
		n := min(want, left)
		if r.left.CompareAndSwap(left, left-n) {
			return n
		}
	}
	return want
}

// give gives back what was taken.
func (r *answerRoom) give(n int64) {
	if r != nil && n > 0 {
		r.left.Add(n)
	}
}

// gotPart takes n bytes of the window, and reports false if there were not so many.
// Once a quarter has come that is not the end, the window becomes as large as it may:
// what is short does without, be there trailers behind it. conn.mu is held.
func (st *muxStream) gotPart(n int64, last bool) bool {
	if st.taken += n; st.taken > muxLeast+st.widened {
		return false
	}
	if !last && st.widened == 0 && st.taken >= muxLeast/4 {
		st.open(0)
	}
	return true
}

// free gives n bytes of the window back to the server, some time. conn.mu is held.
func (st *muxStream) free(n int64) {
	st.freed += n
	if st.freed >= (muxLeast+st.widened)/4 && !st.ended && !st.gone {
		st.open(st.freed)
		st.taken -= st.freed
		st.freed = 0
	}
}

// open opens the window by n, and by what it may become wider. conn.mu is held.
func (st *muxStream) open(n int64) {
	wider := st.ex.room.take(muxWindow - muxLeast - st.widened)
	st.widened += wider
	if n += wider; n > 0 {
		out := st.conn.queue()
		out.b = appendWindowUpdate(out.b, st.id, int(n))
	}
}

// shut gives back what made the window wider. conn.mu is held.
func (st *muxStream) shut() {
	st.ex.room.give(st.widened)
	st.widened = 0
}
