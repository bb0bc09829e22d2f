package config

import (
	"fmt"
	"slices"
)

// report collects the problems of one file and knows where its keys are.
type report struct {
	file      string
	positions *positions
	// partial is set when statements that could not be read were left out. From
	// then on nothing can be said about what the file lacks.
	partial  bool
	problems Problems
	// bad are the paths whose values could not be read. What validation says
	// about them would only be about the zero value left in their place.
	bad []string
}

// add records a problem at a path. What is not in the file is reported at the
// table that should hold it.
func (r *report) add(path, message string) {
	line, column := 1, 1
	for at := path; at != ""; at = parent(at) {
		if offset, ok := r.positions.lookup(at); ok {
			line, column = r.positions.at(offset)
			break
		}
	}
	r.problems = append(r.problems, Problem{File: r.file, Line: line, Column: column, Key: path, Message: message})
}

// unreadable records that the value at path could not be read.
func (r *report) unreadable(path, format string, args ...any) {
	r.add(path, fmt.Sprintf(format, args...))
	r.bad = append(r.bad, path)
}

// invalid records a problem with a value that could be read, or with one that
// is missing.
func (r *report) invalid(path, format string, args ...any) {
	if _, present := r.positions.lookup(path); r.partial && !present {
		return
	}
	if !r.isBad(path) {
		r.add(path, fmt.Sprintf(format, args...))
	}
}

// isBad reports whether the value at path, something in it or what holds it could
// not be read.
func (r *report) isBad(path string) bool {
	return slices.ContainsFunc(r.bad, func(b string) bool { return within(path, b) || within(b, path) })
}

// dangling records that the value at path names something that is not in the
// file. Where a whole table could not be read, it may have been there.
func (r *report) dangling(path, format string, args ...any) {
	if !r.partial && !slices.ContainsFunc(r.bad, func(b string) bool { return parent(b) == "" }) {
		r.invalid(path, format, args...)
	}
}

// under returns a function for the Validate methods of the engines, whose keys
// are relative to path.
func (r *report) under(path string) func(key, message string) {
	return func(key, message string) { r.invalid(path+"."+key, "%s", message) }
}

// err returns the problems in order, or nil when there are none.
func (r *report) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	return r.problems.sorted()
}
