package main

import (
	"os"

	"github.com/spf13/cobra"

	"appliance/internal/lab"
)

func newLabCommand() *cobra.Command {
	var keep bool
	c := &cobra.Command{
		Use:   "lab",
		Short: "Watch a pair of nodes, with servers and a client, survive their failures",
		Long: `Builds a pair of load balancers, servers and a client in network namespaces of
its own, sends requests through the virtual address and breaks one thing after
the other: a server, the active node, then a failover by command. It measures
what the client notices, and fails if the pair fails to serve.

It needs no root where the kernel lets users make namespaces, changes nothing on
this machine and leaves nothing behind. It takes about half a minute.`,
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return runLab(c, keep) },
	}
	c.Flags().BoolVar(&keep, "keep", false, "leave the pair running afterwards until Ctrl-C, for lab exec")
	c.AddCommand(newLabExecCommand())
	return c
}

// runLab runs twice: outside, where it waits, and in the sandbox.
func runLab(c *cobra.Command, keep bool) error {
	var files []*os.File
	if keep && !lab.Inside() {
		door, err := lab.OpenDoor()
		if err != nil {
			return err
		}
		defer door.Close()
		files = append(files, door)
	}
	inside, code, err := lab.Sandbox(files...)
	switch {
	case err != nil:
		return err
	case !inside && code != 0:
		return exitError{code}
	case !inside:
		return nil
	}
	o := lab.Options{Out: c.OutOrStdout(), Keep: keep}
	if keep {
		o.Door = lab.Inherited(0)
	}
	return lab.Run(c.Context(), o)
}

func newLabExecCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "exec HOST [-- COMMAND [ARG]...]",
		Short: "Run a command, or a shell, on a host of the lab that --keep left running",
		Long: `Runs a command on a host of the laboratory that this user keeps running with
lab --keep, and ends with its exit code. Without a command it is a shell.`,
		Example: `  applianctl lab exec lb01 -- applianctl status
  applianctl lab exec client -- curl -s http://192.168.15.3/
  applianctl lab exec lb02`,
		Args: usage(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			host, command := args[0], args[1:]
			if len(command) == 0 {
				command = []string{shell()}
			}
			code, err := lab.Exec(host, command)
			if err == nil && code != 0 {
				return exitError{code}
			}
			return err
		},
	}
}

func shell() string {
	if s := os.Getenv("SHELL"); s != "" {
		return s
	}
	return "sh"
}
