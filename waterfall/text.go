package waterfall

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"drover"
	"drover/internal/units"
)

// narrowest is how wide the bars are at least, however narrow the terminal.
const narrowest = 10

// The letters that stand for phases where several are in one row. A phase that is not known has the letter of none of them.
const unknownLetter = '?'

func letter(p drover.Phase) byte {
	switch p {
	case drover.PhaseReserve:
		return 'r'
	case drover.PhaseExport:
		return 'e'
	case "converge":
		return 'c'
	case drover.PhaseQuiesce:
		return 'q'
	case drover.PhaseSwitch:
		return 'w'
	case drover.PhaseStart:
		return 's'
	case drover.PhaseHydrate:
		return 'h'
	case drover.PhaseDone:
		return '.'
	}
	return unknownLetter
}

// legend tells the letters of a chart of many migrations.
const legend = "r reserve, e export, c converge, q quiesce, w switch, s start, h hydrate; capitals while the machine is interrupted; > goes on"

// Text draws a chart for a terminal of a width: plain ASCII, no colour.
func Text(c Chart, width int) string {
	var b strings.Builder
	b.WriteString(c.Title + "\n")
	for _, line := range c.Head {
		b.WriteString("  " + line + "\n")
	}
	if len(c.Rows) > 0 {
		b.WriteByte('\n')
		c.writeRows(&b, width)
	}
	for i, line := range c.Foot {
		if i == 0 {
			b.WriteByte('\n')
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}

func (c Chart) writeRows(b *strings.Builder, width int) {
	many := c.RowName == "machine"
	name := len(c.RowName)
	for _, r := range c.Rows {
		name = max(name, len(r.Name))
	}
	if !many {
		name = max(name, len("reserve")+1)
	}
	columns := fmt.Sprintf("%%-%ds  %%9s  %%9s  %%9s  ", name)
	labels := name + 2 + 9 + 2 + 9 + 2 + 9 + 2
	bars := canvas{axis: c.axis, width: max(narrowest, width-labels)}
	fmt.Fprintf(b, columns+"%s\n", strings.ToUpper(c.RowName), "START", "LENGTH", "BYTES", bars.scale())
	for _, r := range c.Rows {
		drawn := ""
		if many {
			drawn = bars.many(r)
		} else if len(r.Bars) > 0 {
			drawn = bars.one(r.Bars[0])
		}
		fmt.Fprintf(b, columns+"%s\n", r.Name, "+"+units.Duration(r.Whole.Begin), units.Duration(r.Whole.Length()), sizeOrNone(r.Bytes), drawn)
		for _, n := range r.Notes {
			b.WriteString("          " + n + "\n")
		}
	}
	if many {
		b.WriteString("\n" + legend + "\n")
	}
}

// canvas draws spans in columns.
type canvas struct {
	axis  axis
	width int
}

func (v canvas) column(d time.Duration) int {
	return max(0, min(v.width, int(float64(d)/float64(v.axis.total)*float64(v.width))))
}

// columns are those of a span: one at least.
func (v canvas) columns(s Span) (from, to int) {
	from = min(v.column(s.Begin), v.width-1)
	return from, max(v.column(s.End), from+1)
}

// one draws one phase: open to the right while it goes on, with '-' where it waited for something else for a column or more.
func (v canvas) one(bar Bar) string {
	from, to := v.columns(bar.Span)
	line := []byte(strings.Repeat(" ", from) + strings.Repeat("#", to-from))
	for _, w := range bar.Waits {
		a, z := v.column(w.Begin), v.column(w.End)
		for i := max(a, from); i < min(z, to); i++ {
			line[i] = '-'
		}
	}
	if bar.GoesOn {
		line[len(line)-1] = '>'
	}
	return string(line)
}

// many draws the phases of one migration one over the other; what takes less than a column is seen where nothing longer comes after it.
func (v canvas) many(r Row) string {
	line := []byte(strings.Repeat(" ", v.width))
	for _, bar := range r.Bars {
		if bar.Phase == drover.PhaseDone {
			continue
		}
		from, to := v.columns(bar.Span)
		for i := from; i < to; i++ {
			line[i] = letter(bar.Phase)
		}
		if bar.GoesOn {
			line[to-1] = '>'
		}
	}
	if r.Interrupted != nil {
		from, to := v.columns(*r.Interrupted)
		for i := from; i < to; i++ {
			if line[i] >= 'a' && line[i] <= 'z' {
				line[i] -= 'a' - 'A'
			}
		}
	}
	return strings.TrimRight(string(line), " ")
}

// scale labels the ends of the axis.
func (v canvas) scale() string {
	right := units.Duration(v.axis.total)
	return "0" + strings.Repeat(" ", max(1, v.width-1-len(right))) + right
}

func sizeOrNone(b drover.Bytes) string {
	if b <= 0 {
		return "-"
	}
	return units.Size(b)
}

func itoa(n int) string { return strconv.Itoa(n) }

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return itoa(n) + " " + noun + "s"
}
