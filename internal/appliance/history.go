package appliance

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"appliance/health"
	"appliance/internal/config"
	"appliance/internal/control"
	"appliance/internal/events"
	"appliance/vrrp"
)

const (
	// lateQuiet is the time between two events that tell of lateness, and
	// serverQuiet the one between two that tell of the same server's death: what
	// goes on for ever must not drive everything else out of the history.
	lateQuiet   = 10 * time.Second
	serverQuiet = time.Minute
)

// began notes the start, and whether the run before it ended in peace.
func (a *Appliance) began(file *config.File, node *config.Node) {
	text := fmt.Sprintf("applianctl %s started with %s", a.options.Version, a.options.ConfigPath)
	if before, _ := a.history.After(0); len(before) > 0 && before[len(before)-1].Kind != events.Stop {
		text += "; the run before ended without a word: it was killed or crashed, or the machine went down"
	}
	a.history.Add(events.Start, nodeSubject(node), text, "version", a.options.Version, "sha256", file.Hash)
}

// nodeSubject is a node as the subject of an event.
func nodeSubject(node *config.Node) string { return "node " + node.Name }

// eventsPath returns where the history is kept.
func (a *Appliance) eventsPath(inFile string) string {
	if a.options.Events != "" {
		return a.options.Events
	}
	return inFile
}

// by names who gave the command of ctx, for the end of a sentence.
func by(ctx context.Context) string {
	if who := control.Caller(ctx); who != "" {
		return " by command of " + who
	}
	return ""
}

// chronicle writes what a virtual router tells into the history. It belongs to
// the goroutine of that router.
type chronicle struct {
	history *events.Log
	subject string
	late    time.Time // when lateness was told last
	untold  int       // how often there was lateness since
}

func (c *chronicle) tell(n vrrp.Notice) {
	switch n := n.(type) {
	case vrrp.Transition:
		c.add(events.Transition, fmt.Sprintf("%s -> %s: %s", n.From, n.To, n.Reason), "from", n.From.String(), "to", n.To.String())
	case vrrp.Demoted:
		if n.N > 0 {
			c.add(events.Demotion, fmt.Sprintf("demoted by %d: %s: %s", n.N, n.Source, n.Reason), "source", n.Source, "amount", strconv.Itoa(n.N))
		} else {
			c.add(events.DemotionEnd, "no longer demoted: "+n.Source, "source", n.Source)
		}
	case vrrp.Faulted:
		if n.Reason != "" {
			c.add(events.Fault, fmt.Sprintf("fault: %s: %s", n.Source, n.Reason), "source", n.Source)
		} else {
			c.add(events.FaultEnd, "no longer a fault: "+n.Source, "source", n.Source)
		}
	case vrrp.Restored:
		text := fmt.Sprintf("%s was missing: %s; put back and announced", prefixes(n.Addresses), n.Reason)
		if n.NotTold > 0 {
			text += fmt.Sprintf(", and %d times before", n.NotTold)
		}
		c.add(events.AddressBack, text, "addresses", prefixes(n.Addresses))
	case vrrp.Foreign:
		k := n.Claim
		c.add(events.ForeignClaim, fmt.Sprintf("%s is claimed by another station, %s (%d times since %s); announced again",
			k.Address, k.MAC, k.Count, k.First.Format(time.TimeOnly)), "address", k.Address.String(), "mac", k.MAC)
	case vrrp.Alarm:
		if n.Reason != "" {
			c.add(events.Alarm, n.Name+": "+n.Reason, "alarm", n.Name)
		} else {
			c.add(events.AlarmEnd, "no longer: "+n.Name, "alarm", n.Name)
		}
	case vrrp.Held:
		if n.Reason != "" {
			c.add(events.Alarm, "not taking over: "+n.Reason)
		} else {
			c.add(events.AlarmEnd, "no longer held back from taking over")
		}
	case vrrp.Late:
		c.tellLate(time.Now(), n.By)
	}
}

func (c *chronicle) tellLate(now time.Time, by time.Duration) {
	if now.Sub(c.late) < lateQuiet {
		c.untold++
		return
	}
	text := fmt.Sprintf("this process was held up for %s; listened once more before acting on a silence", by.Round(time.Millisecond))
	if c.untold > 0 {
		text += fmt.Sprintf(", as %d times before", c.untold)
	}
	c.add(events.Late, text)
	c.late, c.untold = now, 0
}

func (c *chronicle) add(kind events.Kind, text string, details ...string) {
	c.history.Add(kind, c.subject, text, details...)
}

func prefixes(list []netip.Prefix) string { return strings.Join(texts(list), " ") }

// deaths writes into the history which servers die and come back. It belongs to
// the goroutine of the checker.
type deaths struct {
	history *events.Log
	told    map[health.Target]death
}

// death is what is remembered of a server that died.
type death struct {
	at     time.Time // when that was told last
	down   bool      // it was told that it is down
	untold int       // how often it died since
}

func (d *deaths) take(target health.Target, r health.Result) {
	was := d.told[target]
	address := target.String()
	switch {
	case r.State == health.Down && r.Since.Sub(was.at) < serverQuiet:
		was.untold++
		d.told[target] = was
	case r.State == health.Down:
		text := fmt.Sprintf("down by its %s check: %s", target.Check.Type, r.Reason)
		if was.untold > 0 {
			text += fmt.Sprintf("; and %d times before, since %s", was.untold, was.at.Format(time.TimeOnly))
		}
		d.history.Add(events.ServerDown, "server "+address, text, "address", address)
		d.told[target] = death{at: r.Since, down: true}
	case r.State == health.Up && was.down:
		d.history.Add(events.ServerUp, "server "+address, fmt.Sprintf("up by its %s check: %s", target.Check.Type, r.Reason), "address", address)
		was.down = false
		d.told[target] = was
	}
}
