package main

import (
	"errors"
	"regexp"
	"strconv"
	"time"
)

// result is what a load generator says.
type result struct {
	count           float64 // of requests
	bytes           float64 // that were read
	p50, p99, p99_9 time.Duration
}

// script is what wrk is told, with what a test adds: it prints percentiles only up to
// 99, and errors among other text.
const script = `
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("measured: %d requests, %.0f bytes, %d errors, %d %d %d us\n", summary.requests, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
`

var (
	wrkSays      = regexp.MustCompile(`measured: (\d+) requests, (\d+) bytes, (\d+) errors, (\d+) (\d+) (\d+) us`)
	h2loadCount  = regexp.MustCompile(`(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout`)
	h2loadStatus = regexp.MustCompile(`status codes: (\d+) 2xx`)
)

func wrkResult(out string) (r result, err error) {
	m := wrkSays.FindStringSubmatch(out)
	if m == nil || m[1] == "0" || m[3] != "0" {
		return r, errors.New("requests failed")
	}
	var n [7]float64
	for i := 1; i < len(m); i++ {
		if n[i], err = strconv.ParseFloat(m[i], 64); err != nil {
			return r, err
		}
	}
	us := func(n float64) time.Duration { return time.Duration(n) * time.Microsecond }
	return result{count: n[1], bytes: n[2], p50: us(n[4]), p99: us(n[5]), p99_9: us(n[6])}, nil
}

func h2loadResult(out string) (r result, err error) {
	m, s := h2loadCount.FindStringSubmatch(out), h2loadStatus.FindStringSubmatch(out)
	if m == nil || s == nil || m[2] != "0" || m[3] != "0" || m[4] != "0" || s[1] != m[1] {
		return r, errors.New("requests failed")
	}
	r.count, err = strconv.ParseFloat(m[1], 64)
	return r, err
}
