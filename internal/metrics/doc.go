// Package metrics shows a node's status to Prometheus. It keeps no numbers of its
// own: each scrape asks for the status as `applianctl status` does, and tells it in
// other words. docs/metrics.md lists what there is.
package metrics
