package migrate

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"drover"
)

// world is a fleet that does what decisions say, with answers that are drawn by lot until it calms down.
type world struct {
	t   *rapid.T
	r   Rules
	now time.Time

	m     drover.Migration
	facts Facts

	placement drover.Placement
	frozen    bool
	// pending are placement changes whose answer was lost and which may still be carried out.
	pending int
	calm    bool
	// back: the source, which was off, is there again.
	back bool
	// wantAbort: a user asked for an abort before the switch, and it was accepted.
	wantAbort bool
}

func (w *world) lot(what string, n int) int { return rapid.IntRange(0, n-1).Draw(w.t, what) }

// answer draws what comes of an order.
func (w *world) answer() *drover.Error {
	if w.calm || w.lot("answer", 3) > 0 {
		return nil
	}
	codes := []drover.Code{drover.Unavailable, drover.Unavailable, drover.Conflict, drover.Exhausted, drover.Internal, drover.Precondition}
	return drover.Errorf(codes[w.lot("code", len(codes))], "drawn by lot")
}

// change carries a placement change out if the revision still fits.
func (w *world) change() bool {
	if w.placement.Epoch != fromEpoch {
		return false
	}
	if !w.frozen && !w.m.SourceOff {
		w.t.Fatal("the placement changes before the source has frozen")
	}
	w.placement = drover.Placement{Machine: "m1", Host: target, Migration: w.m.ID, Epoch: 9}
	return true
}

func (w *world) step() {
	w.now = w.now.Add(time.Duration(w.lot("pass", 20)) * time.Second)
	if w.pending > 0 && w.lot("late", 4) == 0 {
		w.pending--
		w.change()
	}
	if !w.calm && w.lot("controller dies", 12) == 0 {
		w.facts = Facts{}
		w.m = TakeOver(w.m, w.now)
	}
	if !w.calm && w.lot("user aborts", 40) == 0 && Abortable(w.m) == nil && w.m.Outcome == drover.Running {
		w.m = GiveUp(w.m, drover.Errorf(drover.Canceled, "by a user"), w.now)
		w.facts = Facts{Placement: w.facts.Placement}
		w.wantAbort = true
	}
	w.do(w.r.Next(w.m, w.facts, w.now))
}

