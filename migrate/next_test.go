package migrate

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"drover"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const (
	source, target = drover.HostID("h1"), drover.HostID("h2")
	fromEpoch      = drover.Epoch(7)
)

// record returns a migration in a phase that began at start.
func record(p drover.Phase) drover.Migration {
	m := Begin(drover.Migration{ID: "mig_1", Machine: "m1", Source: source, Target: target, FromEpoch: fromEpoch, WasRunning: true}, start)
	for _, next := range drover.Phases {
		if m.Phase == p {
			break
		}
		if next != drover.PhaseReserve {
			m = EnterPhase(m, next, start)
		}
	}
	if p.Committed() {
		m.ToEpoch, m.Committing, m.StoppedAt = 9, true, start
	}
	return m
}

func placed(host drover.HostID, mig drover.MigrationID, epoch drover.Epoch) *drover.Placement {
	return &drover.Placement{Machine: "m1", Host: host, Migration: mig, Epoch: epoch}
}

// facts returns what a controller knows that has read the placement before the switch.
func facts() Facts {
	return Facts{Placement: placed(source, "", fromEpoch), Answers: map[Target]Answer{}, StopTimeout: 5 * time.Second}
}

func (f Facts) with(order drover.Order, host drover.HostID, a Answer) Facts {
	f.Answers = map[Target]Answer{{order, host}: a}
	return f
}

func ok(at time.Time) Answer { return Answer{At: at} }

func failed(code drover.Code, since, at time.Time, failures int) Answer {
	return Answer{Err: drover.Errorf(code, "no"), FailingSince: since, At: at, Failures: failures}
}

// orderOf lists the orders before the switch with who is asked, in which phase, and the phase's bound.
func ordersBefore(r Rules) []struct {
	phase drover.Phase
	t     Target
	bound time.Duration
	prior []Target
} {
	export := Target{drover.OrderMoveExport, source}
	return []struct {
		phase drover.Phase
		t     Target
		bound time.Duration
		prior []Target
	}{
		{drover.PhaseReserve, Target{drover.OrderMoveReserve, target}, r.Reserve, nil},
		{drover.PhaseExport, export, r.Export, nil},
		{drover.PhaseExport, Target{drover.OrderMoveClone, target}, r.Export, []Target{export}},
		{drover.PhaseQuiesce, Target{drover.OrderMoveQuiesce, source}, 5*time.Second + r.Quiesce, nil},
		{drover.PhaseSwitch, Target{drover.OrderMoveFreeze, source}, r.Freeze, nil},
	}
}

func TestBeforeTheSwitchEveryAnswerLeadsOnOrAborts(t *testing.T) {
	r := DefaultRules()
	for _, o := range ordersBefore(r) {
		t.Run(string(o.t.Order), func(t *testing.T) {
			m := record(o.phase)
			now := start.Add(time.Second)
			given := func(a *Answer) Facts {
				f := facts()
				for _, p := range o.prior {
					f.Answers[p] = ok(start)
				}
				if a != nil {
					f.Answers[o.t] = *a
				}
				return f
			}
			if d := r.Next(m, given(nil), now); d.Kind != Ask || d.Order != o.t.Order || d.Host != o.t.Host || !d.Until.Equal(start.Add(o.bound)) {
				t.Errorf("unasked: %+v", d)
			}
			a := ok(now)
			if d := r.Next(m, given(&a), now); (d.Kind != Enter && d.Kind != Ask && d.Kind != Commit) || d.Order == o.t.Order {
				t.Errorf("answered: %+v", d)
			}
			for _, code := range drover.Codes {
				a := failed(code, now, now, 1)
				soon := r.Next(m, given(&a), now)
				due := r.Next(m, given(&a), now.Add(r.Retry))
				if code == drover.Unavailable || code == drover.Conflict || code == drover.Canceled {
					if soon.Kind != Wait || soon.Problem != a.Err || due.Kind != Ask {
						t.Errorf("%s: %+v, then %+v; want a pause and another try", code, soon, due)
					}
					if d := r.Next(m, given(&a), now.Add(r.Silence)); d.Kind != Abort || d.Problem.Code != code {
						t.Errorf("%s for %v: %+v; want an abort", code, r.Silence, d)
					}
				} else if soon.Kind != Abort || soon.Problem != a.Err {
					t.Errorf("%s: %+v; want an abort", code, soon)
				}
			}
			if d := r.Next(m, given(nil), start.Add(o.bound)); d.Kind != Abort {
				t.Errorf("at the bound of the phase: %+v; want an abort", d)
			}
		})
	}
}

