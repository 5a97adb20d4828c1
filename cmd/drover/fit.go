package main

import (
	"slices"
	"strings"
)

const (
	// tableGap is what is between two columns.
	tableGap = 2
	// glance is how much of a cell is read at a glance.
	glance = 24
	// leastColumn is how narrow a column may become.
	leastColumn = 6
	// cutMark ends what was cut.
	cutMark = ".."
)

// widths are those of the columns.
func (t table) widths() []int {
	widths := make([]int, len(t.header))
	for _, row := range append([][]string{t.header}, t.rows...) {
		for k, cell := range row {
			widths[k] = max(widths[k], len([]rune(cell)))
		}
	}
	return widths
}

// without leaves out the columns that can be done without, one after another, until the others fit into the width with as much of their text as is
// read at a glance. It returns which ones those are.
func (t table) without(width int) (table, []string) {
	var left []string
	for _, name := range t.spare {
		total := -tableGap
		for _, w := range t.widths() {
			total += min(w, glance) + tableGap
		}
		k := slices.Index(t.header, name)
		if total <= width || k < 0 {
			continue
		}
		left = append(left, name)
		fewer := table{header: slices.Delete(slices.Clone(t.header), k, k+1)}
		for _, row := range t.rows {
			fewer.rows = append(fewer.rows, slices.Delete(slices.Clone(row), k, k+1))
		}
		fewer.spare, t = t.spare, fewer
	}
	return t, left
}

// narrow makes a table fit into a width: the widest columns lose their ends, but the first, which names what the row is about. What is still too
// wide is cut at the right.
func (t table) narrow(width int) table {
	widths := t.widths()
	total := -tableGap
	for _, w := range widths {
		total += w + tableGap
	}
	for total > width {
		widest := 0
		for k, w := range widths {
			if k > 0 && w > max(leastColumn, len(t.header[k])) && (widest == 0 || w > widths[widest]) {
				widest = k
			}
		}
		if widest == 0 {
			break
		}
		widths[widest]--
		total--
	}
	out := table{header: t.header}
	for _, row := range t.rows {
		cut := make([]string, len(row))
		for k, cell := range row {
			cut[k] = shorten(cell, widths[k])
		}
		out.rows = append(out.rows, cut)
	}
	return out
}

// shorten cuts a text to a width.
func shorten(text string, width int) string {
	letters := []rune(text)
	if len(letters) <= width {
		return text
	}
	return string(letters[:max(0, width-len(cutMark))]) + cutMark
}

// clip cuts every line at a width.
func clip(text string, width int) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		body := strings.TrimSuffix(line, "\n")
		b.WriteString(strings.TrimRight(string([]rune(body)[:min(len([]rune(body)), width)]), " "))
		b.WriteString(line[len(body):])
	}
	return b.String()
}
