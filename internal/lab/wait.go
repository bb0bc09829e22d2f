package lab

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// WaitActive waits until the node, and it alone, answers for the virtual
// address on the LAN. When ctx ends first the error tells who answered last.
func (p *Pair) WaitActive(ctx context.Context, n *Node) error {
	_, err := p.waitAnswer(ctx, "only "+n.Name, func(hosts []string) bool {
		return len(hosts) == 1 && hosts[0] == n.Name
	})
	return err
}

// WaitAnyActive waits until exactly one node answers for the virtual address,
// and returns it.
func (p *Pair) WaitAnyActive(ctx context.Context) (*Node, error) {
	hosts, err := p.waitAnswer(ctx, "exactly one node", func(hosts []string) bool { return len(hosts) == 1 })
	if err != nil {
		return nil, err
	}
	for _, n := range p.Nodes() {
		if n.Name == hosts[0] {
			return n, nil
		}
	}
	return nil, fmt.Errorf("%s answers for %s, which is no node", hosts[0], p.VIP)
}

func (p *Pair) waitAnswer(ctx context.Context, wanted string, match func(hosts []string) bool) ([]string, error) {
	since := time.Now()
	tick := time.NewTicker(probeInterval / 2)
	defer tick.Stop()
	for {
		hosts, ok := p.Monitor.Answerers(since)
		if ok && match(hosts) {
			return hosts, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for %s to answer for %s, last answered by %v: %w", wanted, p.VIP, hosts, ctx.Err())
		}
	}
}

// WaitReady waits until the node's appliance says that its listeners are bound
// and its first checks are done.
func (p *Pair) WaitReady(ctx context.Context, n *Node) error {
	if n.process == nil {
		return n.notStarted()
	}
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		s, err := n.Status(ctx)
		if err == nil && s.Ready {
			return nil
		}
		select {
		case <-tick.C:
		case <-n.process.Done():
			return fmt.Errorf("host %s: the appliance ended: %v; it said:\n%s", n.Name, n.process.Err(), n.Log())
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("host %s: waiting for the appliance to be ready: %w", n.Name, ctx.Err()), err)
		}
	}
}
