package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"appliance/internal/peer"
)

func newSecretCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "secret",
		Short: "Print a fresh secret for the peer link",
		Long: `secret prints a fresh secret. Put it into the file that peer.secret_file names,
the same on every node, with mode 600:

    (umask 077; applianctl secret > /etc/appliance/peer.secret)`,
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(c.OutOrStdout(), peer.NewSecret())
			return err
		},
	}
}