func (w *world) do(d Decision) {
	switch d.Kind {
	case Wait:
		if d.Until.After(w.now) {
			w.now = d.Until
		}
	case Ask:
		w.ask(d)
	case ReadPlacement:
		err := w.answer()
		if err == nil {
			p := w.placement
			w.facts.Placement = &p
		}
		w.facts.Store = w.facts.Store.Next(err, w.now)
	case Commit:
		if !w.frozen && !w.m.SourceOff {
			w.t.Fatal("committing before the source has frozen")
		}
		if w.m.SourceOff && w.facts.Fence != FenceHolds {
			w.t.Fatal("committing without a look at the fence")
		}
		w.m = Committed(w.m, w.now)
	case BeginRound:
		if want := 1; w.m.Convergence != nil {
			want = w.m.Convergence.Round + 1
			if d.Round != want || d.Round > w.r.Rounds || w.m.Convergence.Over {
				w.t.Fatalf("round %d begins after %+v", d.Round, w.m.Convergence)
			}
		}
		w.m = w.r.BeginsRound(w.m, d.Round, w.now)
		w.newRound()
	case EndRounds:
		w.m = EndsRounds(w.m, d.Reason, w.now)
		w.newRound()
	case GoCold:
		if !w.m.Live || !w.m.Options.LiveOrCold || w.frozen && w.calm {
			w.t.Fatalf("goes cold: %+v, frozen %v", w.m, w.frozen)
		}
		w.m = GoesCold(w.m, d.Problem, w.now)
		w.facts = Facts{Placement: w.facts.Placement}
	case StandAside:
		if !w.m.Interrupts || w.m.Phase != drover.PhaseReserve {
			w.t.Fatalf("another stands aside: %+v", w.m)
		}
		err := w.answer()
		w.facts.Aside = err == nil
		w.facts.Store = w.facts.Store.Next(err, w.now)
	case CheckFence:
		w.back = w.back || !w.calm && w.lot("source is back", 6) == 0
		w.facts.Fence, w.facts.Store = FenceHolds, Answer{}
		if w.back {
			w.facts.Fence, w.facts.FenceErr = FenceGone, drover.Errorf(drover.Precondition, "it is back")
		}
	case Withhold:
		if w.placement.Epoch == fromEpoch {
			w.placement.Epoch = 8
		}
		p := w.placement
		w.facts.Placement, w.facts.Store = &p, Answer{}
	case Switch:
		w.doSwitch()
	case WriteVolumes:
		err := w.answer()
		w.facts.VolumesWritten = err == nil
		w.facts.Store = w.facts.Store.Next(err, w.now)
	case Enter:
		w.m = EnterPhase(w.m, d.Phase, w.now)
		if d.Phase == drover.PhaseStart {
			w.m.ToEpoch = w.facts.Placement.Epoch
		}
		w.facts = Facts{Placement: w.facts.Placement}
	case Abort:
		withheld := w.back && w.placement.Epoch != fromEpoch
		if !withheld && (w.m.Committing || w.pending > 0) || w.placement.Migration == w.m.ID {
			w.t.Fatalf("aborted (%v) though the switch was made or may still be", d.Problem)
		}
		w.m = GiveUp(w.m, d.Problem, w.now)
		w.facts = Facts{Placement: w.facts.Placement}
	case End:
		w.m = Finish(w.m, d.Outcome, w.now)
	case Nothing:
	}
}

// newRound forgets what was answered for the round before.
func (w *world) newRound() {
	w.facts.Round, w.facts.Copied, w.facts.Measured, w.facts.MovedAt = nil, nil, false, time.Time{}
	for t := range w.facts.Answers {
		delete(w.facts.Answers, t)
	}
}

// copying takes in the answers of orders that copy before the switch.
func (w *world) copying(d Decision) {
	switch d.Order {
	case drover.OrderMoveRound:
		if w.facts.Copied != nil && w.facts.Copied.Done {
			w.facts.Measured = true
			changed := drover.Bytes(w.lot("changed", 3)) * w.r.Threshold
			if w.calm {
				changed = 1
			}
			w.m = w.r.RoundMeasured(w.m, changed, w.now)
			return
		}
		w.facts.Round = []drover.Export{{Disk: "vol_1", Allocated: drover.GiB}}
		w.m = RoundFrozen(w.m, w.facts.Round, w.now)
	case drover.OrderMoveCopy:
		if w.facts.Round == nil {
			w.t.Fatal("a round is copied that was not frozen")
		}
		p := drover.MoveCopied{Done: w.calm || w.lot("copied", 2) == 0}
		w.facts.Copied, w.facts.MovedAt = &p, w.now
		w.m = RoundCopied(w.m, p, w.now)
	case drover.OrderMoveIncoming:
		w.facts.Address = "h2:1"
	case drover.OrderMoveLive:
		l := drover.MoveLive{Paused: w.frozen, StoppedAt: w.now}
		w.facts.Live, w.facts.MovedAt = &l, w.now
		w.m = LiveMoved(w.m, l, w.now)
	}
}

func (w *world) doSwitch() {
	if !w.m.Committing {
		w.t.Fatal("the placement is to be changed without the intention on record")
	}
	w.facts.Store = Answer{}
	if w.m.SourceOff && w.facts.Fence != FenceHolds {
		w.t.Fatal("the placement is to be changed without a look at the fence")
	}
	w.facts.Fence = FenceUnknown
	fate := w.lot("fate of the change", 4)
	switch {
	case w.calm || fate == 0:
		if !w.change() {
			w.facts.Placement = nil
			return
		}
		p := w.placement
		w.facts.Placement = &p
		return
	case fate == 1: // carried out, and the answer is lost
		w.change()
	case fate == 2: // under way still
		w.pending++
	}
	w.facts.Store = w.facts.Store.Next(drover.Errorf(drover.Unavailable, "no answer"), w.now)
}