func TestTheSwitch(t *testing.T) {
	r := DefaultRules()
	frozen := facts().with(drover.OrderMoveFreeze, source, ok(start))
	silent := frozen
	silent.TargetSilent = r.Down + 1
	committing := record(drover.PhaseSwitch)
	committing.Committing = true
	unread := facts()
	unread.Placement = nil
	gone := unread
	gone.PlacementGone = true
	other := facts()
	other.Placement = placed("h3", "mig_2", 8)
	switched := facts()
	switched.Placement = placed(target, "mig_1", 9)
	lost := facts()
	lost.Store = failed(drover.Unavailable, start, start, 1)
	destroyed := frozen
	destroyed.Destroyed = true
	aborting := GiveUp(record(drover.PhaseSwitch), drover.Errorf(drover.Canceled, "by a user"), start)
	tests := []struct {
		name  string
		m     drover.Migration
		f     Facts
		now   time.Time
		kind  Kind
		phase drover.Phase
	}{
		{"frozen: the intention is written first", record(drover.PhaseSwitch), frozen, start, Commit, ""},
		{"the target is silent just before", record(drover.PhaseSwitch), silent, start, Abort, ""},
		{"the machine was destroyed just before", record(drover.PhaseSwitch), destroyed, start, Abort, ""},
		{"the intention is there: change the placement", committing, facts(), start, Switch, ""},
		{"a controller that takes over reads first", committing, unread, start, ReadPlacement, ""},
		{"the outcome is unknown: wait", committing, lost, start, Wait, ""},
		{"the outcome is unknown: once more, however long it takes", committing, lost, start.Add(time.Hour), Switch, ""},
		{"it was changed", committing, switched, start, Enter, drover.PhaseStart},
		{"it was changed, whatever the record says", aborting, switched, start, Enter, drover.PhaseStart},
		{"another change came first", committing, other, start, Abort, ""},
		{"the placement is gone", committing, gone, start, Abort, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if d := r.Next(tt.m, tt.f, tt.now); d.Kind != tt.kind || d.Phase != tt.phase {
				t.Fatalf("%+v; want %s %s", d, tt.kind, tt.phase)
			}
		})
	}
}

func TestAfterTheSwitchEveryErrorIsWaitedOut(t *testing.T) {
	r := DefaultRules()
	hydrated := record(drover.PhaseHydrate)
	hydrated.Hydration = &drover.Hydration{Done: true}
	written := facts()
	written.VolumesWritten = true
	for _, tt := range []struct {
		m drover.Migration
		f Facts
		t Target
	}{
		{record(drover.PhaseStart), facts(), Target{drover.OrderMoveActivate, target}},
		{record(drover.PhaseHydrate), facts(), Target{drover.OrderMoveProgress, target}},
		{hydrated, written, Target{drover.OrderMoveRelease, source}},
	} {
		for _, code := range drover.Codes {
			f := tt.f.with(tt.t.Order, tt.t.Host, failed(code, start, start, 1))
			if d := r.Next(tt.m, f, start); d.Kind != Wait || d.Problem == nil {
				t.Errorf("%s %s: %+v; want to wait", tt.t.Order, code, d)
			}
			if d := r.Next(tt.m, f, start.Add(1000*time.Hour)); d.Kind != Ask || d.Order != tt.t.Order || d.Host != tt.t.Host || !d.Until.IsZero() {
				t.Errorf("%s %s: %+v; want to ask again without a bound", tt.t.Order, code, d)
			}
		}
	}
}

func TestStartLastsUntilTheMachineRunsOrRests(t *testing.T) {
	r := DefaultRules()
	status := func(state drover.MachineState, epoch drover.Epoch, startedAt time.Time) *drover.MoveProgress {
		return &drover.MoveProgress{Status: drover.MachineStatus{State: state, Epoch: epoch, StartedAt: startedAt}}
	}
	tests := []struct {
		name string
		p    *drover.MoveProgress
		ran  bool
		kind Kind
	}{
		{"nothing is known", nil, true, Ask},
		{"as it arrived", status(drover.StateStopped, 9, start.Add(-time.Hour)), true, Ask},
		{"boots", status(drover.StateStarting, 9, time.Time{}), true, Ask},
		{"runs", status(drover.StateStarted, 9, start.Add(time.Second)), true, Enter},
		{"runs, and the clocks differ", status(drover.StateStarted, 9, start.Add(-time.Second)), true, Enter},
		{"the source's status", status(drover.StateStarted, 7, start.Add(-time.Hour)), true, Ask},
		{"ran and ended", status(drover.StateStopped, 9, start.Add(time.Second)), true, Enter},
		{"cannot be started", status(drover.StateFailed, 9, time.Time{}), true, Enter},
		{"was stopped", status(drover.StateStopped, 9, time.Time{}), false, Enter},
		{"every block is there", &drover.MoveProgress{Done: true}, true, Enter},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := record(drover.PhaseStart)
			m.WasRunning = tt.ran
			f := facts().with(drover.OrderMoveActivate, target, ok(start))
			if d := r.Next(m, f, start); d.Kind != WriteVolumes {
				t.Fatalf("%+v before the volumes are written", d)
			}
			f.VolumesWritten, f.Progress = true, tt.p
			if d := r.Next(m, f, start); d.Kind != tt.kind {
				t.Fatalf("%+v; want %s", d, tt.kind)
			}
		})
	}
}

