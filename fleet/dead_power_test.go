package fleet

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"drover"
	"drover/migrate"
)

// fakePower is a power controller: it fails a number of times first.
type fakePower struct {
	mu    sync.Mutex
	fails int
	asked []drover.HostID
	// cuts is what an outlet does when it is switched off; nil for nothing.
	cuts func(drover.HostID)
}

func (p *fakePower) Off(_ context.Context, host drover.HostID) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, host)
	if len(p.asked) <= p.fails {
		return "", errors.New("no such outlet")
	}
	if p.cuts != nil {
		p.cuts(host)
	}
	return "outlet 7 is off", nil
}

func (p *fakePower) times() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.asked)
}

// newPoweredWorld is a world whose fleet can switch hosts off.
func newPoweredWorld(t *testing.T, p *fakePower, after time.Duration) (*world, *node) {
	w, n := newWorld(t)
	n.kill()
	w.power = p
	tune := w.tune
	w.tune = func(timing *Timing, rules *migrate.Rules) { tune(timing, rules); timing.PowerOff = after }
	return w, w.control("c1", nil)
}

func TestADeadHostIsSwitchedOffForMachinesThatNeedNotAsk(t *testing.T) {
	t.Parallel()
	p := &fakePower{}
	w, n := newPoweredWorld(t, p, time.Millisecond)
	id, _ := w.victim(n)
	if _, err := n.SetRecovery(t.Context(), "shop", drover.RecoverAutomatic); err != nil {
		t.Fatal(err)
	}
	// Its agent is silent, and others reach it: it runs, and is not touched.
	w.hosts["h1"].halt()
	w.eventually("h1 is silent", func() bool {
		h, err := n.Host(t.Context(), "h1")
		return err == nil && h.Reach == drover.ReachSilent
	})
	if p.times() != 0 {
		t.Error("a host was switched off that runs")
	}
	w.powerOff("h1")
	w.eventually("it is recovered", func() bool {
		list, err := n.Recoveries(t.Context())
		return err == nil && len(list) == 1 && list[0].State == drover.RecoveryDone && list[0].Automatic
	})
	w.checkOwner(n, id, "h2", true)
	plan, err := n.RecoveryPlan(t.Context(), "h1")
	if err != nil || plan.Fence == nil || plan.Fence.By != drover.FenceByCommand || !strings.Contains(plan.Fence.Reason, "outlet 7 is off") {
		t.Errorf("%+v, %v", plan.Fence, err)
	}
}

// A host that cannot be switched off is fenced by nothing, and everybody can see why.
func TestAPowerCommandThatFailsFencesNothing(t *testing.T) {
	t.Parallel()
	p := &fakePower{fails: 1 << 30}
	w, n := newPoweredWorld(t, p, time.Millisecond)
	id, _ := w.victim(n)
	if _, err := n.SetRecovery(t.Context(), "shop", drover.RecoverAutomatic); err != nil {
		t.Fatal(err)
	}
	w.dead(n)
	w.eventually("the condition", func() bool {
		h, err := n.Host(t.Context(), "h1")
		if err != nil {
			return false
		}
		for _, c := range h.Conditions {
			if c.Code == drover.PowerOffFails && c.Severity == drover.SeverityCritical && strings.Contains(c.Text, "no such outlet") {
				return true
			}
		}
		return false
	})
	_, err := n.SwitchOff(t.Context(), ConfirmOff{Host: "h1", Reason: "by hand", Actor: "eve"})
	if err == nil || !strings.Contains(err.Error(), "no such outlet") {
		t.Errorf("by hand: %v", err)
	}
	if _, err := n.StartRecovery(t.Context(), StartRecovery{Host: "h1"}); !drover.Is(err, drover.Precondition) {
		t.Errorf("recovered without a fence: %v", err)
	}
	w.powerOn(n, "h1")
	w.eventually("the condition is gone", func() bool {
		h, err := n.Host(t.Context(), "h1")
		return err == nil && h.Reach == drover.ReachOK && len(h.Conditions) == 0
	})
	w.checkOwner(n, id, "h1", true)
}

