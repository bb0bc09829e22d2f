package vrrp

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write what happens into testdata/*.txt instead of comparing it")

// TestElections plays the files of testdata. A file is a sequence of blocks
// parted by an empty line: a command, a line "----", and what the nodes then
// do, each line with the time since the beginning. Lines that begin with # are
// comments. The commands:
//
//	node NAME ADDRESS [priority=N] [preempt=BOOL] [preempt-delay=D] [settle=D] [drain=D] [interval=D] [lan=NAME] [host=NAME] [vip=PREFIX] [reach=ADDRESS] [busy] [keepalived]
//	group GROUP NAME...       from now on these nodes move together
//	leave NAME                it moves alone again
//	start NAME...             clear the startup fault
//	run D                     let time pass
//	demote NAME N [REASON]    demote by N, 0 takes it back
//	fault NAME [REASON]       raise a fault, without a reason clear it
//	failover NAME [BY], failback NAME [BY], shutdown NAME
//	kill NAME                 no more of it; what it holds ends with its lease
//	stop NAME, cont NAME      SIGSTOP, SIGCONT
//	cut NAME, heal NAME       take it off the LAN, and back
//	deaf NAME                 it hears nobody and is heard, until heal
//	link                      the nodes have a peer link from now on
//	linkcut, linkheal         nothing passes on it, and again
//	unreach NAME, reach NAME  the host that it should reach does not answer it, and does
//	gateway NAME down|up      its checks have noticed that
//	acquire-fails NAME, acquire-works NAME
//
// failover NAME back gives the addresses back instead, failover NAME force asks
// no questions.
//
//	remove NAME               somebody takes its addresses off, and it is told to look
//	claim NAME MAC [N]        it hears N frames of a station that claims the first one
func TestElections(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("%s differs; what happened:\n%s", file, got)
			}
		})
	}
}

// play returns the script with what happened in place of what it expects.
func play(t *testing.T, script string) string {
	n := newNetwork()
	var out []string
	for block := range strings.SplitSeq(strings.TrimSpace(script), "\n\n") {
		commands, _, isCommand := strings.Cut(block, "\n----")
		if !isCommand {
			out = append(out, block) // a comment
			continue
		}
		n.log.Reset()
		for line := range strings.SplitSeq(commands, "\n") {
			if strings.HasPrefix(line, "#") {
				continue
			}
			if err := n.command(strings.Fields(line)); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
		}
		out = append(out, commands+"\n----\n"+strings.TrimSuffix(n.log.String(), "\n"))
	}
	for i := range out {
		out[i] = strings.TrimRight(out[i], "\n")
	}
	return strings.Join(out, "\n\n") + "\n"
}

// command carries out one line of a script.
func (n *network) command(words []string) error {
	switch words[0] {
	case "node":
		return n.addFrom(words[1:])
	case "run":
		d, err := time.ParseDuration(words[1])
		n.run(d)
		return err
	case "group":
		return n.join(words[1], words[2:])
	case "link":
		n.link()
		return nil
	case "linkcut":
		n.linkCut = true
		for _, x := range n.nodes {
			x.linkEnds(LinkLost, "silent for 500ms", 500*ms)
		}
		return nil
	case "linkheal":
		n.linkCut = false
		for _, x := range n.nodes {
			x.linkBegins()
		}
		return nil
	case "start":
		for _, name := range words[1:] {
			n.node(name).step(SetFault{Source: StartupFault})
		}
		return nil
	}
	x, rest := n.node(words[1]), words[2:]
	switch words[0] {
	case "demote":
		amount, err := strconv.Atoi(rest[0])
		x.step(Demote{Source: "web", N: amount, Reason: strings.Join(rest[1:], " ")})
		return err
	case "fault":
		x.step(SetFault{Source: "test", Reason: strings.Join(rest, " ")})
	case "failover":
		m := Move{By: strings.Join(rest, " ")}
		m.By, m.Back = strings.CutSuffix(m.By, "back")
		m.By, m.Force = strings.CutSuffix(m.By, "force")
		x.step(Failover{ID: 1, Move: m})
	case "failback":
		x.step(Failback{ID: 1, By: strings.Join(rest, " ")})
	case "shutdown":
		x.step(Shutdown{})
	case "leave":
		g := x.m.mate.group
		members := append(slices.Clone(g.members), x.m)
		g.leave(n.now, x.m)
		n.collect(members)
	case "kill":
		x.dead = true
		x.linkEnds(LinkDied, "its host refuses connections", 2*delay)
	case "stop":
		x.dead = true
		x.linkEnds(LinkLost, "silent for 500ms", 500*ms)
	case "cont":
		x.dead = false
		x.linkBegins()
	case "cut":
		n.cut[x.name] = true
	case "deaf":
		n.deaf[x.name] = true
	case "heal":
		n.cut[x.name], n.deaf[x.name] = false, false
	case "unreach", "reach":
		x.unreached = words[0] == "unreach"
	case "gateway":
		n := 0
		if rest[0] == "down" {
			n = 11
		}
		x.step(Demote{Source: ReachSource + x.m.cfg.Reach[0].String(), N: n, Reason: "timeout"})
	case "acquire-fails":
		x.failing = true
	case "acquire-works":
		x.failing = false
	case "remove":
		x.missing = true
		x.step(Recheck{})
	case "claim":
		count := 1
		if len(rest) > 1 {
			var err error
			if count, err = strconv.Atoi(rest[1]); err != nil {
				return err
			}
		}
		x.step(Claimed{Address: x.m.cfg.Addresses[0].Addr(), MAC: rest[0], Count: count})
	default:
		return fmt.Errorf("unknown command")
	}
	return nil
}

// join makes nodes members of a group, which lasts while it has any.
func (n *network) join(name string, nodes []string) error {
	g := &group{name: name}
	for _, x := range n.nodes {
		if old := x.m.mate.group; old != nil && old.name == name {
			g = old
		}
	}
	for _, node := range nodes {
		x := n.node(node)
		x.m.cfg.Name = x.name
		g.join(n.now, x.m)
		n.collect(g.members)
	}
	return nil
}

// addFrom adds the node that a script describes.
func (n *network) addFrom(words []string) error {
	var failed error
	busy, keepalived, lan, host := false, false, "", words[0]
	n.add(words[0], words[1], func(c *Config) {
		for _, w := range words[2:] {
			key, value, _ := strings.Cut(w, "=")
			var err error
			switch key {
			case "priority":
				c.Priority, err = strconv.Atoi(value)
			case "preempt":
				c.Preempt, err = strconv.ParseBool(value)
			case "preempt-delay":
				c.PreemptDelay, err = time.ParseDuration(value)
			case "settle":
				c.Settle, err = time.ParseDuration(value)
			case "drain":
				c.Drain, err = time.ParseDuration(value)
			case "interval":
				c.AdvertInterval, err = time.ParseDuration(value)
			case "lan":
				lan = value
			case "host":
				host = value
			case "reach":
				var host netip.Addr
				host, err = netip.ParseAddr(value)
				c.Reach = []netip.Addr{host}
			case "vip":
				var vip netip.Prefix
				vip, err = netip.ParsePrefix(value)
				c.Addresses = []netip.Prefix{vip}
			case "keepalived":
				keepalived = true
			case "busy":
				busy = true
			default:
				err = fmt.Errorf("unknown setting %s", key)
			}
			if err != nil {
				failed = err
			}
		}
	})
	x := n.node(words[0])
	x.busy, x.keepalived, x.lan, x.host = busy, keepalived, lan, host
	n.meet()
	return failed
}