func TestAHydrationIsLookedAtTheMoreSeldomTheLongerItTakes(t *testing.T) {
	r, m := DefaultRules(), record(drover.PhaseHydrate)
	m.Hydration = &drover.Hydration{}
	for age, pause := range map[time.Duration]time.Duration{0: r.CopyPoll, 400 * time.Millisecond: 100 * time.Millisecond, time.Hour: r.HydratePoll, -time.Hour: r.CopyPoll} {
		now := start.Add(age)
		if d := r.Next(m, facts().with(drover.OrderMoveProgress, target, ok(now)), now); d.Kind != Wait || d.Until.Sub(now) != pause {
			t.Errorf("after %v: %+v; want a pause of %v", age, d, pause)
		}
	}
}

func TestAnAbortEndsWhenTheSourceHasUndone(t *testing.T) {
	r := DefaultRules()
	m := GiveUp(record(drover.PhaseQuiesce), drover.Errorf(drover.Unavailable, "h2 is silent"), start)
	f := facts()
	if d := r.Next(m, f, start); d.Kind != Ask || d.Host != source || d.Order != drover.OrderMoveAbort {
		t.Fatalf("%+v; want to ask the source first", d)
	}
	f.Answers[Target{drover.OrderMoveAbort, source}] = failed(drover.Unavailable, start, start, 1)
	if d := r.Next(m, f, start); d.Kind != Ask || d.Host != target {
		t.Fatalf("%+v; a silent source keeps the target from being asked", d)
	}
	f.Answers[Target{drover.OrderMoveAbort, target}] = failed(drover.Unavailable, start, start, 1)
	if d := r.Next(m, f, start.Add(time.Millisecond)); d.Kind != Wait {
		t.Fatalf("%+v; want to wait", d)
	}
	if d := r.Next(m, f, start.Add(100*time.Hour)); d.Kind != Ask || d.Host != source {
		t.Fatalf("%+v; the source is never given up", d)
	}
	m.Undone = []drover.HostID{source}
	if d := r.Next(m, f, start.Add(r.Retry)); d.Kind != Ask || d.Host != target {
		t.Fatalf("%+v; want to ask the target again", d)
	}
	f.Answers[Target{drover.OrderMoveAbort, target}] = failed(drover.Unavailable, start, start.Add(r.Silence), 20)
	if d := r.Next(m, f, start.Add(r.Silence)); d.Kind != End || d.Outcome != drover.Aborted {
		t.Fatalf("%+v; want the end without the target", d)
	}
	m.Undone = []drover.HostID{source, target}
	if d := r.Next(m, facts(), start); d.Kind != End || d.Outcome != drover.Aborted {
		t.Fatalf("%+v; want the end", d)
	}
}

func TestAnUnknownPhaseStopsItsMigrationAndSaysSo(t *testing.T) {
	m := record(drover.PhaseReserve)
	m.Phase = "teleport"
	if d := DefaultRules().Next(m, facts(), start); d.Kind != Wait || d.Problem == nil {
		t.Fatalf("%+v", d)
	}
}

func TestTheRecordTellsWhatTookTheTime(t *testing.T) {
	m := record(drover.PhaseExport)
	problem := drover.Errorf(drover.Unavailable, "host \"h2\" does not answer")
	m = Waiting(m, problem, start, start.Add(12*time.Second))
	if m.Problem != problem || m.Steps[1].Waited != `for 12s: host "h2" does not answer` {
		t.Fatalf("%+v, %v", m.Steps[1], m.Problem)
	}
	m = GoesOn(m, problem, start, 3, start.Add(14*time.Second))
	if m.Problem != nil || m.Steps[1].Tries != 4 || m.Steps[1].Waited != `for 14s: host "h2" does not answer` {
		t.Fatalf("%+v, %v", m.Steps[1], m.Problem)
	}
	m = EnterPhase(m, drover.PhaseQuiesce, start.Add(15*time.Second))
	if !m.Steps[1].EndedAt.Equal(start.Add(15*time.Second)) || m.Steps[2].Phase != drover.PhaseQuiesce {
		t.Fatalf("%+v", m.Steps)
	}
}

