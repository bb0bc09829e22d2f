package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"appliance/internal/control"
)

// renderStatus prints a status as tables for people.
func renderStatus(w io.Writer, s control.Status) error {
	now := time.Now()
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "node %s, version %s, up %s", s.Node, s.Version, age(now, s.Started))
	if !s.Ready {
		fmt.Fprint(t, ", NOT READY: waiting for the first checks")
	}
	fmt.Fprintf(t, "\nconfig %s (sha256 %.12s), loaded %s ago\n", s.Config.Path, s.Config.SHA256, age(now, s.Config.Loaded))
	if s.Config.Error != "" {
		fmt.Fprintf(t, "the latest reload was refused:\n%s\n", indent(s.Config.Error))
	}
	renderVRRP(t, now, s.VRRP)
	renderPeers(t, now, s.Peers, s.VRRP, s.Services)
	renderServices(t, s.Services)
	renderCertificates(t, now, s.Services)
	renderKernel(t, s.Kernel)
	renderPools(t, now, s.Pools)
	for _, l := range s.AccessLogs {
		if l.Dropped > 0 || l.Error != "" {
			fmt.Fprintf(t, "\naccess log %s: %d lines DROPPED, %d written", l.Path, l.Dropped, l.Lines)
			if l.Error != "" {
				fmt.Fprintf(t, "; it cannot be written: %s", l.Error)
			}
			fmt.Fprintln(t)
		}
	}
	return t.Flush()
}

// latenessTold is how late an advert must have been for a table to tell, in
// seconds: less is no trouble even for the shortest interval, 10 ms.
const latenessTold = 0.02

func renderVRRP(w io.Writer, now time.Time, routers []control.VRRP) {
	if len(routers) == 0 {
		return
	}
	fmt.Fprintln(w, "\nVRRP\tVRID\tINTERFACE\tSTATE\tFOR\tPRIORITY\tADDRESSES\tACTIVE ROUTER")
	for _, r := range routers {
		state := strings.ToUpper(r.State)
		switch {
		case r.Yielded:
			state += " (yielded)"
		case r.Draining:
			state += " (draining)"
		}
		priority := fmt.Sprint(r.Priority)
		if r.Priority != r.BasePriority {
			priority = fmt.Sprintf("%d of %d", r.Priority, r.BasePriority)
		}
		active := "-"
		switch {
		case r.State == "active":
			active = "this node"
		case r.ActiveRouter != nil:
			active = fmt.Sprintf("%s (priority %d)", r.ActiveRouter.Address, r.ActiveRouter.Priority)
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, r.VRID, r.Interface, state,
			age(now, r.Since), priority, strings.Join(r.Addresses, " "), active)
	}
	for _, r := range routers {
		if r.Reason != "" {
			fmt.Fprintf(w, "%s: %s\n", r.Name, r.Reason)
		}
		if l := r.Lingering; l != nil {
			fmt.Fprintf(w, "%s: %d connections go on on this node, for %.0fs at most; %s passes their packets on\n", r.Name, l.Connections, l.SecondsLeft, l.Node)
		}
		if l := r.PassingOn; l != nil {
			fmt.Fprintf(w, "%s: passing packets on to %s, where %d connections go on, for %.0fs at most\n", r.Name, l.Node, l.Connections, l.SecondsLeft)
		}
		if r.Waiting != "" {
			fmt.Fprintf(w, "%s: NOT TAKING OVER: %s\n", r.Name, r.Waiting)
		}
		for _, f := range r.Faults {
			fmt.Fprintf(w, "%s: fault: %s: %s, for %s\n", r.Name, f.Source, f.Reason, age(now, f.Since))
		}
		for _, f := range r.Alarms {
			fmt.Fprintf(w, "%s: ALARM: %s: %s, for %s\n", r.Name, f.Source, f.Reason, age(now, f.Since))
		}
		for _, d := range r.Demotions {
			fmt.Fprintf(w, "%s: demoted by %d: %s: %s, for %s\n", r.Name, d.Amount, d.Source, d.Reason, age(now, d.Since))
		}
		for _, c := range r.ForeignClaims {
			fmt.Fprintf(w, "%s: ANOTHER STATION CLAIMS %s: %s, last %s ago, %d times since %s ago\n", r.Name, c.Address, c.MAC,
				age(now, c.Last), c.Count, age(now, c.First))
		}
		if a := r.RefusedAdvert; a != nil {
			fmt.Fprintf(w, "%s: ADVERTS OF %s ARE REFUSED, the latest %s ago: %s\n", r.Name, a.Source, age(now, a.At), a.Reason)
		}
		if l := r.AdvertLateness; l.MaxSeconds >= latenessTold {
			fmt.Fprintf(w, "%s: %d adverts left after they were due: half within %s, 99.9%% within %s, the latest %s\n",
				r.Name, l.Count, milliseconds(l.P50Seconds), milliseconds(l.P999Seconds), milliseconds(l.MaxSeconds))
		}
	}
}

// certificateTold is for how long before its end a table tells of a certificate.
const certificateTold = 14 * 24 * time.Hour

