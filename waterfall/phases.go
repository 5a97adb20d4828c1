package waterfall

import (
	"math"
	"slices"
	"time"

	"drover"
	"drover/apiv1"
)

// Filter says which migrations are looked at. Its zero value is all.
type Filter struct {
	// Since leaves out what ended longer ago than this; 0 leaves nothing out.
	Since time.Duration
	App   drover.AppName
	// Host is the source or the target.
	Host drover.HostID
}

// Fits reports whether a migration is looked at.
func (f Filter) Fits(m drover.Migration, now time.Time) bool {
	switch {
	case f.App != "" && m.App != f.App, f.Host != "" && m.Source != f.Host && m.Target != f.Host:
		return false
	case f.Since > 0 && m.Ended() && EndedAt(m).Before(now.Add(-f.Since)):
		return false
	}
	return true
}

// Select returns the migrations that are looked at, in their order.
func Select(migrations []drover.Migration, f Filter, now time.Time) []drover.Migration {
	var out []drover.Migration
	for _, m := range migrations {
		if f.Fits(m, now) {
			out = append(out, m)
		}
	}
	return out
}

// EndedAt is when the last step of a migration ended, as far as its record tells; the record may be changed later, by clearing away.
func EndedAt(m drover.Migration) time.Time {
	for _, s := range slices.Backward(m.Steps) {
		if !s.EndedAt.IsZero() {
			return s.EndedAt
		}
	}
	return m.UpdatedAt
}

// Length is how long a step took, or has taken so far; never negative.
func Length(s drover.Step, now time.Time) time.Duration {
	end := s.EndedAt
	if end.IsZero() {
		end = now
	}
	if s.StartedAt.IsZero() {
		return 0
	}
	return max(0, end.Sub(s.StartedAt))
}

// Slowest is the step that took the longest; false when there is none. The end of a migration, which has no length, is no step here.
func Slowest(m drover.Migration, now time.Time) (drover.Step, bool) {
	m = closed(m)
	var found drover.Step
	ok := false
	for _, s := range m.Steps {
		if s.Phase != drover.PhaseDone && (!ok || Length(s, now) > Length(found, now)) {
			found, ok = s, true
		}
	}
	return found, ok
}

// Phases sums the phases up over the migrations that fit.
func Phases(migrations []drover.Migration, f Filter, now time.Time) apiv1.PhaseReport {
	report := apiv1.PhaseReport{AsOf: now.UTC(), Phases: []apiv1.PhaseSummary{}}
	if f.Since > 0 {
		report.Since = now.Add(-f.Since).UTC()
	}
	sums := map[drover.Phase]*sum{}
	var interruptions sum
	for _, m := range Select(migrations, f, now) {
		m = closed(m)
		report.Migrations++
		switch {
		case !m.Ended():
			report.Running++
		case m.Outcome == drover.Aborted:
			report.Aborted++
		}
		for _, s := range m.Steps {
			if s.Phase == drover.PhaseDone {
				continue
			}
			if sums[s.Phase] == nil {
				sums[s.Phase] = &sum{}
			}
			sums[s.Phase].step(m.ID, s, now)
		}
		if d, ok := m.Interruption(); ok {
			interruptions.add(m.ID, d)
		}
	}
	var all time.Duration
	for _, s := range sums {
		all = plus(all, s.total)
	}
	for _, p := range order(sums) {
		report.Phases = append(report.Phases, sums[p].summary(p, all))
	}
	var most int64
	for _, p := range report.Phases {
		if p.TotalMS > most || report.Slowest == "" {
			most, report.Slowest = p.TotalMS, p.Phase
		}
	}
	report.Interruption = interruptions.summary("", 0)
	return report
}

// order lists phases in the order of a migration; those that this version does not know come last.
func order(sums map[drover.Phase]*sum) []drover.Phase {
	var out []drover.Phase
	for _, p := range append(slices.Clone(patterned[:]), drover.Phases...) {
		if sums[p] != nil && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	var rest []drover.Phase
	for p := range sums {
		if !slices.Contains(out, p) {
			rest = append(rest, p)
		}
	}
	slices.Sort(rest)
	return append(out, rest...)
}

// sum collects the lengths of one phase.
type sum struct {
	lengths          []time.Duration
	total, most      time.Duration
	running, retried int
	bytes            drover.Bytes
	slowest          drover.MigrationID
}

func (s *sum) add(id drover.MigrationID, d time.Duration) {
	s.lengths = append(s.lengths, d)
	s.total = plus(s.total, d)
	if d > s.most || s.slowest == "" || (d == s.most && id < s.slowest) {
		s.most, s.slowest = d, id
	}
}

func (s *sum) step(id drover.MigrationID, step drover.Step, now time.Time) {
	s.add(id, Length(step, now))
	s.bytes += step.Bytes
	if step.EndedAt.IsZero() {
		s.running++
	}
	if step.Tries > 1 {
		s.retried++
	}
}

func (s *sum) summary(p drover.Phase, all time.Duration) apiv1.PhaseSummary {
	out := apiv1.PhaseSummary{Phase: p, Count: len(s.lengths), Running: s.running, Retried: s.retried, Bytes: s.bytes, SlowestMigration: s.slowest,
		MaxMS: s.most.Milliseconds(), TotalMS: s.total.Milliseconds()}
	slices.Sort(s.lengths)
	out.P50MS, out.P95MS = rank(s.lengths, 0.50).Milliseconds(), rank(s.lengths, 0.95).Milliseconds()
	if all > 0 {
		out.SharePercent = int(math.Round(100 * float64(s.total) / float64(all)))
	}
	return out
}

// rank is the percentile by the nearest rank: a length that there was.
func rank(sorted []time.Duration, part float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, int(math.Ceil(part*float64(len(sorted))))-1)]
}

// plus adds without going over.
func plus(a, b time.Duration) time.Duration {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
