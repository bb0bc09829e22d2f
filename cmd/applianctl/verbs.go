package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"appliance/internal/config"
	"appliance/internal/control"
)

// client returns a client of the appliance that the flags name.
func (o *options) client() *control.Client {
	if o.socket != "" {
		return control.NewClient(o.socket)
	}
	return control.NewClient(config.SocketOf(o.config))
}

func newStatusCommand(o *options) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Show who is active, what is served and how the servers are",
		Long: `Shows the virtual routers, the other node, the services and the servers as this
node sees them. What is in capitals, or begins with ALARM or fault, asks for a
person; docs/troubles.md says what to do.`,
		Example: `  applianctl status
  applianctl status --json | jq -r '.vrrp[] | .name + " " + .state'`,
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := o.client().Status(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(c.OutOrStdout(), s)
			}
			return renderStatus(c.OutOrStdout(), s)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, as docs/status.md describes it")
	return c
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func newFailoverCommand(o *options) *cobra.Command {
	return newMoveCommand(o, "failover", "Give the virtual addresses to the other node",
		`The virtual addresses go to the other node. With a peer link connections go on
on the node that they are on for the time to drain, where the other node's kernel
can pass their packets on; else they get that time to end before the addresses go,
and the command says why.

The command returns when the other node is active, or says what prevented it. The
move holds until failback, or until the other node is gone.

With a peer link it may be typed on either node, the other node is active before
the first one lets go, and the move is refused when the other node is absent, in
fault or less healthy, unless forced. Without one it is typed on the active node.`, (*control.Client).Failover)
}

func newFailbackCommand(o *options) *cobra.Command {
	return newMoveCommand(o, "failback", "Take back what failover gave away",
		`The node that yielded becomes active again, unless it is the less healthy one.

With a peer link it may be typed on either node, and goes as gently as failover.
Without one it is typed on the node that yielded: that takes the addresses at
once, and what is under way on the other node is cut; failover typed there gives
it a moment to end.`, (*control.Client).Failback)
}

// newMoveCommand is the shape that failover and failback share.
func newMoveCommand(o *options, name, short, long string,
	move func(*control.Client, context.Context, control.MoveRequest) ([]control.MoveResult, error)) *cobra.Command {
	var request control.MoveRequest
	var asJSON bool
	c := &cobra.Command{
		Use: name, Short: short, Long: long,
		Example: "  applianctl " + name + "\n  applianctl " + name + " --vrrp VI_1 --drain 30s",
		Args:    usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			results, err := move(o.client(), c.Context(), request)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if asJSON {
				return writeJSON(c.OutOrStdout(), results)
			}
			var errs []error
			for _, r := range results {
				if r.Error != "" {
					errs = append(errs, fmt.Errorf("%s: %s: %s", name, r.VRRP, r.Error))
					continue
				}
				at := r.Active
				if r.ActiveNode != "" {
					at = r.ActiveNode + " (" + r.Active + ")"
				}
				fmt.Fprintf(c.OutOrStdout(), "%s: %s is active, after %.0f ms\n", r.VRRP, at, r.Seconds*1000)
				switch l := r.Lingering; {
				case l != nil && l.Connections > 0:
					fmt.Fprintf(c.OutOrStdout(), "%s: %d connections go on on %s until they end, for %.0fs at most\n", r.VRRP, l.Connections, l.Node, l.SecondsLeft)
				case r.NotLingering != "":
					fmt.Fprintf(c.OutOrStdout(), "%s: connections could not go on on the node that they were on: %s\n", r.VRRP, r.NotLingering)
				}
				for _, s := range r.Connections {
					fmt.Fprintf(c.OutOrStdout(), "%s: %s: %d connections or requests under way ended by themselves, %d were cut\n", r.VRRP, s.Service, s.Ended, s.Cut)
				}
			}
			return errors.Join(errs...)
		},
	}
	c.Flags().StringVar(&request.VRRP, "vrrp", "", "only this instance")
	c.Flags().StringVar(&request.Drain, "drain", "", "how long connections get to end, such as 30s (default: the file's handover.drain)")
	c.Flags().BoolVar(&request.Force, "force", false, "also where the other node is absent or less healthy")
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}

func newReloadCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Read the file again; what did not change goes on undisturbed",
		Long: `Reads the file again and puts it in force. A file with mistakes changes nothing:
they are printed, and the exit code is 1. Connections, listeners, servers and
virtual routers that did not change are not disturbed.`,
		Example: `  applianctl check && applianctl reload`,
		Args:    usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			err := o.client().Reload(c.Context())
			if _, refused := errors.AsType[*control.Error](err); refused {
				return fmt.Errorf("reload refused, the old configuration stays in force:\n%w", err)
			}
			if err != nil {
				return fmt.Errorf("reload: %w", err)
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), "reloaded")
			return err
		},
	}
}

func newReopenCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "reopen",
		Short: "Open the access logs anew, after they were renamed",
		Long: `reopen is for who rotates the access logs: when it returns, what was logged before
is in the renamed files, and nothing is written there any more. Without it a
renamed file is noticed within some seconds.`,
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.client().Reopen(c.Context()); err != nil {
				return fmt.Errorf("reopen: %w", err)
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), "reopened")
			return err
		},
	}
}

// completeServer completes the arguments of the verb server, by what runs now.
func (o *options) completeServer(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return []string{"ready", "drain", "maint", "reset"}, cobra.ShellCompDirectiveNoFileComp
	}
	s, err := o.client().Status(c.Context())
	if err != nil || len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, p := range s.Pools {
		for _, server := range p.Servers {
			names = append(names, p.Name+"/"+server.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func newServerCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "server ready|drain|maint|reset [POOL/SERVER]",
		Short: "Put a server into service, let it drain, or take it out",
		Long: `ready  the server gets connections while its check passes
drain  it gets no new ones; those it has go on
maint  it gets no new ones and counts as out of service
reset  it is as the file has it, which is ready; without a name, all are

What was set holds over reloads and restarts, on this node.`,
		Example: `  applianctl server drain mysql/db1
  applianctl server ready mysql/db1`,
		Args:              usage(cobra.RangeArgs(1, 2)),
		ValidArgsFunction: o.completeServer,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				if args[0] != "reset" {
					return misused(c, "say which server, POOL/SERVER, such as mysql/db1")
				}
				if err := o.client().SetServer(c.Context(), control.ServerRequest{State: "reset"}); err != nil {
					return err
				}
				_, err := fmt.Fprintln(c.OutOrStdout(), "all servers: ready")
				return err
			}
			pool, server, ok := strings.Cut(args[1], "/")
			if !ok || pool == "" || server == "" {
				return misused(c, "%q is not POOL/SERVER, such as mysql/db1", args[1])
			}
			switch args[0] {
			case "ready", "drain", "maint", "reset":
			default:
				return misused(c, "unknown state %q; known: ready, drain, maint, reset", args[0])
			}
			err := o.client().SetServer(c.Context(), control.ServerRequest{Pool: pool, Server: server, State: args[0]})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: %s\n", args[1], args[0])
			return err
		},
	}
}
