package fleet

import (
	"context"
	"maps"
	"time"

	"drover"
	"drover/waterfall"
)

// Metrics are counted from the records of migrations, not by who drives them: what is counted then does not depend on which control host has the
// lease, on restarts, or on what was under way. A record is removed when it was kept long enough, so what it counted for goes into the tally before:
//
//	fold    the migration is added to the tally, and its ID to those that the tally has taken in, in one write
//	remove  the record is removed, when the fold is so old that every control host has seen it
//	prune   the ID is dropped from the tally, when the removal is so old that every control host has seen that
//
// Whoever counts adds the tally and the records that have ended and whose IDs the tally does not have. At each moment, and for whoever has seen only
// a part of it, each migration is counted once.

// tallyKey is the one record of its bucket.
const tallyKey = "migrations"

// maxFold bounds how many records one write takes in.
const maxFold = 2000

// pruneAfter is how many times the age of a fold before its record is removed an ID stays in the tally.
const pruneAfter = 12

// tally is what the migrations add up to whose records are gone, or will be.
type tally struct {
	waterfall.Tally
	// Folded are the migrations that are counted in it and whose records may still be there, with when they were counted.
	Folded map[drover.MigrationID]time.Time `json:"folded,omitempty"`
}

// sweepMigrations removes the records of migrations that were kept long enough, and keeps what they counted for.
func (f *Fleet) sweepMigrations(ctx context.Context) {
	now := f.now()
	var old []item[drover.Migration]
	for _, i := range f.state.migrations.all() {
		if m := i.value; m.Ended() && now.Sub(m.UpdatedAt) > f.timing.KeepMigrations {
			old = append(old, i)
		}
	}
	t, rev, known := f.state.tallies.seen(tallyKey)
	if len(old) == 0 && len(t.Folded) == 0 {
		return
	}
	if known && t.Version != waterfall.TallyVersion {
		f.log.Error("migrations are not cleared away: what they counted for was written by another version", "version", t.Version, "known", waterfall.TallyVersion)
		return
	}
	if next, changed := f.fold(t, old, now); changed {
		var err error
		if known {
			_, err = f.state.tallies.update(ctx, tallyKey, next, rev)
		} else {
			_, err = f.state.tallies.create(ctx, tallyKey, next)
		}
		if err != nil {
			f.trouble(ctx, "tally", tallyKey, err)
			return
		}
		f.hit("fleet.tally.fold.after")
		t = next
	}
	for _, i := range old {
		folded, ok := t.Folded[i.value.ID]
		if waterfall.Counts(i.value) && (!ok || now.Sub(folded) <= f.timing.Stale) {
			continue
		}
		f.trouble(ctx, "migration", string(i.value.ID), f.state.migrations.remove(ctx, string(i.value.ID), i.rev))
		f.hit("fleet.tally.remove.after")
	}
}

// fold takes in what is not in the tally yet, and drops the IDs whose records have been gone for long.
func (f *Fleet) fold(t tally, old []item[drover.Migration], now time.Time) (next tally, changed bool) {
	next = t
	next.Folded = maps.Clone(t.Folded)
	if next.Folded == nil {
		next.Folded = map[drover.MigrationID]time.Time{}
	}
	for id, at := range t.Folded {
		if _, _, there := f.state.migrations.seen(string(id)); !there && now.Sub(at) > pruneAfter*f.timing.Stale {
			delete(next.Folded, id)
			changed = true
		}
	}
	var more []drover.Migration
	for _, i := range old {
		if len(next.Folded) >= maxFold {
			break
		}
		if _, in := next.Folded[i.value.ID]; in || !waterfall.Counts(i.value) {
			continue
		}
		more = append(more, i.value)
		next.Folded[i.value.ID] = now.UTC()
		changed = true
	}
	next.Tally = t.With(more...)
	return next, changed
}

// TallyFaultPoints names the places at which a fault can strike whoever clears migrations away.
func TallyFaultPoints() []string {
	return []string{"fleet.tally.fold.after", "fleet.tally.remove.after"}
}

// Metrics is what the fleet has to say in numbers.
type Metrics struct {
	// Tally counts all migrations that have ended since the fleet was made.
	Tally waterfall.Tally
	// Running counts those that have not ended by phase; Oldest is how long the one of them has been in it that has been there the longest.
	Running map[drover.Phase]int
	Oldest  map[drover.Phase]time.Duration
	// Hosts are the fleet's hosts with their conditions.
	Hosts []drover.HostInfo
	// Traces is what became of the exports of this process.
	Traces TraceStats
	// Audit is what this process did for the audit trail.
	Audit drover.AuditHealth
}

// TraceStats counts the tries of one process to export traces.
type TraceStats struct {
	// Pending is how many traces wait to be exported, Failures how many tries failed.
	Pending  int
	Failures uint64
}

// Metrics counts. The counts are the same on every control host, but for Traces and for what it has not heard of yet.
func (f *Fleet) Metrics(ctx context.Context) (Metrics, error) {
	hosts, err := f.Hosts(ctx)
	if err != nil {
		return Metrics{}, err
	}
	out := Metrics{Running: map[drover.Phase]int{}, Oldest: map[drover.Phase]time.Duration{}, Hosts: hosts, Traces: f.traces.stats(), Audit: f.trail.health()}
	t, migrations := f.tallied()
	if t.Version != 0 && t.Version != waterfall.TallyVersion {
		return Metrics{}, drover.Errorf(drover.Internal, "cannot count migrations: the tally has version %d, this version of Drover knows %d", t.Version, waterfall.TallyVersion).
			WithHint("use the newer version")
	}
	now := f.now()
	var kept []drover.Migration
	for _, m := range migrations {
		if _, in := t.Folded[m.ID]; waterfall.Counts(m) && !in {
			kept = append(kept, m)
		}
		if m.Ended() {
			continue
		}
		out.Running[m.Phase]++
		if n := len(m.Steps); n > 0 {
			out.Oldest[m.Phase] = max(out.Oldest[m.Phase], waterfall.Length(m.Steps[n-1], now))
		}
	}
	out.Tally = t.With(kept...)
	return out, nil
}

// tallied reads the tally and the records at one moment.
func (f *Fleet) tallied() (tally, []drover.Migration) {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	all := make([]drover.Migration, 0, len(f.state.migrations.items))
	for _, i := range f.state.migrations.items {
		all = append(all, i.value)
	}
	return f.state.tallies.items[tallyKey].value, all
}
