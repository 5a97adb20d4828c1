package waterfall

import (
	"slices"
	"strings"
	"time"

	"drover"
	"drover/internal/units"
)

// Chart is what is drawn: rows on one time axis.
type Chart struct {
	Title string
	// Head stands above the rows, Foot below them.
	Head, Foot []string
	// RowName is what the rows are: "phase" or "machine".
	RowName string
	Rows    []Row
	// Interrupted are the times in which the machine executed nothing; of many migrations, each row has its own.
	Interrupted *Span
	// axis is where all times are on.
	axis axis
}

// Row is one line of a chart.
type Row struct {
	Name string
	// Whole is from the row's first moment to its last.
	Whole Span
	Bars  []Bar
	Bytes drover.Bytes
	// Interrupted is set in charts of many migrations.
	Interrupted *Span
	// Notes stand below the row.
	Notes []string
}

// Bar is one phase.
type Bar struct {
	Phase drover.Phase
	Span
	Waits []Span
}

// Span is a piece of the time axis: offsets from its begin.
type Span struct {
	Begin, End time.Duration
	// GoesOn: it has not ended; End is what the axis calls now.
	GoesOn bool
}

// Length is how long the span is.
func (s Span) Length() time.Duration { return s.End - s.Begin }

// axis maps times to offsets.
type axis struct {
	begin, now time.Time
	total      time.Duration
}

// newAxis begins at the first time of the records that is one, and is at least a millisecond long.
func newAxis(begin, now time.Time) axis {
	if begin.IsZero() {
		begin = now
	}
	return axis{begin: begin, now: now, total: time.Millisecond}
}

// offset is where a time is on the axis; one before its begin, and none at all, are at the begin.
func (a *axis) offset(t time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return max(0, t.Sub(a.begin))
}

// span makes a span of two times and lets the axis reach its end. An end that is not known yet is now. The clocks of hosts may differ a
// little: nothing ends before it began.
func (a *axis) span(begin, end time.Time) Span {
	s := Span{Begin: a.offset(begin), GoesOn: end.IsZero()}
	if s.GoesOn {
		end = a.now
	}
	s.End = max(s.Begin, a.offset(end))
	a.total = max(a.total, s.End)
	return s
}

// at is the time of an offset.
func (a *axis) at(d time.Duration) time.Time { return a.begin.Add(d) }

// Of draws one migration: a row for each phase that was begun. now is the end of what goes on.
func Of(m drover.Migration, now time.Time) Chart {
	m = closed(m)
	c := Chart{Title: "Migration " + string(m.ID) + ": " + outcome(m), RowName: "phase", axis: newAxis(firstTime(m), now)}
	c.Head = append(c.Head, "machine "+string(m.Machine)+" of app "+string(m.App)+", from host "+string(m.Source)+" to "+string(m.Target))
	for _, d := range m.Disks {
		c.Head = append(c.Head, diskText(d))
	}
	if m.Problem != nil {
		c.Head = append(c.Head, "problem: "+m.Problem.Text)
	}
	for _, s := range m.Steps {
		bar := c.axis.bar(s)
		c.Rows = append(c.Rows, Row{Name: string(s.Phase), Whole: bar.Span, Bars: []Bar{bar}, Bytes: s.Bytes, Notes: notes(s)})
	}
	c.Interrupted = c.axis.interrupted(m)
	if d, ok := m.Interruption(); ok {
		c.Foot = append(c.Foot, "Interruption "+units.Duration(d)+", from "+units.Clock(m.StoppedAt)+" to "+units.Clock(m.RunningAt)+" UTC.")
	} else if notSeenAgain(m) {
		c.Foot = append(c.Foot, "The machine was stopped at "+units.Clock(m.StoppedAt)+" UTC and had not come to run again when the migration ended.")
	} else if c.Interrupted != nil && c.Interrupted.GoesOn {
		c.Foot = append(c.Foot, "Interrupted for "+units.Duration(max(0, now.Sub(m.StoppedAt)))+" so far, since "+units.Clock(m.StoppedAt)+" UTC.")
	}
	return c
}

