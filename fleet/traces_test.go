package fleet

import (
	"context"
	"reflect"
	"sync"
	"testing"
	"time"

	"drover"
	"drover/migrate"
	"drover/waterfall"
)

// sink takes traces, or fails as long as fail says so.
type sink struct {
	mu     sync.Mutex
	fail   func() error
	traces map[drover.TraceID][][]drover.Span
}

func (s *sink) ExportTrace(ctx context.Context, spans []drover.Span) error {
	s.mu.Lock()
	fail := s.fail
	s.mu.Unlock()
	if fail != nil {
		if err := fail(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.traces == nil {
		s.traces = map[drover.TraceID][][]drover.Span{}
	}
	s.traces[spans[0].Trace] = append(s.traces[spans[0].Trace], spans)
	return nil
}

func (s *sink) got(id drover.MigrationID) [][]drover.Span {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.traces[drover.TraceOf(string(id))]
}

// traced is a world whose control host exports traces to a sink.
func traced(t *testing.T, s *sink, killAt func(string) bool) (*world, *node) {
	t.Helper()
	w, n := newWorld(t)
	n.kill()
	w.traces = s
	w.tune = func(timing *Timing, _ *migrate.Rules) {
		timing.LeaseTTL, timing.LeaseRenew = 300*time.Millisecond, 50*time.Millisecond
	}
	n = w.control("c2", killAt)
	w.eventually("hosts are there", func() bool { return n.reachable("h1") && n.reachable("h2") && n.reachable("h3") })
	return w, n
}

// move moves a new machine, and returns the migration when it has ended.
func (w *world) move(n *node) drover.Migration {
	w.t.Helper()
	v := w.machine(n, CreateMachine{Host: "h1"})
	m, err := n.MoveMachine(w.t.Context(), Move{Machine: v.Machine.ID, Target: "h2", Actor: "ann"})
	if err != nil {
		w.t.Fatal(err)
	}
	return w.ended(n, m.ID)
}

func (w *world) marked(n *node, id drover.MigrationID) {
	w.t.Helper()
	w.eventually("the trace is marked", func() bool {
		m, err := n.Migration(w.t.Context(), id)
		return err == nil && m.Traced == drover.TraceExported
	})
}

func TestATraceIsExportedWhenAMigrationEnds(t *testing.T) {
	s := &sink{}
	w, n := traced(t, s, nil)
	m := w.move(n)
	w.marked(n, m.ID)
	got := s.got(m.ID)
	if len(got) != 1 {
		t.Fatalf("%d traces", len(got))
	}
	names := map[string]drover.Span{}
	orders := map[string]bool{}
	for _, span := range got[0] {
		names[span.Name] = span
		for _, e := range span.Events {
			orders[e.Name] = true
		}
	}
	for _, p := range []string{"migration", "reserve", "export", "quiesce", "switch", "start", "hydrate"} {
		if names[p].ID == "" {
			t.Errorf("no span %s in %+v", p, got[0])
		}
	}
	for _, o := range []drover.Order{drover.OrderMoveReserve, drover.OrderMoveExport, drover.OrderMoveClone, drover.OrderMoveQuiesce, drover.OrderMoveFreeze, drover.OrderMoveActivate} {
		if !orders[string(o)] {
			t.Errorf("no event for order %s", o)
		}
	}
	if metrics, err := n.Metrics(t.Context()); err != nil || metrics.Tally.Traced[drover.TraceExported] != 1 || metrics.Traces.Failures != 0 {
		t.Errorf("%+v, %v", metrics, err)
	}
}

// TestAnEndpointThatIsAwayHoldsUpNothing: machines move while it does not answer; when it is back it gets what it missed.
func TestAnEndpointThatIsAwayHoldsUpNothing(t *testing.T) {
	hanging, release := make(chan struct{}, 10), make(chan struct{})
	s := &sink{fail: func() error {
		hanging <- struct{}{}
		<-release
		return drover.Errorf(drover.Unavailable, "the endpoint is away")
	}}
	w, n := traced(t, s, nil)
	first := w.move(n)
	<-hanging
	second := w.move(n)
	if first.Outcome != drover.Succeeded || second.Outcome != drover.Succeeded {
		t.Error(first.Problem, second.Problem)
	}
	close(release)
	w.eventually("the failure is counted", func() bool {
		m, err := n.Metrics(t.Context())
		return err == nil && m.Traces.Failures > 0
	})
	s.mu.Lock()
	s.fail = nil
	s.mu.Unlock()
	w.marked(n, first.ID)
	w.marked(n, second.ID)
}

// TestTracesCrashWalk: whoever dies between exporting and noting it, the next one exports the same trace again, and nothing is lost.
func TestTracesCrashWalk(t *testing.T) {
	for _, point := range TraceFaultPoints() {
		t.Run(point, func(t *testing.T) {
			s := &sink{}
			w, dying := traced(t, s, func(p string) bool { return p == point })
			m := w.move(dying)
			<-dying.dead
			next := w.control("c3", nil)
			w.marked(next, m.ID)
			got := s.got(m.ID)
			if len(got) == 0 {
				t.Fatal("the trace is lost")
			}
			for _, again := range got[1:] {
				if !reflect.DeepEqual(ids(got[0]), ids(again)) {
					t.Errorf("the trace changed:\n%+v\n%+v", got[0], again)
				}
			}
		})
	}
}

func ids(spans []drover.Span) [][3]string {
	var out [][3]string
	for _, s := range spans {
		out = append(out, [3]string{string(s.Trace), string(s.ID), string(s.Parent)})
	}
	return out
}

func TestADrainIsTheParentOfItsMigrationsTraces(t *testing.T) {
	s := &sink{}
	w, n := traced(t, s, nil)
	now := time.Now().UTC()
	d := drover.Drain{ID: "drn_0123456789abcdef", Kind: drover.DrainAway, Host: "h1", State: drover.DrainDone, CreatedAt: now.Add(-time.Minute), EndedAt: now, UpdatedAt: now}
	if _, err := n.state.drains.create(w.t.Context(), string(d.ID), d); err != nil {
		t.Fatal(err)
	}
	if n.traces.exportDrains(w.t.Context()) {
		t.Fatal("the drain's trace was not taken")
	}
	m := w.move(n)
	m.Drain = d.ID
	under := waterfall.Trace(m, waterfall.Parent(m))[0]
	s.mu.Lock()
	got := s.traces[drover.TraceOf(string(d.ID))]
	s.mu.Unlock()
	if len(got) != 1 || got[0][0].ID != under.Parent || got[0][0].Trace != under.Trace || got[0][0].Name != "drain" {
		t.Errorf("the drain's spans are %+v, its migration's is %+v", got, under)
	}
	n.traces.exportDrains(w.t.Context())
	s.mu.Lock()
	if got = s.traces[drover.TraceOf(string(d.ID))]; len(got) != 1 {
		t.Errorf("the drain's span was exported %d times", len(got))
	}
	s.mu.Unlock()
	if kept, err := n.Drain(w.t.Context(), d.ID); err != nil || kept.Traced != drover.TraceExported {
		t.Errorf("the drain's record is %+v, %v", kept, err)
	}
}
