package peer

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// ErrGoodbye is the cause with which the context of Run is ended when the node
// stops: only then are the other nodes told that it does. Any other end means
// that the node will be back in a moment.
var ErrGoodbye = errors.New("stopping")

const (
	// maxHandshakes is how many connections from one address may be on their way
	// to a greeting at the same time.
	maxHandshakes = 4
	listenPause   = time.Second
	// complainGap is the least time between two complaints of one kind.
	complainGap = 10 * time.Second
)

// Config describes this node's end of its links. It is complete.
type Config struct {
	// Node is this node's name, Address where it listens and what it dials from.
	Node    string
	Address netip.AddrPort
	// Instance is another one for each life of the process: a node that comes
	// back as another instance has died in between.
	Instance string
	// Peers are the other nodes.
	Peers map[string]netip.AddrPort
	// Secret is what all nodes share; see ReadSecret.
	Secret []byte
	// Heartbeat is how often the others hear from this node at least, from
	// MinHeartbeat to MaxHeartbeat.
	Heartbeat time.Duration
}

// Handler is told what comes from the other nodes. LinkChanged and Reported are
// called one at a time for each node, in the order in which things happened; they
// must not block for long. Called may run several times at once, each after
// Reported with what was to be reported when the other node called.
type Handler interface {
	LinkChanged(node string, s State, reason string)
	Reported(node string, r Report)
	// Called carries out a call of another node; the result is sent back as JSON.
	// The context ends when nobody waits for it any more.
	Called(ctx context.Context, node, verb string, body json.RawMessage) (any, error)
}

// Mesh is one node's end of its links to all others. Create it with New and call
// Run once; the other methods are safe for concurrent use.
type Mesh struct {
	cfg     Config
	tls     *tls.Config
	report  func() Report
	handler Handler
	bulk    func(node string, body []byte) // nil for nobody
	log     zerolog.Logger

	neighbours []*neighbour // by name

	mu         sync.Mutex
	complained map[string]time.Time
}

// New returns a mesh that opens nothing before Run. report returns what this
// node has to say of itself; it is called every heartbeat and with every Poke.
func New(cfg Config, report func() Report, handler Handler, log zerolog.Logger) (*Mesh, error) {
	identity, err := identity(cfg.Secret)
	if err != nil {
		return nil, err
	}
	m := &Mesh{
		cfg: cfg, tls: identity, report: report, handler: handler, log: log,
		complained: make(map[string]time.Time),
	}
	for name, address := range cfg.Peers {
		m.neighbours = append(m.neighbours, newNeighbour(m, name, address))
	}
	slices.SortFunc(m.neighbours, func(a, b *neighbour) int { return strings.Compare(a.name, b.name) })
	return m, nil
}

// Run keeps the links up until ctx ends, and says goodbye; see ErrGoodbye.
func (m *Mesh) Run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { m.listen(ctx) })
	for _, n := range m.neighbours {
		running.Go(func() { n.run(ctx) })
	}
	running.Wait()
}

// Poke says that there may be something new to report.
func (m *Mesh) Poke() {
	for _, n := range m.neighbours {
		if s := n.session.Load(); s != nil {
			s.poke()
		}
	}
}

// Ask has a node report at once, new or not. It never waits; without a link it
// does nothing.
func (m *Mesh) Ask(node string) {
	if n := m.neighbour(node); n != nil {
		if s := n.session.Load(); s != nil {
			select {
			case s.out <- frame{kind: kindAsk}:
			default: // congested: there will be no answer
			}
		}
	}
}

// Call has a node carry out a verb with in as JSON, and decodes the result into
// out unless that is nil. The error is a *RemoteError when the node refused.
func (m *Mesh) Call(ctx context.Context, node, verb string, in, out any) error {
	n := m.neighbour(node)
	if n == nil {
		return fmt.Errorf("%w to %s: the file has no such node", ErrNoLink, node)
	}
	s := n.session.Load()
	if s == nil {
		st := n.status.Load()
		return fmt.Errorf("%w to %s: %s", ErrNoLink, node, st.Reason)
	}
	return s.call(ctx, verb, in, out)
}

// OnBulk has f called with what other nodes Send, in order for each node and
// connection. The body is f's; f must not block, for meanwhile nothing is heard
// from the node, heartbeats neither. OnBulk is to be called before Run.
func (m *Mesh) OnBulk(f func(node string, body []byte)) { m.bulk = f }

// Send has a node given body, at most MaxBulk bytes, by whoever called its
// OnBulk. It never waits. What is sent may be lost with the connection, and
// nobody tells; what arrives is whole, and in the order in which it was sent.
// Who sends much waits for answers, so that heartbeats find room between. The
// error is ErrNoLink, or says that the body is too large or the link congested.
// The body must not be changed after.
func (m *Mesh) Send(node string, body []byte) error {
	n := m.neighbour(node)
	if n == nil {
		return fmt.Errorf("%w to %s: the file has no such node", ErrNoLink, node)
	}
	s := n.session.Load()
	if s == nil {
		return ErrNoLink
	}
	return s.put(kindBulk, body)
}

// Status returns all links, by the names of the nodes.
func (m *Mesh) Status() []Status {
	all := make([]Status, len(m.neighbours))
	for i, n := range m.neighbours {
		all[i] = *n.status.Load()
	}
	return all
}