// OfMany draws migrations on one time axis, in the order in which they are given: a row for each, with the phases one after the other in it.
func OfMany(title string, migrations []drover.Migration, now time.Time) Chart {
	var begin time.Time
	for _, m := range migrations {
		if t := firstTime(m); begin.IsZero() || (!t.IsZero() && t.Before(begin)) {
			begin = t
		}
	}
	c := Chart{Title: title, RowName: "machine", axis: newAxis(begin, now)}
	counts := map[drover.Outcome]int{}
	for _, m := range migrations {
		m = closed(m)
		counts[m.Outcome]++
		row := Row{Name: string(m.Machine), Bytes: m.Bytes(), Notes: []string{string(m.ID) + " of app " + string(m.App) + ", " + string(m.Source) + " to " +
			string(m.Target) + ": " + outcome(m)}}
		for i, s := range m.Steps {
			bar := c.axis.bar(s)
			if i == 0 {
				row.Whole = bar.Span
			}
			row.Whole = Span{Begin: min(row.Whole.Begin, bar.Begin), End: max(row.Whole.End, bar.End), GoesOn: bar.GoesOn}
			row.Bars = append(row.Bars, bar)
			for _, n := range notes(s) {
				row.Notes = append(row.Notes, string(s.Phase)+" "+n)
			}
		}
		row.Interrupted = c.axis.interrupted(m)
		c.Rows = append(c.Rows, row)
	}
	c.Head = append(c.Head, countText(counts))
	return c
}

// bar makes the bar of a step.
func (a *axis) bar(s drover.Step) Bar {
	bar := Bar{Phase: s.Phase, Span: a.span(s.StartedAt, s.EndedAt)}
	for _, w := range s.Waits {
		if w.From.IsZero() || w.Until.IsZero() {
			continue
		}
		wait := Span{Begin: max(bar.Begin, a.offset(w.From)), End: min(bar.End, a.offset(w.Until))}
		if wait.End > wait.Begin {
			bar.Waits = append(bar.Waits, wait)
		}
	}
	return bar
}

// interrupted is the interruption as far as it is known. That of an aborted migration ended on the source, at a time that its record does not have.
func (a *axis) interrupted(m drover.Migration) *Span {
	if m.StoppedAt.IsZero() || (m.RunningAt.IsZero() && m.Outcome == drover.Aborted) {
		return nil
	}
	end := m.RunningAt
	if notSeenAgain(m) {
		end = EndedAt(m)
	}
	s := a.span(m.StoppedAt, end)
	s.GoesOn = m.RunningAt.IsZero()
	return &s
}

// notSeenAgain: the migration ended well, and until then the machine had not come to run on the target.
func notSeenAgain(m drover.Migration) bool {
	return m.Outcome == drover.Succeeded && m.WasRunning && !m.StoppedAt.IsZero() && m.RunningAt.IsZero()
}

// closed is a record in which no step goes on when the migration has ended: what was never written down ended with the migration.
func closed(m drover.Migration) drover.Migration {
	if !m.Ended() {
		return m
	}
	m.Steps = slices.Clone(m.Steps)
	for i := range m.Steps {
		if s := &m.Steps[i]; s.EndedAt.IsZero() {
			s.EndedAt = m.UpdatedAt
		}
		if s := &m.Steps[i]; s.EndedAt.Before(s.StartedAt) {
			s.EndedAt = s.StartedAt
		}
	}
	return m
}

// firstTime is when the record begins.
func firstTime(m drover.Migration) time.Time {
	for _, s := range m.Steps {
		if !s.StartedAt.IsZero() {
			return s.StartedAt
		}
	}
	return m.CreatedAt
}

func notes(s drover.Step) []string {
	var out []string
	if s.Waited != "" {
		out = append(out, "waited: "+s.Waited)
	}
	if s.Tries > 1 {
		out = append(out, "tries: "+itoa(s.Tries))
	}
	return out
}

func outcome(m drover.Migration) string {
	if m.Outcome == drover.Running {
		return "running, in phase " + string(m.Phase)
	}
	return string(m.Outcome)
}

func diskText(d drover.DiskMove) string {
	name := "root disk"
	switch {
	case d.Volume != "":
		name = "volume " + string(d.Volume)
	case d.Disk.HoldsMemory():
		name = "memory"
	}
	text := name + ": " + units.Size(d.Size)
	if d.Allocated > 0 {
		text += ", " + units.Size(d.Allocated) + " of it allocated"
	}
	return text
}

func countText(counts map[drover.Outcome]int) string {
	var parts []string
	total := 0
	for _, o := range []drover.Outcome{drover.Running, drover.Aborting, drover.Aborted, drover.Succeeded} {
		if counts[o] > 0 {
			parts = append(parts, itoa(counts[o])+" "+string(o))
		}
		total += counts[o]
	}
	if total == 0 {
		return "no migrations"
	}
	return plural(total, "migration") + ": " + strings.Join(parts, ", ")
}
