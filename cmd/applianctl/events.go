package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"appliance/internal/control"
)

func newEventsCommand(o *options) *cobra.Command {
	var asJSON bool
	request := control.EventsRequest{Last: 100}
	c := &cobra.Command{
		Use:   "events",
		Short: "Show what happened on this node, when, and why",
		Long: `Every transition of every virtual router with its cause, what lowered a priority
or kept the node out of the election, addresses that somebody else removed or
claimed, servers that died, reloads, starts and stops. The history is kept across
restarts.`,
		Example: `  applianctl events --last 20
  applianctl events --follow --json | jq -r 'select(.kind == "transition") | .text'`,
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if request.Last < 0 {
				return misused(c, "--last %d is below 0", request.Last)
			}
			print := func(e control.Event) error { return renderEvent(c.OutOrStdout(), e) }
			if asJSON {
				lines := json.NewEncoder(c.OutOrStdout())
				print = func(e control.Event) error { return lines.Encode(e) }
			}
			err := o.client().Events(c.Context(), request, print)
			if request.Follow && errors.Is(err, c.Context().Err()) {
				return nil // Ctrl-C is how following ends
			}
			return err
		},
	}
	c.Flags().IntVar(&request.Last, "last", request.Last, "only the latest so many; 0 for all")
	c.Flags().BoolVarP(&request.Follow, "follow", "f", false, "go on with new events as they happen, until Ctrl-C")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line, as docs/status.md describes it")
	return c
}

// renderEvent prints an event for people, in one line unless its text has more.
func renderEvent(w io.Writer, e control.Event) error {
	_, err := fmt.Fprintf(w, "%s  %-15s  %-16s  %s\n", e.Time.Local().Format("2006-01-02 15:04:05.000"), e.Kind, e.Subject, e.Text)
	return err
}
