package guard

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/link"
)

// restartPause is the time between the death of a guard and the next one.
const restartPause = time.Second

// Guard is the appliance's side: it keeps a guard process alive and tells it
// what is held. All methods are safe for concurrent use.
type Guard struct {
	command func() *exec.Cmd
	log     zerolog.Logger
	updates chan update
	closing chan chan error
	done    chan struct{}
}

type update struct {
	message message
	files   []*os.File    // of message.Keep
	told    chan struct{} // closed when it is in the pipe, or cannot be
}

// Start starts a guard process, made anew by command each time one is needed:
// command's process must call Watch on its standard input. The caller calls
// Close.
func Start(command func() *exec.Cmd, log zerolog.Logger) (*Guard, error) {
	g := &Guard{
		command: command,
		log:     log,
		updates: make(chan update),
		closing: make(chan chan error),
		done:    make(chan struct{}),
	}
	first, err := g.launch()
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	go g.run(first)
	return g, nil
}

// Hold tells the guard what is held under a name from now on; a Holding without
// addresses is held no more. It returns when the guard has been told, so that
// whatever is acquired after it is swept if this process dies.
func (g *Guard) Hold(name string, h Holding) {
	g.update(update{message: message{Name: name, Holding: h}})
}

// Keep has the guard keep these files open, instead of those it kept before, until
// it ends: what ends with the last of its descriptors outlives this process until
// the guard has swept. It returns when the guard has been told. The files are g's,
// which closes them when it is given others, or is closed.
func (g *Guard) Keep(files []*os.File) {
	keep := len(files)
	g.update(update{message: message{Keep: &keep}, files: files})
}

// Filters tells the guard which filters are there under a name from now on. It removes
// those of a dead process, after what it keeps. It returns when the guard has been told.
func (g *Guard) Filters(name string, filters []link.Filter) {
	g.update(update{message: message{Name: name, Filters: &filters}})
}

func (g *Guard) update(u update) {
	u.told = make(chan struct{})
	select {
	case g.updates <- u:
		<-u.told
	case <-g.done:
	}
}

// Close dismisses the guard, which sweeps nothing, and waits for its end. It
// must be called once, when nothing is held any more.
func (g *Guard) Close() error {
	answer := make(chan error)
	g.closing <- answer
	return <-answer
}

// child is a guard process that runs.
type child struct {
	pipe  *os.File
	ended chan error
}

func (g *Guard) launch() (*child, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := g.command()
	cmd.Stdin = theirs
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	c := &child{pipe: ours, ended: make(chan error, 1)}
	go func() { c.ended <- cmd.Wait() }()
	return c, nil
}

// run owns the guard process and what it has been told.
func (g *Guard) run(c *child) {
	defer close(g.done)
	held, filters, kept := make(map[string]Holding), make(map[string][]link.Filter), []*os.File(nil)
	defer func() { closeAll(kept) }()
	var again <-chan time.Time
	for {
		var ended <-chan error
		if c != nil {
			ended = c.ended
		}
		select {
		case u := <-g.updates:
			switch m := u.message; {
			case m.Keep != nil:
				closeAll(kept)
				kept = u.files
			case m.Filters != nil:
				filters[m.Name] = *m.Filters
			case len(m.Holding.Addresses) == 0:
				delete(held, m.Name)
			default:
				held[m.Name] = m.Holding
			}
			g.tell(c, u.message, u.files...)
			close(u.told)
		case err := <-ended:
			g.log.Error().Err(err).Msg("the guard process ended; until the next one runs, addresses outlive a crash by their lease")
			c, again = nil, time.After(restartPause)
		case <-again:
			c, again = g.relaunch(held, filters, kept)
		case answer := <-g.closing:
			answer <- g.dismiss(c)
			return
		}
	}
}

// relaunch starts the next guard process and tells it all.
func (g *Guard) relaunch(held map[string]Holding, filters map[string][]link.Filter, kept []*os.File) (*child, <-chan time.Time) {
	c, err := g.launch()
	if err != nil {
		g.log.Error().Err(err).Msg("the guard process cannot be started")
		return nil, time.After(restartPause)
	}
	for name, h := range held {
		g.tell(c, message{Name: name, Holding: h})
	}
	for name, f := range filters {
		g.tell(c, message{Name: name, Filters: &f})
	}
	if n := len(kept); n > 0 {
		g.tell(c, message{Keep: &n}, kept...)
	}
	return c, nil
}

// tell writes to the guard, files with it; that it has died is noticed by its end.
func (g *Guard) tell(c *child, m message, files ...*os.File) {
	if c == nil {
		return
	}
	if err := send(c.pipe, m, files); err != nil {
		g.log.Warn().Err(err).Msg("the guard process does not listen")
	}
}

// dismiss lets the guard go.
func (g *Guard) dismiss(c *child) error {
	if c == nil {
		return nil
	}
	g.tell(c, message{Goodbye: true})
	closed := c.pipe.Close()
	if errors.Is(closed, os.ErrClosed) {
		closed = nil // whoever waits for the process closes it when that has ended
	}
	if err := errors.Join(closed, <-c.ended); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	return nil
}