// renderCertificates says which certificates are not valid any more, or not for long.
func renderCertificates(w io.Writer, now time.Time, services []control.Service) {
	for _, s := range services {
		for _, c := range s.Certificates {
			switch left := c.NotAfter.Sub(now); {
			case left < 0:
				fmt.Fprintf(w, "%s: CERTIFICATE %s HAS EXPIRED, %s\n", s.Name, c.Path, c.NotAfter.Local().Format(time.DateTime))
			case left < certificateTold:
				fmt.Fprintf(w, "%s: certificate %s expires in %d days, %s\n", s.Name, c.Path, int(left.Hours()/24), c.NotAfter.Local().Format(time.DateTime))
			}
		}
	}
}

func renderServices(w io.Writer, services []control.Service) {
	if len(services) == 0 {
		return
	}
	fmt.Fprintln(w, "\nSERVICE\tLAYER\tLISTEN\tSERVERS\tCURRENT\tTOTAL\tREFUSED\tIN\tOUT\tPOOLS")
	for _, s := range services {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\n", s.Name, layer(s), strings.Join(s.Listen, " "),
			s.Usable, s.Current, s.Total, s.NoServer, size(s.BytesIn), size(s.BytesOut), strings.Join(s.Pools, " "))
	}
	for _, s := range services {
		if s.Fault != "" {
			fmt.Fprintf(w, "%s: fault: %s\n", s.Name, s.Fault)
		}
		if s.PathReason != "" {
			fmt.Fprintf(w, "%s: carried by the proxy, not by the kernel path: %s\n", s.Name, s.PathReason)
		}
	}
}

func renderPools(w io.Writer, now time.Time, pools []control.Pool) {
	if len(pools) == 0 {
		return
	}
	fmt.Fprintln(w, "\nPOOL/SERVER\tADDRESS\tHEALTH\tFOR\tADMIN\tWEIGHT\tCURRENT\tTOTAL\tFAILED\tLAST CHECK")
	for _, p := range pools {
		for _, s := range p.Servers {
			fmt.Fprintf(w, "%s/%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\n", p.Name, s.Name, address(s),
				health(s), age(now, s.Since), s.Admin, weight(s), s.Current, s.Total, s.ConnectErrors, lastCheck(s))
		}
	}
	renderConnectErrors(w, now, pools)
}

// address is where a server is for a table, if its name does not say that.
func address(s control.Server) string {
	if s.Address == s.Name {
		return "-"
	}
	return s.Address
}

// weight is the share of a server for a table.
func weight(s control.Server) string {
	if s.Backup {
		return fmt.Sprintf("%d backup", s.Weight)
	}
	return fmt.Sprint(s.Weight)
}

// connectErrorAge is for how long a table tells why a connection failed.
const connectErrorAge = 10 * time.Minute

// renderConnectErrors says which servers have not accepted connections lately, and
// why.
func renderConnectErrors(w io.Writer, now time.Time, pools []control.Pool) {
	for _, p := range pools {
		for _, s := range p.Servers {
			if s.ConnectErrorAt != nil && now.Sub(*s.ConnectErrorAt) < connectErrorAge {
				fmt.Fprintf(w, "%s/%s: a connection failed %s ago: %s\n", p.Name, s.Name, age(now, *s.ConnectErrorAt), s.ConnectError)
			}
		}
	}
}

// health is the state of a server for a table.
func health(s control.Server) string {
	if s.EjectedUntil != nil {
		return "EJECTED"
	}
	return strings.ToUpper(s.Health)
}

// lastCheck describes the latest check of a server: its result, how long it
// took, how many before it failed, and what it warns of.
func lastCheck(s control.Server) string {
	if s.Check == "" && s.EjectedUntil == nil {
		return "-"
	}
	var notes []string
	if s.LatencySeconds > 0 {
		notes = append(notes, fmt.Sprintf("%.1f ms", s.LatencySeconds*1000))
	}
	if all := s.ChecksPassed + s.ChecksFailed; all > 0 {
		notes = append(notes, fmt.Sprintf("%d of %d failed", s.ChecksFailed, all))
	}
	if s.EjectedUntil != nil {
		notes = append(notes, "ejected until "+s.EjectedUntil.Local().Format(time.TimeOnly))
	}
	text := cmp.Or(s.Check, "no check")
	if len(notes) > 0 {
		text += " (" + strings.Join(notes, ", ") + ")"
	}
	if s.CheckWarning != "" {
		text += "; warning: " + s.CheckWarning
	}
	return text
}

// age returns how long ago t was in a length that fits a table.
func age(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := now.Sub(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.0fs", max(0, d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// milliseconds returns a number of seconds as people read short times.
func milliseconds(seconds float64) string { return fmt.Sprintf("%.2f ms", seconds*1000) }

// size returns a number of bytes in a length that fits a table.
func size(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%dB", n)
	}
	v, unit := float64(n)/1024, 0
	for v >= 1024 && unit < len(units)-1 {
		v /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f%ciB", v, units[unit])
}

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n  ")
}
