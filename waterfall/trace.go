package waterfall

import (
	"slices"
	"time"

	"drover"
)

// Parent is the ID of what asked for a migration, and in whose trace it is; empty for one that was asked for by itself. This is the one place that knows.
func Parent(m drover.Migration) string { return string(m.Drain) }

// TraceOf is the trace that a migration is in.
func TraceOf(m drover.Migration) drover.TraceID {
	if parent := Parent(m); parent != "" {
		return drover.TraceOf(parent)
	}
	return drover.TraceOf(string(m.ID))
}

// Trace makes the trace of a migration that has ended: a span for the whole of it, one for each phase, one for each wait in a phase, and an event for each
// order that a host answered. All IDs are derived from those of the records, so a trace that is made again is the same trace.
//
// parent is the ID of what asked for the migration, such as a drain; empty when it was asked for by itself. A migration with a parent is in the trace of
// that parent, below its first span.
func Trace(m drover.Migration, parent string) []drover.Span {
	m = closed(m)
	id := string(m.ID)
	root := drover.Span{Trace: drover.TraceOf(id), ID: drover.SpanOf(id), Name: "migration", Start: firstTime(m), End: EndedAt(m), Attributes: attributes(m)}
	if parent != "" {
		root.Trace, root.Parent = drover.TraceOf(parent), drover.SpanOf(parent)
		root.Attributes = append(root.Attributes, text("drover.parent", parent))
	}
	if m.Outcome == drover.Aborted {
		root.Problem = "aborted"
		if m.Problem != nil {
			root.Problem = m.Problem.Text
		}
	}
	if !m.StoppedAt.IsZero() {
		root.Events = append(root.Events, drover.SpanEvent{Name: "machine stopped", At: m.StoppedAt, Attributes: []drover.Attribute{text("drover.host", string(m.Source))}})
	}
	if !m.RunningAt.IsZero() {
		root.Events = append(root.Events, drover.SpanEvent{Name: "machine running", At: m.RunningAt, Attributes: []drover.Attribute{text("drover.host", string(m.Target))}})
	}
	var spans []drover.Span
	for i, s := range m.Steps {
		if s.Phase != drover.PhaseDone {
			spans = append(spans, phaseSpans(root, id, i, s)...)
		}
	}
	return append([]drover.Span{sound(root)}, spans...)
}

// DrainSpan is the span of a drain that has ended: the first of its trace, above those of its migrations.
func DrainSpan(d drover.Drain) drover.Span {
	id := string(d.ID)
	span := drover.Span{Trace: drover.TraceOf(id), ID: drover.SpanOf(id), Name: string(d.Kind), Start: d.CreatedAt, End: d.EndedAt, Attributes: []drover.Attribute{
		text("drover.drain", id), text("drover.host", string(d.Host)), text("drover.region", string(d.Region)), text("drover.actor", d.Actor),
		text("drover.state", string(d.State)), number("drover.machines", int64(d.Totals.Machines)), number("drover.moved", int64(d.Totals.Moved)),
		number("drover.bytes", int64(d.Totals.Copied))}}
	if d.State != drover.DrainDone {
		span.Problem = string(d.State)
		if d.Problem != nil {
			span.Problem = d.Problem.Text
		}
	}
	return sound(span)
}

// phaseSpans are the span of a phase and those of its waits.
func phaseSpans(root drover.Span, id string, index int, s drover.Step) []drover.Span {
	span := drover.Span{Trace: root.Trace, ID: drover.SpanOf(id, "step", itoa(index)), Parent: root.ID, Name: string(s.Phase), Start: s.StartedAt, End: s.EndedAt,
		Attributes: []drover.Attribute{text("drover.phase", string(s.Phase)), number("drover.bytes", int64(s.Bytes)), number("drover.tries", int64(s.Tries))}}
	if s.Waited != "" {
		span.Attributes = append(span.Attributes, text("drover.waited", s.Waited))
	}
	for _, o := range s.Orders {
		span.Events = append(span.Events, drover.SpanEvent{Name: string(o.Order), At: o.StartedAt, Attributes: []drover.Attribute{
			text("drover.host", string(o.Host)), number("drover.duration_ms", max(0, o.EndedAt.Sub(o.StartedAt)).Milliseconds())}})
	}
	span = sound(span)
	spans := []drover.Span{span}
	for i, w := range s.Waits {
		spans = append(spans, sound(drover.Span{Trace: root.Trace, ID: drover.SpanOf(id, "step", itoa(index), "wait", itoa(i)), Parent: span.ID, Name: "wait",
			Start: w.From, End: w.Until, Attributes: []drover.Attribute{text("drover.waited_for", w.For)}}))
	}
	return spans
}

// sound is a span that no receiver refuses: it begins at a time that there was, and does not end before.
func sound(s drover.Span) drover.Span {
	if s.Start.IsZero() {
		s.Start = s.End
	}
	if s.Start.Before(time.Unix(0, 0)) {
		s.Start = time.Unix(0, 0)
	}
	if s.End.Before(s.Start) {
		s.End = s.Start
	}
	s.Start, s.End = s.Start.UTC(), s.End.UTC()
	s.Events = slices.DeleteFunc(s.Events, func(e drover.SpanEvent) bool { return e.At.Before(time.Unix(0, 0)) })
	return s
}

func attributes(m drover.Migration) []drover.Attribute {
	out := []drover.Attribute{
		text("drover.migration", string(m.ID)), text("drover.machine", string(m.Machine)), text("drover.app", string(m.App)),
		text("drover.source", string(m.Source)), text("drover.target", string(m.Target)), text("drover.actor", m.Actor),
		text("drover.outcome", string(m.Outcome)), text("drover.mode", Mode(m)), number("drover.bytes", int64(m.Bytes())),
	}
	if d, ok := m.Interruption(); ok {
		out = append(out, number("drover.interruption_ms", d.Milliseconds()))
	}
	return slices.DeleteFunc(out, func(a drover.Attribute) bool {
		return a.Text == "" && a.Key != "drover.bytes" && a.Key != "drover.interruption_ms"
	})
}

func text(key, value string) drover.Attribute { return drover.Attribute{Key: key, Text: value} }

func number(key string, value int64) drover.Attribute {
	return drover.Attribute{Key: key, Number: value}
}
