package vrrp

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Demotion is one named amount that lowers a router's priority.
type Demotion struct {
	Source string
	// N is what it takes from the base priority, above 0.
	N      int
	Reason string
	// Since is when the source began to demote.
	Since time.Time
}

// FaultReport is one named reason for which a router takes no part.
type FaultReport struct {
	Source string
	Reason string
	Since  time.Time
}

// setDemotion makes source demote by n in list, or no longer for n below 1.
// The list is in the order in which the sources came.
func setDemotion(list []Demotion, now time.Time, source string, n int, reason string) []Demotion {
	i := slices.IndexFunc(list, func(d Demotion) bool { return d.Source == source })
	switch {
	case n < 1 && i >= 0:
		return slices.Delete(list, i, i+1)
	case n < 1:
		return list
	case i >= 0:
		list[i].N, list[i].Reason = n, reason
		return list
	}
	return append(list, Demotion{Source: source, N: n, Reason: reason, Since: now})
}

// setFault makes source report reason in list, or nothing for an empty reason.
// The list is in the order in which the sources came.
func setFault(list []FaultReport, now time.Time, source, reason string) []FaultReport {
	i := slices.IndexFunc(list, func(f FaultReport) bool { return f.Source == source })
	switch {
	case reason == "" && i >= 0:
		return slices.Delete(list, i, i+1)
	case reason == "":
		return list
	case i >= 0:
		list[i].Reason = reason
		return list
	}
	return append(list, FaultReport{Source: source, Reason: reason, Since: now})
}

// priorityWords says the effective priority, and what has lowered it.
func (m *Machine) priorityWords() string {
	if len(m.demotions) == 0 {
		return fmt.Sprint(m.Effective())
	}
	return fmt.Sprintf("%d: %d less %s", m.Effective(), m.cfg.Priority, m.demotionWords())
}

// demotionWords says by how much this node is demoted, and for what.
func (m *Machine) demotionWords() string {
	if len(m.demotions) == 0 {
		return "0"
	}
	words := make([]string, len(m.demotions))
	for i, d := range m.demotions {
		words[i] = fmt.Sprintf("%d for %s (%s)", d.N, d.Source, d.Reason)
	}
	return strings.Join(words, " and ")
}