func (w *world) ask(d Decision) {
	err := w.answer()
	if d.Host == source && w.m.SourceOff {
		w.t.Fatalf("%s is asked of a host that is off", d.Order)
	}
	if d.Order == drover.OrderMoveAbort && w.placement.Migration == w.m.ID {
		w.t.Fatal("a host is told to abort after the switch")
	}
	// An order may be carried out though its answer is lost.
	if done := err == nil || w.lot("done all the same", 2) == 0; done {
		switch d.Order {
		case drover.OrderMoveFreeze:
			w.frozen = true
		case drover.OrderMoveLive:
			w.frozen = w.frozen || w.calm || w.lot("paused", 3) == 0
		case drover.OrderMoveAbort:
			w.frozen = w.frozen && d.Host != source
		}
	}
	key := Target{d.Order, d.Host}
	if w.facts.Answers == nil {
		w.facts.Answers = map[Target]Answer{}
	}
	w.facts.Answers[key] = w.facts.Answers[key].Next(err, w.now)
	if err != nil {
		return
	}
	w.copying(d)
	switch d.Order {
	case drover.OrderMoveAbort:
		w.m.Undone = append(slices.Clone(w.m.Undone), d.Host)
	case drover.OrderMoveProgress:
		p := drover.MoveProgress{Status: drover.MachineStatus{State: drover.StateStarted, StartedAt: w.now, Epoch: w.m.ToEpoch}, ResumedAt: w.now, Done: w.calm || w.lot("hydrated", 3) == 0}
		w.facts.Progress = &p
		w.m = Progressed(w.m, p, w.now)
	}
}

func TestRandomWalksEndWithOneOwner(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, r: DefaultRules(), now: start, placement: *placed(source, "", fromEpoch)}
		w.m = Begin(drover.Migration{ID: "mig_1", Machine: "m1", Source: source, Target: target, FromEpoch: fromEpoch, WasRunning: true,
			Late: rapid.Bool().Draw(t, "late"), Live: rapid.Bool().Draw(t, "live"),
			Options: drover.MoveOptions{LiveOrCold: rapid.Bool().Draw(t, "live or cold")}}, start)
		if rapid.IntRange(0, 4).Draw(t, "undo") == 0 {
			w.m.Undoes, w.m.Late, w.m.Live = "mig_0", false, false
			w.m.Interrupts, w.m.SourceOff = rapid.Bool().Draw(t, "interrupts"), rapid.Bool().Draw(t, "source off")
		}
		for range rapid.IntRange(0, 120).Draw(t, "wild steps") {
			w.step()
		}
		w.calm = true
		for i := 0; !w.m.Ended(); i++ {
			if i > 400 {
				t.Fatalf("did not end: %s, %s, %v", w.m.Outcome, w.m.Phase, w.m.Problem)
			}
			w.step()
		}
		for w.pending > 0 { // whatever was under way arrives now
			w.pending--
			w.change()
		}
		owner := target
		if w.m.Outcome == drover.Aborted {
			owner = source
		}
		if w.placement.Host != owner {
			t.Fatalf("%s, and the placement says %s", w.m.Outcome, w.placement.Host)
		}
		if w.wantAbort && w.m.Outcome != drover.Aborted {
			t.Fatalf("an abort was accepted, and the migration %s", w.m.Outcome)
		}
		if w.m.Outcome == drover.Aborted && w.frozen {
			t.Fatal("aborted, and the source is still frozen")
		}
		for i, s := range w.m.Steps {
			if s.EndedAt.IsZero() || s.EndedAt.Before(s.StartedAt) {
				t.Fatalf("step %d is %+v", i, s)
			}
		}
	})
}
