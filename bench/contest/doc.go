// Package contest is what the comparisons with other proxies share: where they
// run, what a contestant costs, and how a result becomes a section of
// docs/benchmarks.md.
package contest
