package fleet

import (
	"slices"
	"time"

	"drover"
	"drover/plan"
)

const (
	// ratesOf is how many migrations the rates are made of.
	ratesOf = 50
	// leastCopy is the least that must have been copied for a rate to mean something.
	leastCopy = 16 * drover.MiB
)

// measuredRates tells from the newest migrations what the moves of a drain take. Live ones tell of live ones and cold ones of cold ones, where there are any: a
// boot takes many times what it takes to hand over a machine that runs.
func (f *Fleet) measuredRates(d drover.Drain) plan.Rates {
	f.state.mu.RLock()
	var ended []drover.Migration
	for _, i := range f.state.migrations.items {
		if i.value.Outcome == drover.Succeeded {
			ended = append(ended, i.value)
		}
	}
	f.state.mu.RUnlock()
	rates := ratesFrom(alike(ended, !d.Options.Cold))
	if !d.Options.Suspect && (d.Kind == drover.DrainReturn || f.suspicion(d.Host) == "") {
		rates.LateOver = f.rules.LateOver
	}
	return rates
}

// alike returns the newest of the migrations that were made of running machines and as live as is asked; of all of them when there are none.
func alike(ended []drover.Migration, live bool) []drover.Migration {
	same := slices.DeleteFunc(slices.Clone(ended), func(m drover.Migration) bool { return m.Live != live || !m.WasRunning })
	if len(same) == 0 {
		same = ended
	}
	slices.SortFunc(same, func(a, b drover.Migration) int { return b.CreatedAt.Compare(a.CreatedAt) })
	return same[:min(len(same), ratesOf)]
}

func ratesFrom(ended []drover.Migration) plan.Rates {
	rates := plan.DefaultRates()
	rates.Of = map[drover.MachineID]time.Duration{}
	var before, after, gaps []float64
	var copies []copied
	own := map[drover.MachineID][]float64{}
	for _, m := range ended {
		hydrate, ok := stepOf(m, drover.PhaseHydrate)
		if !ok || m.Hydration == nil {
			continue
		}
		ran := hydrate.StartedAt.Sub(m.CreatedAt)
		if converge, ok := stepOf(m, drover.PhaseConverge); ok && converge.Bytes >= leastCopy {
			copies = append(copies, copied{m.Source, converge.StartedAt, converge.EndedAt, converge.Bytes})
			ran -= converge.EndedAt.Sub(converge.StartedAt)
		}
		before = append(before, ran.Seconds())
		if m.Hydration.Copied >= leastCopy {
			copies = append(copies, copied{m.Source, hydrate.StartedAt, hydrate.EndedAt, m.Hydration.Copied})
		} else {
			after = append(after, hydrate.EndedAt.Sub(hydrate.StartedAt).Seconds())
		}
		if gap := m.RunningAt.Sub(m.StoppedAt); m.WasRunning && !m.StoppedAt.IsZero() && gap > 0 {
			gaps = append(gaps, gap.Seconds())
			own[m.Machine] = append(own[m.Machine], gap.Seconds())
		}
	}
	set := func(into *time.Duration, from []float64) {
		if len(from) > 0 {
			*into = time.Duration(plan.Median(from) * float64(time.Second))
		}
	}
	set(&rates.Before, before)
	set(&rates.After, after)
	set(&rates.Interruption, gaps)
	if each := copyRates(copies); len(each) > 0 {
		rates.Copy = max(plan.Median(each), 1)
	}
	for id, list := range own {
		rates.Of[id] = time.Duration(plan.Median(list) * float64(time.Second))
	}
	return rates
}

// stepOf returns a step of a migration that is over.
func stepOf(m drover.Migration, phase drover.Phase) (drover.Step, bool) {
	i := slices.IndexFunc(m.Steps, func(s drover.Step) bool { return s.Phase == phase })
	if i < 0 || m.Steps[i].EndedAt.IsZero() {
		return drover.Step{}, false
	}
	return m.Steps[i], true
}

// copied is what was copied off a host in a time.
type copied struct {
	source   drover.HostID
	from, to time.Time
	bytes    drover.Bytes
}

// copyRates tells how fast each copy's host copied while it took, in bytes per second: by this copy and, for their parts in that time, by the others.
func copyRates(all []copied) (rates []float64) {
	for _, c := range all {
		took := c.to.Sub(c.from).Seconds()
		if took <= 0 {
			continue
		}
		var sum float64
		for _, other := range all {
			first, last := c.from, c.to
			if other.from.After(first) {
				first = other.from
			}
			if other.to.Before(last) {
				last = other.to
			}
			if whole := other.to.Sub(other.from); other.source == c.source && last.After(first) {
				sum += float64(other.bytes) * last.Sub(first).Seconds() / whole.Seconds()
			}
		}
		rates = append(rates, sum/took)
	}
	return rates
}
