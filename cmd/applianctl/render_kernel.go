package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"appliance/internal/control"
)

// layer is the layer of a service for a table, and what carries its packets.
func layer(s control.Service) string {
	if s.Path == "kernel" {
		return fmt.Sprintf("L%d kernel", s.Layer)
	}
	return fmt.Sprintf("L%d", s.Layer)
}

// renderKernel prints what the kernel path carries.
func renderKernel(w io.Writer, k *control.Kernel) {
	if k == nil {
		return
	}
	state := "loaded"
	if !k.Loaded {
		state = "NOT LOADED"
	}
	fmt.Fprintf(w, "\nKERNEL PATH: %s", state)
	if k.Reason != "" {
		fmt.Fprintf(w, ": %s", k.Reason)
	}
	fmt.Fprintln(w)
	if !k.Loaded {
		return
	}
	fmt.Fprintf(w, "on %s, by %s; %d of %d flows, of which %d are half-open and %d the other node's\n", strings.Join(k.Interfaces, " "), k.Attach,
		k.Flows, k.FlowLimit, k.HalfOpen, k.Installed)
}

// renderFlowCopy prints what the nodes know of each other's flows.
func renderFlowCopy(w io.Writer, now time.Time, p control.Peer) {
	f := p.Flows
	if f == nil {
		return
	}
	state := "NO FULL COPY of its flows"
	switch {
	case f.Copying:
		state = "copying its flows"
	case f.Complete:
		state = fmt.Sprintf("full copy of its flows complete, %s ago", age(now, *f.Completed))
	}
	fmt.Fprintf(w, "%s: %s; %d told here, %d told there, %d waiting, lag %s, %s at most", p.Node, state, f.Heard, f.Sent, f.Waiting,
		milliseconds(max(f.LagSeconds, f.LastLagSeconds)), milliseconds(f.MaxLagSeconds))
	var dropped []string
	for _, reason := range slices.Sorted(maps.Keys(f.Dropped)) {
		if n := f.Dropped[reason]; n > 0 {
			dropped = append(dropped, fmt.Sprintf("%d %s", n, reason))
		}
	}
	if len(dropped) > 0 {
		fmt.Fprintf(w, "; dropped: %s", strings.Join(dropped, ", "))
	}
	fmt.Fprintln(w)
}
