package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"appliance/internal/control"
)

// The places that a Node's appliance uses, on the node.
const (
	ConfigPath = "/run/appliance/appliance.toml"
	SocketPath = "/run/appliance/control.sock"
	LogPath    = "/run/appliance/run.log"
	// SecretPath is the secret that the nodes share for their peer link.
	SecretPath = "/run/appliance/peer.secret"
	EventsPath = "/run/appliance/events.jsonl"
)

// Node is one of the pair: a host that runs the appliance. Its methods are for
// one goroutine at a time, but for those of Host.
type Node struct {
	*Host
	args    []string // after `applianctl run --config FILE --events FILE`
	process *Process // nil before the first Start
}

// WriteConfig replaces the node's configuration file. A running appliance sees
// it with the next reload.
func (n *Node) WriteConfig(text string) error { return n.WriteFile(ConfigPath, []byte(text)) }

// StartAppliance starts `applianctl run`. It does not wait until that serves or is
// active: Pair.WaitActive and WaitReady do.
func (n *Node) StartAppliance() error { return n.StartApplianceBy(func(*exec.Cmd) {}) }

// StartApplianceBy is StartAppliance with a command that prepare has changed: what a
// service manager gives to a service.
func (n *Node) StartApplianceBy(prepare func(*exec.Cmd)) error {
	if n.Running() {
		return fmt.Errorf("host %s: the appliance is running already", n.Name)
	}
	log, err := os.OpenFile(n.Path(LogPath), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("host %s: %w", n.Name, err)
	}
	defer log.Close() // the process has it too
	cmd := n.Command("applianctl", append([]string{"run", "--config", ConfigPath, "--events", EventsPath}, n.args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	prepare(cmd)
	n.process, err = n.Host.Start(cmd)
	return err
}

// Running reports whether the appliance's process exists.
func (n *Node) Running() bool {
	if n.process == nil {
		return false
	}
	select {
	case <-n.process.Done():
		return false
	default:
		return true
	}
}

// Appliance returns the appliance's process, the latest one if it has ended, nil
// before the first start.
func (n *Node) Appliance() *Process { return n.process }

// Kill ends the appliance by SIGKILL and waits until the process is gone.
func (n *Node) Kill() error {
	if n.process == nil {
		return n.notStarted()
	}
	return n.process.Kill()
}

// Terminate ends the appliance by SIGTERM and waits until it has ended, which
// must be without an error.
func (n *Node) Terminate(ctx context.Context) error {
	if n.process == nil {
		return n.notStarted()
	}
	if err := n.process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("host %s: %w", n.Name, err)
	}
	select {
	case <-n.process.Done():
	case <-ctx.Done():
		return fmt.Errorf("host %s: the appliance does not end: %w", n.Name, ctx.Err())
	}
	if err := n.process.Err(); err != nil {
		return fmt.Errorf("host %s: the appliance ended: %w", n.Name, err)
	}
	return nil
}

func (n *Node) notStarted() error {
	return fmt.Errorf("host %s: the appliance was never started", n.Name)
}

// Control returns a client of the appliance's control socket.
func (n *Node) Control() *control.Client { return control.NewClient(n.Path(SocketPath)) }

// Status asks the appliance for its status.
func (n *Node) Status(ctx context.Context) (control.Status, error) {
	s, err := n.Control().Status(ctx)
	if err != nil {
		return s, fmt.Errorf("host %s: %w", n.Name, err)
	}
	return s, nil
}

// Log returns what the appliance has written so far, over all its lives.
func (n *Node) Log() string {
	text, err := os.ReadFile(n.Path(LogPath))
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(text))
}
