package waterfall

import (
	"maps"
	"slices"
	"time"

	"drover"
)

// TallyVersion is the version of the stored form. The bounds of the histograms belong to it: other bounds are another version.
const TallyVersion = 1

// Bounds are the upper bounds of the histograms' buckets. A bucket without a bound comes after them.
var bounds = [...]time.Duration{
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second,
	10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour, 4 * time.Hour,
}

// Bounds returns the upper bounds of the histograms' buckets but the last, which has none.
func Bounds() []time.Duration { return slices.Clone(bounds[:]) }

// Tally counts migrations that have ended. Counts only grow: what is counted once stays counted, whatever becomes of the record.
type Tally struct {
	Version int `json:"version"`
	// Migrations counts them by outcome, Bytes what they copied.
	Migrations map[drover.Outcome]uint64 `json:"migrations"`
	Bytes      drover.Bytes              `json:"bytes"`
	// Phases has the lengths of phases, by phase and by the outcome of the whole migration.
	Phases map[drover.Phase]map[drover.Outcome]Histogram `json:"phases"`
	// Interruptions are those of machines that ran, by mode.
	Interruptions map[string]Histogram `json:"interruptions"`
	// Traced counts what became of the migrations' traces.
	Traced map[drover.TraceResult]uint64 `json:"traced"`
}

// Histogram counts lengths by bucket.
type Histogram struct {
	// Counts has a count for each bound and one for what is longer than all of them; none at all is all zero.
	Counts []uint64 `json:"counts"`
	SumMS  int64    `json:"sum_ms"`
}

// The modes of a move: how the machine's memory is treated.
const (
	ModeCold = "cold"
	ModeLive = "live"
)

// Modes lists them.
func Modes() []string { return []string{ModeCold, ModeLive} }

// Mode is how the machine's memory was treated.
func Mode(m drover.Migration) string {
	if m.Live {
		return ModeLive
	}
	return ModeCold
}

// Counts reports whether a record is one to be counted: a migration that has ended, and that was begun.
func Counts(m drover.Migration) bool { return m.Ended() && m.Source != "" }

// With returns the tally with more migrations. It does not change the one that it is called on.
func (t Tally) With(migrations ...drover.Migration) Tally {
	t = t.clone()
	for _, m := range migrations {
		t.add(m)
	}
	return t
}

// clone is a tally that shares nothing with the one it is of.
func (t Tally) clone() Tally {
	t.Version = TallyVersion
	t.Migrations, t.Traced, t.Interruptions = cloned(t.Migrations), cloned(t.Traced), clonedHistograms(t.Interruptions)
	phases := map[drover.Phase]map[drover.Outcome]Histogram{}
	for p, of := range t.Phases {
		phases[p] = clonedHistograms(of)
	}
	t.Phases = phases
	return t
}

func cloned[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return maps.Clone(m)
}

func clonedHistograms[K comparable](m map[K]Histogram) map[K]Histogram {
	out := cloned(m)
	for k, h := range out {
		out[k] = Histogram{Counts: slices.Clone(h.Counts), SumMS: h.SumMS}
	}
	return out
}

func (t *Tally) add(m drover.Migration) {
	t.Migrations[m.Outcome]++
	t.Bytes += max(0, m.Bytes())
	if m.Traced != "" {
		t.Traced[m.Traced]++
	}
	m = closed(m)
	for _, s := range m.Steps {
		if s.Phase == drover.PhaseDone {
			continue
		}
		if t.Phases[s.Phase] == nil {
			t.Phases[s.Phase] = map[drover.Outcome]Histogram{}
		}
		t.Phases[s.Phase][m.Outcome] = t.Phases[s.Phase][m.Outcome].with(Length(s, m.UpdatedAt))
	}
	if d, ok := m.Interruption(); ok {
		t.Interruptions[Mode(m)] = t.Interruptions[Mode(m)].with(d)
	}
}

// with adds a length, in place when there is place.
func (h Histogram) with(d time.Duration) Histogram {
	if len(h.Counts) <= len(bounds) {
		h.Counts = append(h.Counts, make([]uint64, len(bounds)+1-len(h.Counts))...)
	}
	i, _ := slices.BinarySearch(bounds[:], d)
	h.Counts[i]++
	h.SumMS += d.Milliseconds()
	return h
}

// Count is how many lengths were counted.
func (h Histogram) Count() uint64 {
	var n uint64
	for _, c := range h.Counts {
		n += c
	}
	return n
}

// Cumulative is how many lengths are at most as long as each bound.
func (h Histogram) Cumulative() map[time.Duration]uint64 {
	out := map[time.Duration]uint64{}
	var n uint64
	for i, b := range bounds {
		if i < len(h.Counts) {
			n += h.Counts[i]
		}
		out[b] = n
	}
	return out
}
