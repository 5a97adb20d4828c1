package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"drover"
)

// deployWorld is a fleet in which changes take a while, told by the number of looks.
type deployWorld struct {
	d     drover.Deploy
	facts DeployFacts
	now   time.Time
	// most is the largest number of machines that were not well at once.
	most int
}

func newDeployWorld(options drover.DeployOptions, actions ...drover.DeployAction) *deployWorld {
	w := &deployWorld{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	w.d = drover.Deploy{ID: "dpl_1", App: "shop", State: drover.DeployRunning, Options: options, CreatedAt: w.now}
	for k, action := range actions {
		i := drover.DeployItem{Action: action, Machine: drover.MachineID(fmt.Sprint("m", k)), State: drover.DeployItemWaiting}
		f := DeployFact{Machine: i.Machine, Goal: drover.GoalStarted, Instance: "old", Run: 1, Reachable: true,
			Status: drover.MachineStatus{State: drover.StateStarted, Instance: "old", Run: 1, StartedAt: w.now.Add(-time.Hour)}}
		if action == drover.DeployCreate || action == drover.DeployRun {
			i.Machine, i.Name, f = "", fmt.Sprint("new", k), DeployFact{}
		}
		if action == drover.DeployRun {
			i.Timeout = drover.Duration(time.Minute)
		}
		w.d.Items = append(w.d.Items, i)
		w.facts.Items = append(w.facts.Items, f)
	}
	return w
}

// look is one step; change makes what it asks for, or not.
func (w *deployWorld) look(change func(k int)) {
	var ks []int
	w.d, ks = NextDeploy(w.d, w.facts, w.now)
	for _, k := range ks {
		change(k)
	}
	ill := 0
	for k, i := range w.d.Items {
		s := w.facts.Items[k].Status
		if i.Action != drover.DeployCreate && i.Action != drover.DeployRun && (s.State != drover.StateStarted || len(s.Checks) > 0 && s.Checks[0].Status != "passing") {
			ill++
		}
	}
	w.most = max(w.most, ill)
	w.now = w.now.Add(time.Second)
}

// apply makes a change and has the machine start.
func (w *deployWorld) apply(k int) {
	f := &w.facts.Items[k]
	if i := w.d.Items[k]; i.State == drover.DeployItemClearing {
		if f.Log = []drover.LogLine{}; i.LogRead {
			*f = DeployFact{}
		}
		return
	}
	f.Applied = true
	switch i := w.d.Items[k]; i.Action {
	case drover.DeployDestroy:
		*f = DeployFact{Applied: true}
		return
	case drover.DeployCreate, drover.DeployRun:
		*f = DeployFact{Machine: drover.MachineID(i.Name), Applied: true, Reachable: true, Goal: drover.GoalStarted}
	case drover.DeployRestart:
		f.Run++
	default:
		f.Run++
	}
	f.Instance = "new"
	f.Status.State, f.Status.Instance, f.Status.Run = drover.StateStarting, f.Instance, f.Run
	f.Status.Checks = []drover.CheckStatus{{Name: "up", Status: "critical", Output: "connection refused\nmore"}}
}

// well lets a machine's checks pass.
func (w *deployWorld) well(k int) {
	s := &w.facts.Items[k].Status
	s.State, s.StartedAt = drover.StateStarted, w.now
	if w.d.Items[k].Action == drover.DeployRun {
		code := 0
		s.State, s.ExitCode = drover.StateStopped, &code
	}
	for i := range s.Checks {
		s.Checks[i].Status = "passing"
	}
}

func rolling(n int) drover.DeployOptions {
	return drover.DeployOptions{Strategy: drover.StrategyRolling, MaxUnavailable: n, WaitTimeout: drover.Duration(time.Minute)}
}

func TestADeployWaitsForEachMachine(t *testing.T) {
	w := newDeployWorld(rolling(1), drover.DeployDestroy, drover.DeployUpdate, drover.DeployRestart, drover.DeployCreate)
	var order []int
	for range 100 {
		w.look(func(k int) { order = append(order, k); w.apply(k) })
		for k, i := range w.d.Items {
			if i.State == drover.DeployItemChecking && w.now.Sub(i.BegunAt) > 5*time.Second {
				w.well(k)
			}
		}
	}
	if w.d.State != drover.DeployDone || fmt.Sprint(order) != "[1 2 3 0]" || w.d.Items[3].Machine != "new3" || w.most > 1 {
		t.Errorf("%+v in the order %v, %d ill at once", w.d, order, w.most)
	}
}

func TestADeployStopsAtTheFirstFailure(t *testing.T) {
	for name, c := range map[string]struct {
		fail func(w *deployWorld, k int)
		want string
	}{
		"it fails": {func(w *deployWorld, k int) { w.facts.Items[k].Status.State = drover.StateFailed }, "machine m1: it has failed"},
		"it ends": {func(w *deployWorld, k int) {
			code := 3
			w.facts.Items[k].Status.State, w.facts.Items[k].Status.ExitCode = drover.StateStopped, &code
		}, "it has stopped, its last exit code is 3"},
		"it flaps":        {func(w *deployWorld, k int) { w.facts.Items[k].Status.Restarts = 3 }, "started again 3 times"},
		"its check fails": {func(w *deployWorld, k int) { w.facts.Items[k].Status.State = drover.StateStarted }, `not well after 1m0s: check "up" is critical: connection refused`},
		"its host leaves": {func(w *deployWorld, k int) { w.facts.Items[k].Reachable = false }, "its host does not answer"},
		"it is refused": {func(w *deployWorld, k int) {
			w.facts.Items[k].Applied, w.facts.Items[k].Refused = false, drover.Errorf(drover.Invalid, "config.image is wrong")
		}, "machine m1: config.image is wrong"},
		"its host is full for ever": {func(w *deployWorld, k int) {
			w.facts.Items[k].Applied, w.facts.Items[k].Refused = false, drover.Errorf(drover.Unavailable, "the host does not answer")
		}, "machine m1: the host does not answer"},
	} {
		w := newDeployWorld(rolling(1), drover.DeployUpdate, drover.DeployUpdate, drover.DeployUpdate)
		for range 200 {
			w.look(w.apply)
			if w.d.Items[0].State == drover.DeployItemChecking {
				w.well(0)
			}
			if w.d.Items[1].UnderWay() {
				c.fail(w, 1)
			}
		}
		states := fmt.Sprint(w.d.Items[0].State, " ", w.d.Items[1].State, " ", w.d.Items[2].State)
		if w.d.State != drover.DeployFailed || states != "done failed left" || w.d.Problem == nil || !strings.Contains(w.d.Problem.Text, c.want) {
			t.Errorf("%s: %s with %s: %v", name, w.d.State, states, w.d.Problem)
		}
	}
}

func TestADeployLeavesStoppedMachinesStopped(t *testing.T) {
	w := newDeployWorld(rolling(1), drover.DeployUpdate)
	w.facts.Items[0].Goal, w.facts.Items[0].Status.State = drover.GoalStopped, drover.StateStopped
	for range 3 {
		w.look(func(k int) { w.facts.Items[k].Applied = true })
	}
	if w.d.State != drover.DeployDone {
		t.Errorf("%+v", w.d)
	}
}

func TestAnImmediateDeployWaitsForNone(t *testing.T) {
	w := newDeployWorld(drover.DeployOptions{Strategy: drover.StrategyImmediate, WaitTimeout: drover.Duration(time.Minute)}, drover.DeployUpdate, drover.DeployUpdate)
	for range 3 {
		w.look(w.apply)
	}
	if w.d.State != drover.DeployDone || w.most != 2 {
		t.Errorf("%+v", w.d)
	}
}

func TestARivalDeployEnds(t *testing.T) {
	w := newDeployWorld(rolling(1), drover.DeployUpdate)
	w.facts.Rival = "dpl_0"
	w.look(w.apply)
	if w.d.State != drover.DeployFailed || w.d.Problem.Code != drover.Conflict || w.d.Items[0].State != drover.DeployItemLeft {
		t.Errorf("%+v", w.d)
	}
}

// TestDeployWalk: whatever happens, a deploy ends, and no more machines are ill at once than it may make so.
func TestDeployWalk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		actions := rapid.SliceOfN(rapid.SampledFrom([]drover.DeployAction{drover.DeployCreate, drover.DeployUpdate, drover.DeployRestart, drover.DeployDestroy}), 1, 8).
			Draw(t, "actions")
		if rapid.Bool().Draw(t, "with a command") {
			actions = append(actions, drover.DeployRun)
		}
		width := rapid.IntRange(1, 3).Draw(t, "width")
		w := newDeployWorld(rolling(width), actions...)
		destroyed := 0
		for range 2000 {
			if w.d.Ended() {
				break
			}
			w.look(func(k int) {
				switch rapid.IntRange(0, 3).Draw(t, "change") {
				case 0:
					w.facts.Items[k].Refused = drover.Errorf(drover.Unavailable, "not now")
				case 1, 2:
					w.apply(k)
				}
			})
			for k, i := range w.d.Items {
				if i.State == drover.DeployItemChecking && rapid.IntRange(0, 9).Draw(t, "well") < 2 {
					w.well(k)
				}
			}
			if rapid.IntRange(0, 199).Draw(t, "abort") == 0 && w.d.State == drover.DeployRunning {
				w.d.State = drover.DeployAborting
			}
		}
		for k, i := range w.d.Items {
			if i.Action == drover.DeployRun && w.facts.Items[k].Machine != "" {
				t.Fatalf("the command's machine is left: %+v", i)
			}
			if run := w.d.Items[len(w.d.Items)-1]; run.Action == drover.DeployRun && run.State != drover.DeployItemDone && i.Action != drover.DeployRun && !i.BegunAt.IsZero() {
				t.Fatalf("item %d was begun although the command did not succeed: %+v", k, run)
			}
			if w.d.Items[k].Action == drover.DeployDestroy && w.d.Items[k].State == drover.DeployItemDone {
				destroyed++
			}
		}
		if !w.d.Ended() {
			t.Fatalf("it does not end: %+v", w.d)
		}
		if w.most-destroyed > width {
			t.Fatalf("%d machines were ill at once", w.most)
		}
		for _, i := range w.d.Items {
			if i.UnderWay() || i.State == drover.DeployItemWaiting {
				t.Fatalf("it ended with an item that is %s", i.State)
			}
		}
		if failed := w.d.Count(drover.DeployItemFailed) > 0; w.d.State == drover.DeployDone && (failed || w.d.Count(drover.DeployItemLeft) > 0) {
			t.Fatalf("done with failures: %+v", w.d)
		}
	})
}