// Where nobody agreed, a person decides; the command is there for him.
func TestAHostIsSwitchedOffByHand(t *testing.T) {
	t.Parallel()
	p := &fakePower{}
	w, n := newPoweredWorld(t, p, time.Millisecond)
	w.victim(n)
	ctx := t.Context()
	off := ConfirmOff{Host: "h1", Reason: "does not answer", Actor: "eve"}
	_, err := n.SwitchOff(ctx, off)
	wantError(t, err, drover.Precondition, "", `host "h1" is not off: it is heard on the bus`)
	w.dead(n)
	_, err = n.SwitchOff(ctx, ConfirmOff{Host: "h1"})
	wantError(t, err, drover.Invalid, "reason", "")
	if p.times() != 0 {
		t.Fatal("it was switched off without anybody's word")
	}
	fence, err := n.SwitchOff(ctx, off)
	if err != nil || fence.By != drover.FenceByCommand || fence.Actor != "eve" || p.times() != 1 {
		t.Errorf("%+v, %v, asked %d times", fence, err, p.times())
	}
	w.power = nil
	n.kill()
	n = w.control("c1", nil)
	w.eventually("it is judged again", func() bool {
		_, err = n.SwitchOff(ctx, off)
		return drover.Is(err, drover.Precondition)
	})
	if !strings.Contains(err.Error(), "no power command") {
		t.Errorf("%v", err)
	}
}

// A host whose disk hangs is heard, and is of no use: it is switched off on a person's word, and fenced once it is silent.
func TestAHostWhoseDiskHangsIsSwitchedOff(t *testing.T) {
	t.Parallel()
	p := &fakePower{fails: 1}
	w, n := newPoweredWorld(t, p, time.Millisecond)
	w.victim(n)
	p.cuts = w.powerOff
	w.hosts["h1"].set(func() {
		w.hosts["h1"].conditions = []drover.Condition{{Code: drover.DiskStalled, Severity: drover.SeverityCritical, Text: "the disk hangs"}}
	})
	w.eventually("it is known that the disk hangs", func() bool { return n.diskHangs("h1") })
	off := ConfirmOff{Host: "h1", Reason: "its disk hangs", Actor: "eve"}
	_, err := n.ConfirmOff(t.Context(), off)
	if wantError(t, err, drover.Precondition, "", `host "h1" is not off: it is heard on the bus`); !strings.Contains(drover.AsError(err).Hint, "drover host fence h1") {
		t.Errorf("the hint is %q", drover.AsError(err).Hint)
	}
	if _, err = n.SwitchOff(t.Context(), off); err == nil || !strings.Contains(err.Error(), "no such outlet") {
		t.Errorf("an outlet that fails: %v", err)
	}
	if _, err := n.certain(t.Context(), "h1"); err == nil {
		t.Error("it is fenced though the power command failed")
	}
	fence, err := n.SwitchOff(t.Context(), off)
	if err != nil || fence.By != drover.FenceByCommand || p.times() != 2 {
		t.Fatalf("%+v, %v, asked %d times", fence, err, p.times())
	}
	if _, err := n.certain(t.Context(), "h1"); err != nil {
		t.Errorf("the fence: %v", err)
	}
}

// The control host dies between the command and the record of the fence: the next one switches off again, which changes nothing, and goes on.
func TestAControllerMayDieAfterTheSwitchOff(t *testing.T) {
	t.Parallel()
	p := &fakePower{}
	w, n := newPoweredWorld(t, p, time.Millisecond)
	id, _ := w.victim(n)
	if _, err := n.SetRecovery(t.Context(), "shop", drover.RecoverAutomatic); err != nil {
		t.Fatal(err)
	}
	n.kill()
	n = w.control("c2", func(point string) bool { return point == "fleet.power.after" })
	w.powerOff("h1")
	<-n.dead
	n = w.control("c3", nil)
	w.eventually("it is recovered", func() bool {
		list, err := n.Recoveries(t.Context())
		return err == nil && len(list) == 1 && list[0].State == drover.RecoveryDone
	})
	w.checkOwner(n, id, "h2", true)
	if p.times() < 2 {
		t.Error("the second control host took the first one's word for it, which it never gave")
	}
}