func TestProgressSumsTheDisks(t *testing.T) {
	m := record(drover.PhaseHydrate)
	m.Steps[len(m.Steps)-2].Bytes = 10 // the start phase copied these
	at := start.Add(time.Minute)
	m = Progressed(m, drover.MoveProgress{
		Status: drover.MachineStatus{Epoch: 9, StartedAt: start.Add(3 * time.Second)},
		Hydration: map[drover.DiskID]drover.Hydration{
			"vol_1":   {Total: 100, TotalKnown: true, Copied: 40, BytesPerSecond: 5, StartedAt: start.Add(time.Second), Waiting: "h1: connection refused"},
			"root_m1": {Total: 50, Copied: 20, Skipped: 1, BytesPerSecond: 1, StartedAt: start, DoneAt: at},
		},
	}, at)
	want := &drover.Hydration{Total: 150, Copied: 60, Skipped: 1, BytesPerSecond: 6, StartedAt: start, Waiting: "h1: connection refused"}
	if diff := cmp.Diff(want, m.Hydration); diff != "" {
		t.Error(diff)
	}
	if got := m.Steps[len(m.Steps)-1].Bytes; got != 50 {
		t.Errorf("the step copied %d bytes, want 50", got)
	}
	if !m.RunningAt.Equal(start.Add(3 * time.Second)) {
		t.Errorf("running at %v", m.RunningAt)
	}
	if m.Problem == nil || m.Problem.Code != drover.Unavailable {
		t.Errorf("problem is %v", m.Problem)
	}
}

func TestFunctionsOfTheRecordChangeNoArgument(t *testing.T) {
	m := record(drover.PhaseExport)
	m.Disks = []drover.DiskMove{{Disk: "vol_1"}}
	kept := m
	kept.Steps, kept.Disks = slices.Clone(m.Steps), slices.Clone(m.Disks)
	e := drover.Errorf(drover.Unavailable, "no")
	later := start.Add(time.Hour)
	EnterPhase(m, drover.PhaseQuiesce, later)
	TakeOver(m, later)
	GiveUp(m, e, later)
	Finish(m, drover.Aborted, later)
	Waiting(m, e, start, later)
	GoesOn(m, e, start, 1, later)
	Frozen(m, map[drover.DiskID]drover.Bytes{"vol_1": 5})
	Exported(m, []drover.Export{{Disk: "vol_2"}})
	Progressed(m, drover.MoveProgress{Done: true}, later)
	if diff := cmp.Diff(kept, m, cmpopts.IgnoreUnexported(drover.Error{})); diff != "" {
		t.Fatal(diff)
	}
}

func TestWhatAMigrationKeepsFromTheMachine(t *testing.T) {
	undone := GiveUp(record(drover.PhaseExport), nil, start)
	undone.Undone = []drover.HostID{source}
	hydrated := record(drover.PhaseHydrate)
	hydrated.Hydration = &drover.Hydration{Done: true}
	committing := record(drover.PhaseSwitch)
	committing.Committing = true
	tests := []struct {
		name                     string
		m                        drover.Migration
		holds, blocks, abortable bool
	}{
		{"before the switch", record(drover.PhaseSwitch), true, true, true},
		{"at the switch", committing, true, true, false},
		{"starting", record(drover.PhaseStart), true, true, false},
		{"hydrating", record(drover.PhaseHydrate), true, false, false},
		{"only the source is to be told", hydrated, false, false, false},
		{"aborting", GiveUp(record(drover.PhaseExport), nil, start), true, true, true},
		{"aborting, only the target is to be told", undone, false, false, true},
		{"aborted", Finish(undone, drover.Aborted, start), false, false, true},
		{"succeeded", Finish(record(drover.PhaseDone), drover.Succeeded, start), false, false, false},
	}
	for _, tt := range tests {
		if Holds(tt.m) != tt.holds || Blocks(tt.m) != tt.blocks || (Abortable(tt.m) == nil) != tt.abortable {
			t.Errorf("%s: holds %v, blocks %v, abortable %v", tt.name, Holds(tt.m), Blocks(tt.m), Abortable(tt.m))
		}
	}
}
