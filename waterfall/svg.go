package waterfall

import (
	"encoding/xml"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"drover"
	"drover/internal/units"
)

// The measures of a drawing, in its own units. The bars are right of the columns, which are what a reader without the bars needs.
const (
	svgWidth  = 1000
	svgLeft   = 20
	colStart  = 150
	colLength = 262
	colBytes  = 342
	colBars   = 430
	svgRight  = 980
	rowHeight = 26
	barHeight = 16
	lineStep  = 16
	// charWidth is how wide a character of the smaller letters is at most, for what has to fit.
	charWidth = 7
	// longest is how many characters of a line are shown.
	longest = 130
)

// pen writes a drawing. What it is given as text is escaped.
type pen struct {
	b strings.Builder
	c Chart
	y int
}

// SVG draws a chart as a document of its own: black on white, with a pattern for each phase, so that it can be read without colours, and with all of its
// text in a description, so that it can be read without seeing it. Times are UTC.
func SVG(c Chart) string {
	body := pen{c: c, y: 34}
	body.head()
	top := body.y
	body.rows()
	body.interruption(top)
	body.foot()
	var out pen
	out.raw(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-labelledby="title desc">`+"\n",
		svgWidth, body.y+10, svgWidth, body.y+10)
	out.raw(`<title id="title">%s</title>`+"\n"+`<desc id="desc">%s</desc>`+"\n", escape(c.Title), escape(describe(c)))
	out.raw("%s", svgStyle)
	out.raw(`<rect width="100%%" height="100%%" fill="#fff"/>` + "\n")
	out.b.WriteString(body.b.String())
	out.raw("</svg>\n")
	return out.b.String()
}

// svgStyle has the letters and the patterns. Each phase differs from all others by its pattern alone.
const svgStyle = `<style>
text { font: 12px monospace; fill: #000 }
.title { font: bold 16px sans-serif }
.head { font-weight: bold }
.note { fill: #333 }
.grid { stroke: #ccc; stroke-width: 1 }
.bar { stroke: #000; stroke-width: 1 }
.wait { fill: #fff; stroke: #000; stroke-width: 1; stroke-dasharray: 2 2 }
.stop { fill: none; stroke: #000; stroke-width: 2; stroke-dasharray: 6 3 }
.halo { fill: #fff; fill-opacity: .85 }
</style>
<defs>
<pattern id="p-reserve" width="6" height="6" patternUnits="userSpaceOnUse"><rect width="6" height="6" fill="#e8eef8"/><circle cx="3" cy="3" r="1" fill="#000"/></pattern>
<pattern id="p-export" width="6" height="6" patternUnits="userSpaceOnUse"><rect width="6" height="6" fill="#dcebdc"/><path d="M0 3H6" stroke="#000"/></pattern>
<pattern id="p-converge" width="6" height="6" patternUnits="userSpaceOnUse"><rect width="6" height="6" fill="#e6f4f4"/><path d="M0 3H6M3 0V6" stroke="#000" stroke-width=".7"/></pattern>
<pattern id="p-quiesce" width="6" height="6" patternUnits="userSpaceOnUse"><rect width="6" height="6" fill="#fbe3d0"/><path d="M0 6L6 0" stroke="#000"/></pattern>
<pattern id="p-switch" width="6" height="6" patternUnits="userSpaceOnUse"><rect width="6" height="6" fill="#333"/></pattern>
<pattern id="p-start" width="6" height="6" patternUnits="userSpaceOnUse"><rect width="6" height="6" fill="#f8dede"/><path d="M0 0L6 6" stroke="#000"/></pattern>
<pattern id="p-hydrate" width="8" height="8" patternUnits="userSpaceOnUse"><rect width="8" height="8" fill="#eee8f6"/><path d="M4 0V8" stroke="#000" stroke-width=".7"/></pattern>
<pattern id="p-other" width="6" height="6" patternUnits="userSpaceOnUse"><rect width="6" height="6" fill="#fff"/></pattern>
</defs>
`

// patterned are the phases that have a pattern, in the order of the legend.
var patterned = [...]drover.Phase{drover.PhaseReserve, drover.PhaseExport, "converge", drover.PhaseQuiesce, drover.PhaseSwitch, drover.PhaseStart, drover.PhaseHydrate}

func pattern(p drover.Phase) string {
	for _, known := range patterned {
		if p == known {
			return "p-" + string(known)
		}
	}
	return "p-other"
}

func (p *pen) raw(format string, args ...any) { fmt.Fprintf(&p.b, format, args...) }

// text writes a line of text that begins, or with anchor "end" ends, at x.
func (p *pen) text(x, y int, class, anchor, text string) {
	p.raw(`<text x="%d" y="%d"`, x, y)
	if class != "" {
		p.raw(` class="%s"`, class)
	}
	if anchor != "" {
		p.raw(` text-anchor="%s"`, anchor)
	}
	p.raw(">%s</text>\n", escape(short(text)))
}

// line writes a line of text and goes one down.
func (p *pen) line(class, text string) {
	p.text(svgLeft, p.y, class, "", text)
	p.y += lineStep
}

// head writes the title, the lines under it, the names of the columns, and the scale.
func (p *pen) head() {
	p.line("title", p.c.Title)
	p.y += 4
	for _, text := range p.c.Head {
		p.line("", text)
	}
	if len(p.c.Rows) == 0 {
		return
	}
	begin, end := p.c.axis.begin.UTC(), p.c.axis.at(p.c.axis.total).UTC()
	p.line("note", "from "+begin.Format("2006-01-02 15:04:05.000")+" to "+end.Format("2006-01-02 15:04:05.000")+" UTC, "+units.Duration(p.c.axis.total))
	p.y += 26
	p.text(svgLeft, p.y, "head", "", strings.ToUpper(p.c.RowName))
	p.text(colStart, p.y, "head", "", "START UTC")
	p.text(colLength+60, p.y, "head", "end", "LENGTH")
	p.text(colBytes+70, p.y, "head", "end", "BYTES")
	p.text(colBars, p.y, "head", "", "+0")
	p.text(svgRight, p.y, "head", "end", "+"+units.Duration(p.c.axis.total))
	p.y += 8
}

// x is where an offset is drawn, to a tenth.
func (p *pen) x(d time.Duration) float64 {
	part := min(1, max(0, float64(d)/float64(p.c.axis.total)))
	return colBars + part*(svgRight-colBars)
}

func (p *pen) rows() {
	if len(p.c.Rows) == 0 {
		return
	}
	height := 0
	for _, r := range p.c.Rows {
		height += rowHeight + lineStep*len(r.Notes)
	}
	const parts = 4
	for i := range parts + 1 {
		x := colBars + i*(svgRight-colBars)/parts
		p.raw(`<path class="grid" d="M%d %dV%d"/>`+"\n", x, p.y, p.y+height)
	}
	for _, r := range p.c.Rows {
		p.row(r)
	}
}

func (p *pen) row(r Row) {
	base := p.y + rowHeight - 9
	p.text(svgLeft, base, "", "", r.Name)
	p.text(colStart, base, "", "", units.Clock(p.c.axis.at(r.Whole.Begin)))
	length := units.Duration(r.Whole.Length())
	if r.Whole.GoesOn {
		length += " >"
	}
	p.text(colLength+60, base, "", "end", length)
	p.text(colBytes+70, base, "", "end", sizeOrNone(r.Bytes))
	top := p.y + (rowHeight-barHeight)/2
	for _, bar := range r.Bars {
		p.bar(bar, top, len(r.Bars) > 1)
	}
	if r.Interrupted != nil {
		p.bracket(*r.Interrupted, top+barHeight+3)
	}
	p.y += rowHeight
	for _, n := range r.Notes {
		p.text(svgLeft+20, p.y+8, "note", "", n)
		p.y += lineStep
	}
}

// bar draws a phase: as wide as can be seen at least, with its waits in it, and its name where there is room for it.
func (p *pen) bar(bar Bar, top int, named bool) {
	const seen = 1.5
	if named && bar.Phase == drover.PhaseDone {
		return
	}
	from := p.x(bar.Begin)
	width := max(seen, p.x(bar.End)-from)
	from = min(from, svgRight-width)
	p.raw(`<g><title>%s</title><rect class="bar" x="%.1f" y="%d" width="%.1f" height="%d" fill="url(#%s)"/>`, escape(p.c.spanText(string(bar.Phase), bar.Span)),
		from, top, width, barHeight, pattern(bar.Phase))
	for _, w := range bar.Waits {
		p.raw(`<rect class="wait" x="%.1f" y="%d" width="%.1f" height="%d"/>`, p.x(w.Begin), top+4, max(seen, p.x(w.End)-p.x(w.Begin)), barHeight-8)
	}
	if bar.GoesOn {
		p.raw(`<path d="M%.1f %dl8 %dl-8 %dz"/>`, from+width, top, barHeight/2, barHeight/2)
	}
	if room := float64(charWidth * (len(bar.Phase) + 1)); named && width > room {
		p.raw(`<rect class="halo" x="%.1f" y="%d" width="%.1f" height="%d"/><text x="%.1f" y="%d">%s</text>`, from+2, top+2, room-2, barHeight-4, from+4, top+12,
			escape(string(bar.Phase)))
	}
	p.raw("</g>\n")
}

// bracket draws the interruption of one row under its bars.
func (p *pen) bracket(s Span, y int) {
	from, to := p.x(s.Begin), max(p.x(s.End), p.x(s.Begin)+1)
	p.raw(`<g><title>%s</title><path d="M%.1f %dv-3M%.1f %dH%.1fM%.1f %dv-3" fill="none" stroke="#000" stroke-width="2"/></g>`+"\n",
		escape(p.c.spanText("interrupted", s)), from, y, from, y, to, to, y)
}

// interruption marks the interruption of a chart of one migration over all of its rows.
func (p *pen) interruption(top int) {
	if p.c.Interrupted == nil || len(p.c.Rows) == 0 {
		return
	}
	s := *p.c.Interrupted
	from, to := p.x(s.Begin), p.x(s.End)
	p.raw(`<g><title>%s</title><path class="stop" d="M%.1f %dV%dM%.1f %dV%d"/></g>`+"\n", escape(p.c.spanText("interrupted", s)), from, top-24, p.y, to, top-24, p.y)
	text, x, anchor := "interrupted "+units.Duration(s.Length()), int(from)+4, ""
	if x+charWidth*len(text) > svgRight {
		x, anchor = svgRight, "end"
	}
	p.text(x, top-26, "", anchor, text)
}

// foot writes what stands below, and what the patterns mean.
func (p *pen) foot() {
	p.y += lineStep
	for _, text := range p.c.Foot {
		p.line("", text)
	}
	if len(p.c.Rows) == 0 {
		return
	}
	p.y += 6
	x := svgLeft
	for _, phase := range patterned {
		p.raw(`<rect class="bar" x="%d" y="%d" width="16" height="12" fill="url(#%s)"/>`, x, p.y-10, pattern(phase))
		p.text(x+20, p.y, "", "", string(phase))
		x += 20 + charWidth*(len(phase)+2)
	}
	p.raw(`<rect class="wait" x="%d" y="%d" width="16" height="8"/>`, x, p.y-8)
	p.text(x+20, p.y, "", "", "waited")
	x += 20 + charWidth*8
	mark := "between the dashed lines: interrupted"
	if p.c.RowName == "machine" {
		mark = "line under the bars: interrupted"
	}
	p.text(x, p.y, "", "", mark+"; >: goes on")
	p.y += lineStep
}

// spanText says what a span is.
func (c Chart) spanText(name string, s Span) string {
	text := name + " " + units.Duration(s.Length()) + ", from " + units.Clock(c.axis.at(s.Begin))
	if s.GoesOn {
		return text + " UTC, and goes on"
	}
	return text + " to " + units.Clock(c.axis.at(s.End)) + " UTC"
}

// describe is the drawing in words: every row with its times, which is all that the bars show.
func describe(c Chart) string {
	var b strings.Builder
	lines := func(texts []string) {
		for _, t := range texts {
			b.WriteString(t + "\n")
		}
	}
	lines(c.Head)
	for _, r := range c.Rows {
		b.WriteString(c.spanText(r.Name, r.Whole))
		if r.Bytes > 0 {
			b.WriteString(", " + units.Size(r.Bytes))
		}
		if len(r.Bars) > 1 {
			for _, bar := range r.Bars {
				b.WriteString("; " + string(bar.Phase) + " " + units.Duration(bar.Length()))
			}
		}
		if r.Interrupted != nil {
			b.WriteString("; " + c.spanText("interrupted", *r.Interrupted))
		}
		b.WriteString("\n")
		lines(r.Notes)
	}
	if c.Interrupted != nil {
		b.WriteString(c.spanText("interrupted", *c.Interrupted) + "\n")
	}
	lines(c.Foot)
	return b.String()
}

// short cuts a line that would leave the drawing; the description has the whole of it.
func short(text string) string {
	if utf8.RuneCountInString(text) <= longest {
		return text
	}
	return string([]rune(text)[:longest-3]) + "..."
}

// escape makes any text one that XML may have: what XML cannot hold is replaced.
func escape(text string) string {
	var b strings.Builder
	if err := xml.EscapeText(&b, []byte(text)); err != nil {
		return "?" // a Builder takes everything
	}
	return strings.ReplaceAll(b.String(), "&#xA;", "\n")
}
