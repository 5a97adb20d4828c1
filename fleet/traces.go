package fleet

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"drover"
	"drover/waterfall"
)

// TraceExporter takes traces somewhere. Its errors mean that it may be asked again: what it is given again has the same IDs.
type TraceExporter interface {
	ExportTrace(ctx context.Context, spans []drover.Span) error
}

// The bounds of exporting.
const (
	// traceTry bounds one try; traceRetry is the pause after one that failed, growing to traceRetryMost.
	traceTry       = 10 * time.Second
	traceRetry     = time.Second
	traceRetryMost = time.Minute
	// traceKeep is how long after its end a migration's trace is tried.
	traceKeep = 24 * time.Hour
)

// traces exports the traces of migrations that have ended, from their records: at least once, with IDs that are always the same, by the holder of
// the lease. That a trace was taken is noted in the record, so a controller that takes over goes on with what is left. No migration waits for it.
type traces struct {
	*Fleet
	mu       sync.Mutex
	pending  int
	failures uint64
	// tries counts, by migration, how often its export failed here. It belongs to run.
	tries map[drover.MigrationID]int
}

func (t *traces) stats() TraceStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return TraceStats{Pending: t.pending, Failures: t.failures}
}

func (t *traces) note(pending int, failed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending = pending
	if failed {
		t.failures++
	}
}

// run exports until ctx ends. It does nothing without an exporter.
func (t *traces) run(ctx context.Context) {
	if t.cfg.Traces == nil {
		return
	}
	t.tries = map[drover.MigrationID]int{}
	defer t.note(0, false)
	pause := traceRetry
	for ctx.Err() == nil {
		next := t.state.moved()
		failed := t.exportAll(ctx) || t.exportDrains(ctx)
		var retry <-chan time.Time
		if failed {
			retry = time.After(pause)
			pause = min(2*pause, traceRetryMost)
			next = nil // a migration that ends meanwhile is no reason to ask sooner
		} else {
			pause = traceRetry
		}
		select {
		case <-ctx.Done():
		case <-next:
		case <-retry:
		case <-time.After(traceRetryMost): // a drain that has ended wakes nobody
		}
	}
}

// exportAll exports what has not been yet, those first that were tried least often; at the first failure it stops, for the endpoint may be away.
func (t *traces) exportAll(ctx context.Context) (failed bool) {
	todo := t.todo()
	for i, it := range todo {
		t.note(len(todo)-i, false)
		if ctx.Err() != nil {
			return false
		}
		m := it.value
		try, cancel := context.WithTimeout(ctx, traceTry)
		err := t.cfg.Traces.ExportTrace(try, waterfall.Trace(m, waterfall.Parent(m)))
		cancel()
		if err != nil && ctx.Err() == nil {
			t.tries[m.ID]++
			t.note(len(todo)-i, true)
			t.log.Warn("trace is not exported now", "migration", m.ID, "tries", t.tries[m.ID], "err", err)
			if t.now().Sub(waterfall.EndedAt(m)) < traceKeep {
				return true
			}
			t.log.Error("trace is given up", "migration", m.ID, "err", err)
			t.mark(ctx, it, drover.TraceDropped)
			return true
		}
		if err == nil {
			t.hit("fleet.trace.exported.after")
			t.mark(ctx, it, drover.TraceExported)
		}
	}
	t.note(0, false)
	return false
}

// exportDrains exports the spans of drains that have ended, above those of their migrations.
func (t *traces) exportDrains(ctx context.Context) (failed bool) {
	for _, it := range t.state.drains.all() {
		d := it.value
		if !d.Ended() || d.Traced != "" || t.now().Sub(d.EndedAt) > traceKeep {
			continue
		}
		try, cancel := context.WithTimeout(ctx, traceTry)
		err := t.cfg.Traces.ExportTrace(try, []drover.Span{waterfall.DrainSpan(d)})
		cancel()
		if err != nil {
			t.log.Warn("trace is not exported now", "drain", d.ID, "err", err)
			return true
		}
		t.hit("fleet.trace.exported.after")
		d.Traced = drover.TraceExported
		_, err = t.state.drains.update(ctx, string(d.ID), d, it.rev)
		t.trouble(ctx, "trace", string(d.ID), err)
	}
	return false
}

// todo lists the migrations whose traces are to be exported: those that ended not too long ago, and those that were tried here.
func (t *traces) todo() []item[drover.Migration] {
	var todo []item[drover.Migration]
	now := t.now()
	left := map[drover.MigrationID]bool{}
	for _, i := range t.state.migrations.all() {
		m := i.value
		if waterfall.Counts(m) && m.Traced == "" && (t.tries[m.ID] > 0 || now.Sub(waterfall.EndedAt(m)) < traceKeep) {
			todo = append(todo, i)
			left[m.ID] = true
		}
	}
	maps.DeleteFunc(t.tries, func(id drover.MigrationID, _ int) bool { return !left[id] })
	slices.SortFunc(todo, func(a, b item[drover.Migration]) int {
		return cmp.Or(cmp.Compare(t.tries[a.value.ID], t.tries[b.value.ID]), waterfall.EndedAt(a.value).Compare(waterfall.EndedAt(b.value)),
			cmp.Compare(a.value.ID, b.value.ID))
	})
	return todo
}

// mark notes what became of a trace. What cannot be noted now is exported again, which does no harm.
func (t *traces) mark(ctx context.Context, it item[drover.Migration], result drover.TraceResult) {
	m := it.value
	m.Traced = result
	_, err := t.state.migrations.update(ctx, string(m.ID), m, it.rev)
	if drover.Is(err, drover.Conflict) {
		// Something was cleared away meanwhile, and noted in the record: once more over that.
		var rev uint64
		if m, rev, err = t.state.migrations.get(ctx, string(m.ID)); err == nil && m.Ended() {
			m.Traced = result
			_, err = t.state.migrations.update(ctx, string(m.ID), m, rev)
		}
	}
	t.trouble(ctx, "trace", string(m.ID), err)
	t.hit("fleet.trace.marked.after")
}

// TraceFaultPoints names the places at which a fault can strike whoever exports traces.
func TraceFaultPoints() []string {
	return []string{"fleet.trace.exported.after", "fleet.trace.marked.after"}
}
