package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one mistake in a configuration file.
type Problem struct {
	// File is the file's name as it was given to Load or Parse.
	File string
	// Line and Column say where the key, or the element of an array, begins.
	// Both start at 1 and Column counts characters. What is missing is reported
	// where the table begins that should hold it.
	Line, Column int
	// Key is the path of the key, such as "l4[1].listen[0]", elements of arrays
	// counted from 0. It is empty for a problem of the whole file.
	Key string
	// Message says what is wrong and what would be right.
	Message string
}

// String returns the problem in one line, as compilers print theirs:
// "appliance.toml:12:3: l4[1].listen[0]: message".
func (p Problem) String() string {
	key := p.Key
	if key != "" {
		key += ": "
	}
	return fmt.Sprintf("%s:%d:%d: %s%s", p.File, p.Line, p.Column, key, p.Message)
}

// Problems are all mistakes of a file in the order of their positions. As an
// error they read as one line for each.
type Problems []Problem

// Error returns one line for each problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// sorted returns the problems ordered by position, each once.
func (p Problems) sorted() Problems {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	var once Problems
	seen := make(map[Problem]bool, len(p))
	for _, problem := range p {
		if !seen[problem] {
			seen[problem] = true
			once = append(once, problem)
		}
	}
	return once
}
