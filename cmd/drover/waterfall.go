package main

import (
	"fmt"
	"strings"
	"time"

	"drover"
	"drover/apiv1"
)

// The columns of the waterfall before the bars.
const (
	waterfallColumns = "%-8s  %9s  %9s  %9s  "
	waterfallLabels  = 8 + 2 + 9 + 2 + 9 + 2 + 9 + 2
	// narrowestBars is how wide the bars are at least, however narrow the terminal.
	narrowestBars = 10
)

// waterfall draws a migration: a row per phase with a bar on a common time axis, as wide as the terminal allows.
func waterfall(m apiv1.Migration, width int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Migration %s: %s\n", m.ID, outcomeText(m))
	fmt.Fprintf(&b, "  machine %s of app %s, from host %s to %s\n", m.Machine, m.App, m.Source, m.Target)
	for _, d := range m.Disks {
		fmt.Fprintf(&b, "  %s\n", diskText(d))
	}
	if m.Problem != nil {
		fmt.Fprintf(&b, "  problem: %s\n", m.Problem.Text)
	}
	if len(m.Steps) > 0 {
		b.WriteByte('\n')
		axis := newAxis(m, max(narrowestBars, width-waterfallLabels))
		fmt.Fprintf(&b, waterfallColumns+"%s\n", "PHASE", "START", "LENGTH", "BYTES", axis.scale())
		for _, s := range m.Steps {
			writeStep(&b, axis, s)
		}
	}
	if m.InterruptionMS != nil {
		fmt.Fprintf(&b, "\nInterruption %s, from %s to %s.\n", interruptionText(m), clock(m.StoppedAt), clock(m.RunningAt))
	} else if !m.StoppedAt.IsZero() && !m.Ended() {
		fmt.Fprintf(&b, "\nInterrupted for %s so far, since %s.\n", durationText(m.AsOf.Sub(m.StoppedAt)), clock(m.StoppedAt))
	}
	if h := m.Hydration; h != nil {
		fmt.Fprintf(&b, "Hydration %s.\n", hydrationText(h))
	}
	return b.String()
}

func outcomeText(m apiv1.Migration) string {
	if m.Outcome == drover.Running {
		return "running, in phase " + string(m.Phase)
	}
	return string(m.Outcome)
}

func diskText(d drover.DiskMove) string {
	name := "root disk"
	if d.Volume != "" {
		name = "volume " + string(d.Volume)
	}
	text := fmt.Sprintf("%s: %s", name, sizeText(d.Size))
	if d.Allocated > 0 {
		text += fmt.Sprintf(", %s of it allocated", sizeText(d.Allocated))
	}
	return text
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }

func writeStep(b *strings.Builder, a axis, s drover.Step) {
	begin, end := a.offset(s.StartedAt), a.offset(a.endOf(s))
	bytes := "-"
	if s.Bytes > 0 {
		bytes = sizeText(s.Bytes)
	}
	fmt.Fprintf(b, waterfallColumns+"%s\n", s.Phase, "+"+durationText(begin), durationText(end-begin), bytes, a.bar(begin, end, s.EndedAt.IsZero()))
	if s.Waited != "" {
		fmt.Fprintf(b, "          waited: %s\n", s.Waited)
	}
	if s.Tries > 1 {
		fmt.Fprintf(b, "          tries: %d\n", s.Tries)
	}
}

// axis maps times to columns.
type axis struct {
	begin time.Time
	now   time.Time
	total time.Duration
	width int
}

func newAxis(m apiv1.Migration, width int) axis {
	a := axis{begin: m.Steps[0].StartedAt, now: m.AsOf, width: width}
	for _, s := range m.Steps {
		a.total = max(a.total, a.offset(a.endOf(s)))
	}
	a.total = max(a.total, time.Millisecond)
	return a
}

// endOf is when the step ended, or now. The clocks of hosts may differ a little: no step ends before it started.
func (a axis) endOf(s drover.Step) time.Time {
	end := s.EndedAt
	if end.IsZero() {
		end = a.now
	}
	if end.Before(s.StartedAt) {
		return s.StartedAt
	}
	return end
}

func (a axis) offset(t time.Time) time.Duration { return max(0, t.Sub(a.begin)) }

func (a axis) column(d time.Duration) int {
	return min(a.width, int(float64(d)/float64(a.total)*float64(a.width)))
}

// bar draws one step: at least one column wide, and open to the right while it goes on.
func (a axis) bar(begin, end time.Duration, goesOn bool) string {
	from, to := a.column(begin), a.column(end)
	from = min(from, a.width-1)
	to = max(to, from+1)
	bar := strings.Repeat(" ", from) + strings.Repeat("#", to-from)
	if goesOn {
		bar = bar[:len(bar)-1] + ">"
	}
	return bar
}

// scale labels the ends of the axis.
func (a axis) scale() string {
	right := durationText(a.total)
	return "0" + strings.Repeat(" ", max(1, a.width-1-len(right))) + right
}
