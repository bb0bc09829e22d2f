package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Options are those of Run.
type Options struct {
	// Out is where the story is told.
	Out io.Writer
	// Keep leaves the pair running after the story until the context ends.
	Keep bool
	// Door, made by OpenDoor, lets Exec in from the beginning to the end; nil
	// for none. Run closes it.
	Door *os.File
	// Pair describes the pair; the story needs the services of DefaultConfig.
	Pair PairOptions
}

// Inherited returns the file that was the n-th argument of Sandbox outside,
// counted from 0. The caller closes it.
func Inherited(n int) *os.File { return os.NewFile(uintptr(3+n), "inherited") }

// Run builds a pair in the sandbox, tells its story under real traffic, and
// removes the pair. It returns an error if the pair failed to serve, or ctx
// ended before the story did.
func Run(ctx context.Context, o Options) (err error) {
	pair, err := NewPair(o.Pair)
	if err != nil {
		if o.Door != nil {
			err = errors.Join(err, o.Door.Close())
		}
		return err
	}
	defer func() { err = errors.Join(err, pair.Close()) }()
	if o.Door != nil {
		doorCtx, closeDoor := context.WithCancel(context.WithoutCancel(ctx))
		served := make(chan error, 1)
		go func() { served <- serveDoor(doorCtx, o.Door, pair.Host) }()
		defer func() {
			closeDoor()
			err = errors.Join(err, <-served)
		}()
	}
	err = newStory(pair, o.Out).tell(ctx)
	if ctx.Err() != nil {
		return fmt.Errorf("the story was interrupted: %w", ctx.Err())
	}
	if err != nil {
		showLogs(o.Out, pair)
	}
	if o.Keep {
		if err != nil {
			fmt.Fprintf(o.Out, "\nThe pair failed: %v\n", err)
		}
		// Nobody will ask for what they note from here on.
		if err := pair.stopWatching(); err != nil {
			return err
		}
		fmt.Fprint(o.Out, keepText)
		<-ctx.Done()
	}
	return err
}

// showLogs prints the ends of the nodes' logs, for who has to find a failure.
func showLogs(w io.Writer, pair *Pair) {
	const lines = 20
	for _, n := range pair.Nodes() {
		log := strings.Split(n.Log(), "\n")
		fmt.Fprintf(w, "\n%s:%s, its end:\n%s\n", n.Name, LogPath, strings.Join(log[max(0, len(log)-lines):], "\n"))
	}
}

const keepText = `
The pair stays until Ctrl-C. From another terminal, as this user:

  applianctl lab exec lb01 -- applianctl status
  applianctl lab exec lb02 -- applianctl failback
  applianctl lab exec client -- curl -s http://192.168.15.3/
  applianctl lab exec lb01                               a shell on lb01

Hosts: lb01, lb02, client, web1, web2, web3. Each node's file is
/run/appliance/appliance.toml, its log /run/appliance/run.log.
`
