package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"appliance/internal/control"
)

func newShowCommand(o *options) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "show services|servers|sessions",
		Short: "Show services, servers, or the connections under way, in detail",
		Long: `services  what each has carried, and what went wrong, by kind
servers   their state, load and latest check
sessions  the connections and the sessions of datagrams of the services in [[l4]],
          the oldest first; cut ends them

Columns in which there is nothing are left out.`,
		Example: `  applianctl show servers
  applianctl show sessions --json | jq '.[] | select(.service == "mysql")'`,
		Args:      usage(cobra.ExactArgs(1)),
		ValidArgs: []string{"services", "servers", "sessions"},
		RunE: func(c *cobra.Command, args []string) error {
			return show(c, o, args[0], asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, as docs/status.md describes it")
	return c
}

func show(c *cobra.Command, o *options, what string, asJSON bool) error {
	out := c.OutOrStdout()
	t := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	switch what {
	case "sessions":
		sessions, err := o.client().Sessions(c.Context())
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(out, sessions)
		}
		renderSessions(t, sessions)
	case "services", "servers":
		s, err := o.client().Status(c.Context())
		if err != nil {
			return err
		}
		switch {
		case asJSON && what == "services":
			return writeJSON(out, s.Services)
		case asJSON:
			return writeJSON(out, s.Pools)
		case what == "services":
			renderServiceDetails(t, s.Services)
		default:
			renderServerDetails(t, time.Now(), s.Pools)
		}
	default:
		return misused(c, "unknown %q; known: services, servers, sessions", what)
	}
	return t.Flush()
}

func renderSessions(w io.Writer, sessions []control.Session) {
	fmt.Fprintln(w, "ID\tSERVICE\tSTATE\tCLIENT\tADDRESS\tPOOL/SERVER\tFOR\tIN\tOUT")
	for _, s := range sessions {
		client := s.Client
		if s.Peer != "" {
			client += " by " + s.Peer
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s/%s\t%.1fs\t%s\t%s\n", s.ID, s.Service, s.State, client, s.Address,
			s.Pool, s.Server, s.Seconds, size(s.BytesIn), size(s.BytesOut))
	}
}

func renderServiceDetails(w io.Writer, services []control.Service) {
	t := newTable("SERVICE", "LAYER", "LISTEN", "POOLS", "SERVERS", "CURRENT", "RATE", "TOTAL", "REFUSED", "LIMITED", "MALFORMED",
		"BROKEN", "TIMED OUT", "LOST", "IN", "OUT", "FAULT")
	for _, s := range services {
		usable := strconv.Itoa(s.Usable)
		if s.Usable == 0 && len(s.Pools) > 0 {
			usable = "NONE"
		}
		t.add(s.Name, layer(s), strings.Join(s.Listen, " "), strings.Join(s.Pools, " "), usable, s.Current, fmt.Sprintf("%d/s", s.Rate), s.Total,
			s.NoServer, s.Errors["limited"]+s.Errors["too_many_connections"], s.Errors["malformed"], s.Errors["broken"], s.Errors["timed_out"], s.Errors["lost"],
			size(s.BytesIn), size(s.BytesOut), s.Fault)
	}
	t.write(w)
}

func renderServerDetails(w io.Writer, now time.Time, pools []control.Pool) {
	t := newTable("POOL/SERVER", "ADDRESS", "HEALTH", "FOR", "ADMIN", "WEIGHT", "CURRENT", "MAX", "RATE", "TOTAL", "REFUSED", "TIMED OUT",
		"UNREACHABLE", "BROKEN", "CONNECT", "IN", "OUT", "LAST CHECK")
	for _, p := range pools {
		for _, s := range p.Servers {
			most, took := "-", "-"
			if s.MaxConnections > 0 {
				most = strconv.Itoa(s.MaxConnections)
			}
			if s.ConnectSeconds > 0 {
				took = milliseconds(s.ConnectSeconds)
			}
			t.add(p.Name+"/"+s.Name, address(s), health(s), age(now, s.Since), s.Admin, weight(s), s.Current, most, fmt.Sprintf("%d/s", s.Rate),
				s.Total, s.Errors["refused"], s.Errors["timed_out"], s.Errors["unreachable"], s.Errors["broken"], took,
				size(s.BytesIn), size(s.BytesOut), lastCheck(s))
		}
	}
	t.write(w)
	renderConnectErrors(w, now, pools)
	for _, p := range pools {
		if p.Waiting > 0 {
			fmt.Fprintf(w, "%s: %d connections wait for a server\n", p.Name, p.Waiting)
		}
	}
}

func newCutCommand(o *options) *cobra.Command {
	var service, server string
	c := &cobra.Command{
		Use:   "cut [SESSION]",
		Short: "Reset TCP connections under way",
		Long: `Resets the connection with that ID, as show sessions lists it, or all of a service
or a server (HAProxy: shutdown session, shutdown sessions server).`,
		Example: `  applianctl cut 4711
  applianctl cut --server mysql/db1`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			r := control.CutRequest{Service: service}
			if server != "" {
				var ok bool
				if r.Pool, r.Server, ok = strings.Cut(server, "/"); !ok || r.Pool == "" || r.Server == "" {
					return misused(c, "%q is not POOL/SERVER, such as mysql/db1", server)
				}
			}
			if len(args) == 1 {
				id, err := strconv.ParseUint(args[0], 10, 64)
				if err != nil || id == 0 {
					return misused(c, "%q is no session; applianctl show sessions lists them", args[0])
				}
				r.ID = id
			}
			if r == (control.CutRequest{}) {
				return misused(c, "name a session, --service or --server")
			}
			result, err := o.client().Cut(c.Context(), r)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%d connections cut\n", result.Cut)
			return err
		},
	}
	c.Flags().StringVar(&service, "service", "", "all connections of this service")
	c.Flags().StringVar(&server, "server", "", "all connections of this server, POOL/SERVER")
	return c
}
