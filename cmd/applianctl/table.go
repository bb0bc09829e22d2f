package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// table is rows of cells under a head, for a tabwriter.
type table struct {
	head []string
	rows [][]string
}

func newTable(head ...string) *table { return &table{head: head} }

func (t *table) add(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = fmt.Sprint(c)
	}
	t.rows = append(t.rows, row)
}

// write writes the table without the columns that tell nothing: in them each row
// has nothing or zero.
func (t *table) write(w io.Writer) {
	told := func(column int) bool {
		return len(t.rows) == 0 || slices.ContainsFunc(t.rows, func(row []string) bool {
			return !slices.Contains([]string{"", "-", "0", "0/s", "0B"}, row[column])
		})
	}
	for _, row := range append([][]string{t.head}, t.rows...) {
		var cells []string
		for column, cell := range row {
			if told(column) {
				cells = append(cells, cell)
			}
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
}
