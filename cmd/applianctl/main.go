// Command applianctl is the appliance and the way to command it: `applianctl
// run` is the load balancer, every other verb talks to a running one or
// prepares one.
//
// Exit codes: 0 done; 1 it failed or was refused, and standard error says why;
// 2 the command line is wrong; 3 no appliance is running.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"appliance/internal/config"
	"appliance/internal/control"
)

// version is set by the linker: -ldflags "-X main.version=1.2.3".
var version = "0.1.0-dev"

// The exit codes.
const (
	exitFailed     = 1
	exitUsage      = 2
	exitNotRunning = 3
)

// errUsage marks an error of the command line.
var errUsage = errors.New("usage")

// exitError ends the command with a code of its own; whatever there was to say
// has been said.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

func main() {
	// The library's default is whole seconds, and nodes are to be compared.
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00"
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := newRootCommand().ExecuteContext(ctx)
	stop()
	os.Exit(report(err))
}

// report tells a failure to the person and returns the exit code for it.
func report(err error) int {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[exitError](err); ok {
		return e.code
	}
	if problems, ok := errors.AsType[config.Problems](err); ok {
		// Each line begins with its file, as compilers print theirs: editors find
		// the places by that.
		fmt.Fprintln(os.Stderr, problems)
		return exitFailed
	}
	fmt.Fprintf(os.Stderr, "applianctl: %v\n", err)
	switch {
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.Is(err, control.ErrNotRunning):
		return exitNotRunning
	}
	return exitFailed
}

// options are the flags that several verbs share.
type options struct {
	config string
	node   string
	socket string
}

func newRootCommand() *cobra.Command {
	var o options
	root := &cobra.Command{
		Use:   "applianctl",
		Short: "A high-availability load balancer: L4, L7 and VRRP in one process",
		Long: `applianctl is a load balancer for a pair of machines: an L4 and an L7 proxy and a
VRRP election in one process, so the node that owns the virtual address is the
node that serves.

Exit codes: 0 done, 1 failed or refused, 2 wrong command line, 3 no appliance runs.`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          knownVerb,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetVersionTemplate("applianctl {{.Version}}\n")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return misused(c, "%w", err)
	})
	root.PersistentFlags().StringVar(&o.socket, "socket", "", "control socket of the appliance (default: the file's, or "+config.DefaultSocket+")")
	root.PersistentFlags().StringVar(&o.config, "config", defaultConfig, "the configuration file")
	root.PersistentFlags().StringVar(&o.node, "node", "", "which node of the file this is (default: the host name)")
	root.AddCommand(
		newRunCommand(&o), newCheckCommand(&o), newStatusCommand(&o), newEventsCommand(&o),
		newFailoverCommand(&o), newFailbackCommand(&o), newReloadCommand(&o), newReopenCommand(&o), newServerCommand(&o), newShowCommand(&o), newCutCommand(&o),
		newLabCommand(), newSecretCommand(), newVersionCommand(), newGuardCommand(),
	)
	return root
}

// knownVerb refuses what is no verb, and says which one may have been meant.
func knownVerb(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	c.SuggestionsMinimumDistance = 2
	if meant := c.SuggestionsFor(args[0]); len(meant) > 0 {
		return misused(c, "unknown command %q; did you mean %s?", args[0], meant[0])
	}
	return misused(c, "unknown command %q", args[0])
}

// usage marks the errors of an argument rule as errors of the command line.
func usage(rule cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := rule(c, args); err != nil {
			return misused(c, "%w", err)
		}
		return nil
	}
}

// misused returns an error of the command line that says where help is.
func misused(c *cobra.Command, format string, args ...any) error {
	return fmt.Errorf("%w: %w; see %s --help", errUsage, fmt.Errorf(format, args...), c.CommandPath())
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(c.OutOrStdout(), "applianctl", version)
			return err
		},
	}
}
