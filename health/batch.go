package health

import (
	"context"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// batch carries out exchanges that begin together, on one goroutine: what a check
// costs beyond the kernel's part is to give goroutines, timers and the runtime's
// poller something to do, and a batch does so once for all of them. It has an
// epoll descriptor of its own, and waits for that with the runtime's poller.
type batch struct {
	// report is given outcomes as they come, from the goroutine of run.
	report func([]outcome)

	parts []part
	open  int // parts without an outcome
	came  []outcome

	epoll  int
	events [64]unix.EpollEvent
	buffer [pieceSize]byte
}

// part is one exchange of a batch.
type part struct {
	job      *job // of whose checks this is one; nil if it has none
	exchange *exchange
	deadline time.Time // zero: none

	index   int32 // among the parts
	begun   time.Time
	fd      int // -1 while there is no socket
	to      unix.Sockaddr
	watched uint32 // what the epoll descriptor tells of it
	stage   stage
	sent    int
	heard   hearing
}

// stage is how far an exchange has come.
type stage int

const (
	connecting stage = iota
	sending
	answering
	over
)

// turn is after how many beginnings a batch goes on with a part, and looks for what
// else has come. No answer waits for more of them; and what has come by then, as it
// does on short ways, needs no watching for.
const turn = 8

// run carries out the parts until the last of them has an outcome. It returns soon
// after ctx ends; they have run out of time then.
func (b *batch) run(ctx context.Context, parts []part) {
	b.parts, b.open = parts, len(parts)
	for i := range parts {
		parts[i].index, parts[i].fd = int32(i), -1
	}
	waiter, err := b.newWaiter()
	if err != nil {
		for i := range parts {
			parts[i].begun = time.Now()
			b.end(&parts[i], finding{}, err)
		}
		b.report(b.came)
		return
	}
	defer func() { _ = waiter.file.Close() }()
	defer context.AfterFunc(ctx, waiter.wake)()

	for i := range parts {
		b.begin(&parts[i])
		if i >= turn {
			b.goOn(&parts[i-turn])
		}
		if i%turn == turn-1 {
			b.take(rawEpollWait(b.epoll, b.events[:]))
		}
	}
	for i := max(0, len(parts)-turn); i < len(parts); i++ {
		b.goOn(&parts[i])
	}
	waiter.until(ctx, b.next())
	for b.open > 0 {
		b.flush()
		n, err := waiter.wait()
		b.take(n)
		if err != nil {
			b.expire(ctx, time.Now())
			waiter.until(ctx, b.next())
		}
	}
	b.flush()
}

// flush reports the outcomes that have come.
func (b *batch) flush() {
	if len(b.came) > 0 {
		b.report(b.came)
		b.came = nil
	}
}

// next returns when the first part runs out of time, zero for never.
func (b *batch) next() (first time.Time) {
	for i := range b.parts {
		p := &b.parts[i]
		if p.stage != over && !p.deadline.IsZero() && (first.IsZero() || p.deadline.Before(first)) {
			first = p.deadline
		}
	}
	return first
}

// expire ends the parts whose time is over, all of them if ctx has ended. It looks
// once more at each before: where something kept the batch from going on, more may
// have come in time than there is room for in events.
func (b *batch) expire(ctx context.Context, now time.Time) {
	all := ctx.Err() != nil
	for i := range b.parts {
		p := &b.parts[i]
		if p.stage == over || !all && (p.deadline.IsZero() || now.Before(p.deadline)) {
			continue
		}
		if b.goOn(p); p.stage != over {
			b.broken(p, ranOut)
		}
	}
}

// take goes on with the parts of the first n events.
func (b *batch) take(n int) {
	for _, e := range b.events[:n] {
		b.goOn(&b.parts[e.Fd])
	}
}

// begin asks the server of a part, as far as that is possible at once.
func (b *batch) begin(p *part) {
	p.begun = time.Now()
	if p.job != nil {
		p.deadline = p.begun.Add(p.job.rhythm.timeout)
	}
	if err := p.connect(); err != nil {
		b.end(p, finding{}, err)
		return
	}
	b.say(p)
}

// connect begins to connect to the server.
func (p *part) connect() (err error) {
	address := p.exchange.address
	if p.fd, err = newSocket(address.Network(), unix.SOCK_STREAM, address); err != nil {
		return err
	}
	p.to, _, err = startConnect(p.fd, address.Network(), address)
	return err
}

// goOn does what can be done for a part, and has the epoll descriptor tell when
// there is more.
func (b *batch) goOn(p *part) {
	if p.stage == answering {
		b.hear(p)
	} else {
		b.say(p)
	}
	switch p.stage {
	case connecting, sending:
		b.watch(p, unix.EPOLLOUT)
	case answering:
		b.watch(p, unix.EPOLLIN)
	}
}

// say connects and sends, as far as that is possible at once.
func (b *batch) say(p *part) {
	for p.stage <= sending {
		err := p.push()
		switch {
		case err == unix.EAGAIN:
			return
		case err != nil:
			b.broken(p, err)
		case p.sent < len(p.exchange.send):
			p.stage = sending
		case p.exchange.judge == nil:
			b.end(p, finding{words: "connection accepted"}, nil)
		default:
			p.stage = answering
		}
	}
}

// push sends what is still to be sent; unix.EAGAIN is to wait. What is sent to a
// socket that is not connected yet asks that as well.
func (p *part) push() error {
	if len(p.exchange.send) == 0 {
		if done, err := connected(p.fd, p.to); done {
			return err
		}
		return unix.EAGAIN
	}
	n, err := rawSend(p.fd, p.exchange.send[p.sent:])
	p.sent += n
	return err
}

// hear takes one piece of an answer.
func (b *batch) hear(p *part) {
	n, err := rawRecv(p.fd, b.buffer[:min(p.heard.room(p.exchange), pieceSize)])
	switch {
	case err == unix.EAGAIN:
		return
	case err == nil && n == 0:
		err = io.EOF
	}
	found, err := p.heard.take(p.exchange, b.buffer[:n], err)
	if err != errMore {
		b.end(p, found, err)
	}
}

// broken ends a part for the reason why nothing more will come.
func (b *batch) broken(p *part, why error) {
	var found finding
	switch address := p.exchange.address; p.stage {
	case connecting:
		why = dialError(address.Network(), address, why)
	case answering:
		found, why = p.heard.take(p.exchange, nil, why)
	}
	b.end(p, found, why)
}

// end closes the connection of a part and notes its outcome.
func (b *batch) end(p *part, found finding, err error) {
	p.stage = over
	if p.fd >= 0 {
		rawClose(p.fd)
	}
	o := outcome{job: p.job, finding: found, err: err, latency: time.Since(p.begun)}
	if err != nil && p.job != nil {
		o.finding = finding{words: inWords(err, p.job.rhythm.timeout)}
	}
	b.came = append(b.came, o)
	b.open--
	p.heard = hearing{}
}

// watch has the epoll descriptor tell of a part.
func (b *batch) watch(p *part, what uint32) {
	if p.watched == what {
		return
	}
	how := unix.EPOLL_CTL_ADD
	if p.watched != 0 {
		how = unix.EPOLL_CTL_MOD
	}
	if err := rawEpollCtl(b.epoll, how, p.fd, &unix.EpollEvent{Events: what, Fd: p.index}); err != nil {
		b.end(p, finding{}, ownError("epoll_ctl: "+err.Error()))
		return
	}
	p.watched = what
}

// waiter waits for an epoll descriptor, as if it were a socket.
type waiter struct {
	file *os.File
	raw  syscall.RawConn
	ask  func(uintptr) bool
	n    int // events that have come
}

// newWaiter makes the epoll descriptor, which the file of the waiter closes.
func (b *batch) newWaiter() (*waiter, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	// Package os hands only descriptors that do not block to the poller.
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	b.epoll = fd
	w := &waiter{file: os.NewFile(uintptr(fd), "epoll")}
	if w.raw, err = w.file.SyscallConn(); err == nil {
		err = w.file.SetReadDeadline(time.Time{}) // fails if the poller did not take it
	}
	if err != nil {
		_ = w.file.Close()
		return nil, err
	}
	w.ask = func(uintptr) bool {
		w.n = rawEpollWait(fd, b.events[:])
		return w.n > 0
	}
	return w, nil
}

// wait returns how many events there are. The error is that of the deadline; there
// may be some none the less.
func (w *waiter) wait() (int, error) {
	w.n = 0
	err := w.raw.Read(w.ask)
	if err != nil {
		w.ask(0)
	}
	return w.n, err
}

// until sets when waits end, at once if ctx has ended.
func (w *waiter) until(ctx context.Context, deadline time.Time) {
	_ = w.file.SetReadDeadline(deadline)
	if ctx.Err() != nil { // wake may have come before
		w.wake()
	}
}

// wake ends a wait, from any goroutine.
func (w *waiter) wake() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) }
