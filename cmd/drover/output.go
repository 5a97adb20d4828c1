package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"drover"
)

// printJSON writes the value as the API does, indented.
func (c *cli) printJSON(v any) error { return c.encode(v, "  ") }

// encode writes the value as JSON on lines of its own; on one if there is no indent.
func (c *cli) encode(v any, indent string) error {
	encoder := json.NewEncoder(c.stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", indent)
	if err := encoder.Encode(v); err != nil {
		return drover.Errorf(drover.Internal, "cannot write to stdout: %w", err)
	}
	return nil
}

// print writes to stdout. An answer that cannot be written was not given, so it is an error.
func (c *cli) print(format string, args ...any) error {
	if _, err := fmt.Fprintf(c.stdout, format, args...); err != nil {
		return drover.Errorf(drover.Internal, "cannot write to stdout: %w", err)
	}
	return nil
}

// table is rows of cells below a header.
type table struct {
	header []string
	rows   [][]string
	// spare are the columns that a narrow terminal does without, those first that are missed least.
	spare []string
}

// add appends a row. An empty cell is shown as "-", so that columns can be told apart and cut by programs.
func (t *table) add(cells ...any) {
	row := make([]string, len(cells))
	for i, cell := range cells {
		if row[i] = fmt.Sprint(cell); row[i] == "" {
			row[i] = "-"
		}
	}
	t.rows = append(t.rows, row)
}

// printTable writes the rows with aligned columns, or the text when there are none.
func (c *cli) printTable(t table, none string) error {
	if len(t.rows) == 0 {
		fmt.Fprintln(c.stderr, none)
		return nil
	}
	fit := c.fit && !c.wide && c.width > 0
	var left []string
	if fit {
		t, left = t.without(c.width)
		t = t.narrow(c.width)
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	writeRow(w, t.header)
	for _, row := range t.rows {
		writeRow(w, row)
	}
	if err := w.Flush(); err != nil {
		return drover.Errorf(drover.Internal, "cannot format the table: %w", err)
	}
	if len(left) > 0 {
		fmt.Fprintf(&b, "(--wide shows %s)\n", strings.Join(left, ", "))
	}
	if fit {
		return c.print("%s", clip(b.String(), c.width))
	}
	return c.print("%s", b.String())
}

func writeRow(w io.Writer, cells []string) { fmt.Fprintln(w, strings.Join(cells, "\t")) }

// printFields writes names and values below each other. Fields with an empty value are left out.
func (c *cli) printFields(fields ...[2]string) error {
	widest := 0
	for _, f := range fields {
		if f[1] != "" {
			widest = max(widest, len(f[0]))
		}
	}
	for _, f := range fields {
		if f[1] == "" {
			continue
		}
		if err := c.print("%-*s  %s\n", widest, f[0], f[1]); err != nil {
			return err
		}
	}
	return nil
}