func (m *Mesh) neighbour(name string) *neighbour {
	for _, n := range m.neighbours {
		if n.name == name {
			return n
		}
	}
	return nil
}

func (m *Mesh) hello(to string) hello {
	return hello{Protocol: protocolVersion, Node: m.cfg.Node, To: to, Instance: m.cfg.Instance, HeartbeatMS: m.cfg.Heartbeat.Milliseconds()}
}

// tune sets what a link wants of TCP: nothing waits in the kernel for longer
// than a silence may last.
func (m *Mesh) tune(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			ms := int(lostAfter(m.cfg.Heartbeat).Milliseconds())
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, ms)
		})
	}
}

// listen accepts connections until ctx ends. An address that cannot be listened
// on is tried again: it may come.
func (m *Mesh) listen(ctx context.Context) {
	for ctx.Err() == nil {
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(m.cfg.Address))
		if err == nil {
			stop := context.AfterFunc(ctx, func() { l.Close() })
			err = m.accept(ctx, l)
			stop()
			l.Close()
		}
		if ctx.Err() != nil {
			return
		}
		m.complain("listen", "", "cannot listen for the other node; trying again every second", m.elsewhere(err))
		select {
		case <-ctx.Done():
		case <-time.After(listenPause):
		}
	}
}

// elsewhere says what it means that an address is not this machine's.
func (m *Mesh) elsewhere(err error) error {
	if !errors.Is(err, unix.EADDRNOTAVAIL) {
		return err
	}
	return fmt.Errorf("this machine has no address %s, which node %s has in the file: the address is missing, or this is another node", m.cfg.Address.Addr(), m.cfg.Node)
}

// accept takes connections until l is closed.
func (m *Mesh) accept(ctx context.Context, l *net.TCPListener) error {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		c, err := l.AcceptTCP()
		switch {
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ECONNABORTED):
			m.complain("accept", "", "cannot accept", err)
			time.Sleep(urgentPause)
			continue
		case err != nil:
			return err
		}
		n := m.from(c)
		if n == nil {
			m.complain("stranger", c.RemoteAddr().String(), "refused a connection to the peer link from an address that is no node's", nil)
			abort(c)
			continue
		}
		select {
		case n.handshakes <- struct{}{}:
		default:
			m.complain("crowd", c.RemoteAddr().String(), "refused a connection to the peer link: too many have not greeted yet", nil)
			abort(c)
			continue
		}
		running.Go(func() {
			defer func() { <-n.handshakes }()
			m.welcome(ctx, c)
		})
	}
}

// from returns the node whose address a connection comes from, or nil.
func (m *Mesh) from(c *net.TCPConn) *neighbour {
	source := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	for _, n := range m.neighbours {
		if n.address.Addr() == source {
			return n
		}
	}
	return nil
}

// abort closes a connection without a trace in the kernel.
func abort(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// welcome is the greeting of the end that was dialed.
func (m *Mesh) welcome(ctx context.Context, c *net.TCPConn) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	keep := closeAfter(ctx, c)
	defer keep()
	m.tune(c)
	w := &wire{Conn: c}
	conn := tls.Server(w, m.tls)
	h, err := m.hear(ctx, conn)
	if err != nil {
		m.complain("greeting", c.RemoteAddr().String(), "refused a connection to the peer link", explain(err))
		abort(c)
		return
	}
	refused := h.judge(m.cfg.Node, func(name string) bool { return m.neighbour(name) != nil })
	if refused != "" {
		m.complain("name", c.RemoteAddr().String(), "refused a node", errors.New(refused))
	} else if refused = m.propose(m.neighbour(h.Node), w, conn, h, keep); refused == "" {
		return
	}
	send(conn, kindRefuse, refusal{refused}) // who is refused knows by the end as well
	conn.Close()
}

// hear returns what a connection greets with.
func (m *Mesh) hear(ctx context.Context, conn *tls.Conn) (hello, error) {
	if err := conn.HandshakeContext(ctx); err != nil {
		return hello{}, err
	}
	return receiveHello(conn)
}

// propose has a connection made the link to n, or returns why it is not.
func (m *Mesh) propose(n *neighbour, w *wire, conn *tls.Conn, h hello, keep func() bool) (refused string) {
	s := newSession(n, w, conn, h, false)
	body, err := json.Marshal(m.hello(n.name))
	if err != nil {
		return err.Error()
	}
	s.greeting = frame{kindHello, body}.append(nil)
	if !keep() {
		return "it took too long"
	}
	answer := make(chan string, 1)
	select {
	case n.proposals <- proposal{s, answer}:
	case <-n.done:
		return "this node is leaving"
	}
	if refused = <-answer; refused != "" {
		w.patience.Store(0)
		conn.SetDeadline(time.Now().Add(farewellTime))
	}
	return refused
}

// complain logs a trouble, but not one that is repeated without end.
func (m *Mesh) complain(kind, who, message string, err error) {
	m.mu.Lock()
	last := m.complained[kind]
	now := time.Now()
	quiet := now.Sub(last) < complainGap
	if !quiet {
		m.complained[kind] = now
	}
	m.mu.Unlock()
	if quiet {
		return
	}
	e := m.log.Warn().Err(err)
	if who != "" {
		e = e.Str("peer", who)
	}
	e.Msg(message)
}
