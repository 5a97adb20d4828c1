package main

import (
	"drover"
	"drover/apiv1"
	"drover/internal/durable"
	"drover/waterfall"
)

// chartOf is the waterfall of a migration, with how far its background copy is.
func chartOf(m apiv1.Migration) waterfall.Chart {
	c := waterfall.Of(m.Migration, m.AsOf)
	if h := m.Hydration; h != nil {
		c.Foot = append(c.Foot, "Hydration "+hydrationText(h)+".")
	}
	switch m.Traced {
	case drover.TraceExported:
		c.Foot = append(c.Foot, "Its trace "+string(m.TraceID)+" is exported.")
	case drover.TraceDropped:
		c.Foot = append(c.Foot, "Its trace could not be exported, and was given up.")
	}
	return c
}

// printChart draws a chart on stdout, or as SVG into a file; "-" is stdout.
func (c *cli) printChart(chart waterfall.Chart, svg string) error {
	switch svg {
	case "":
		return c.print("%s", waterfall.Text(chart, c.width))
	case "-":
		return c.print("%s", waterfall.SVG(chart))
	}
	if err := durable.WriteFile(svg, []byte(waterfall.SVG(chart)), 0o644); err != nil {
		return drover.Errorf(drover.Invalid, "cannot write the drawing to %q: %w", svg, err).WithHint("name a file in a directory that exists, or - for stdout")
	}
	return c.print("the drawing is in %s\n", svg)
}

// records takes the records out of what the API answered.
func records(migrations []apiv1.Migration) []drover.Migration {
	out := make([]drover.Migration, len(migrations))
	for i, m := range migrations {
		out[i] = m.Migration
	}
	return out
}
