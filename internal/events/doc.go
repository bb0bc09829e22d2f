// Package events is the history of a node: what happened, when, and why, in
// words, kept across restarts. It imports nothing of ours.
//
// Log (log.go) takes events from anywhere and never makes anybody wait: it keeps
// the latest in memory, for those who ask and those who follow, and a goroutine
// of its own writes them down (file.go). The file is one JSON object a line, is
// bounded by one rotation, and may be lost, torn or unwritable without harm: then
// a warning says so, and what is in memory still tells.
package events
