package fleet

import (
	"sync/atomic"
	"testing"
	"time"

	"drover"
)

func TestScheduleSlots(t *testing.T) {
	at := func(text string) time.Time {
		when, err := time.Parse("2006-01-02 15:04", text)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	for _, c := range []struct {
		schedule           drover.Schedule
		created, done, now string
		want               string
	}{
		{drover.Hourly, "2026-01-31 10:20", "", "2026-01-31 11:19", ""},
		{drover.Hourly, "2026-01-31 10:20", "", "2026-01-31 11:20", "2026-01-31 11:20"},
		{drover.Hourly, "2026-01-31 10:20", "2026-01-31 11:20", "2026-01-31 12:19", ""},
		{drover.Hourly, "2026-01-31 10:20", "2026-01-31 11:20", "2026-01-31 18:00", "2026-01-31 17:20"},
		{drover.Hourly, "2026-01-31 10:20", "2026-01-31 11:45", "2026-01-31 12:30", "2026-01-31 12:20"},
		{drover.Daily, "2026-01-31 10:20", "", "2026-02-01 10:19", ""},
		{drover.Daily, "2026-01-31 10:20", "", "2026-02-01 10:20", "2026-02-01 10:20"},
		{drover.Weekly, "2026-01-31 10:20", "", "2026-02-08 00:00", "2026-02-07 10:20"},
		{drover.Monthly, "2026-01-31 10:20", "", "2026-02-28 10:19", ""},
		{drover.Monthly, "2026-01-31 10:20", "", "2026-02-28 10:20", "2026-02-28 10:20"},
		{drover.Monthly, "2026-01-31 10:20", "2026-02-28 10:20", "2026-03-31 11:00", "2026-03-31 10:20"},
		{drover.Monthly, "2026-01-31 10:20", "2026-02-28 10:20", "2026-03-30 11:00", ""},
		{"", "2026-01-31 10:20", "", "2027-01-31 10:20", ""},
	} {
		m := drover.Machine{CreatedAt: at(c.created), Config: drover.MachineConfig{Schedule: c.schedule}}
		if c.done != "" {
			m.ScheduledAt = at(c.done)
		}
		got := ""
		if slot := scheduleSlot(m, at(c.now)); !slot.IsZero() {
			got = slot.Format("2006-01-02 15:04")
		}
		if got != c.want {
			t.Errorf("%s from %s, done %q, at %s: %q, want %q", c.schedule, c.created, c.done, c.now, got, c.want)
		}
	}
}

// TestAScheduleStartsAMachineOncePerSlot: also when the control host dies between the note and the start, and when slots were missed.
func TestAScheduleStartsAMachineOncePerSlot(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	n.kill()
	var ahead atomic.Int64
	w.clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	n = w.control("c1", nil)
	v := w.machine(n, CreateMachine{SkipLaunch: true, Config: drover.MachineConfig{Image: "busybox", Schedule: drover.Hourly}})
	id := v.Machine.ID
	runs := func(run uint64) {
		t.Helper()
		w.eventually("the machine runs by its schedule", func() bool {
			v, err := n.Machine(t.Context(), "shop", id)
			return err == nil && v.Machine.Run == run && v.Status.Run == run && v.Status.State == drover.StateStarted
		})
	}
	stop := func() {
		t.Helper()
		if _, err := n.StopMachine(t.Context(), "shop", id, drover.StopConfig{}); err != nil {
			t.Fatal(err)
		}
		if _, err := n.WaitMachine(t.Context(), "shop", id, drover.StateStopped, ""); err != nil {
			t.Fatal(err)
		}
	}
	ahead.Add(int64(time.Hour))
	runs(1)
	stop()
	// The control host dies with the note written; the next one does not start the machine for the slot again.
	n.kill()
	n = w.control("c1", killOnce("fleet.timetable.noted"))
	ahead.Add(int64(time.Hour))
	<-n.dead
	n.kill()
	n = w.control("c1", nil)
	runs(2)
	stop()
	// Nobody drives the fleet for half a day: the machine is started once, not twelve times. One that runs is left alone.
	n.kill()
	ahead.Add(int64(12 * time.Hour))
	n = w.control("c1", nil)
	runs(3)
	ahead.Add(int64(time.Hour))
	w.eventually("the slot is over", func() bool {
		v, err := n.Machine(t.Context(), "shop", id)
		return err == nil && w.clock().Sub(v.Machine.ScheduledAt) < time.Hour
	})
	runs(3)
}

// TestAMachineStandsInForOneWhoseHostIsFenced: not before the fence, once for it, and not again when a person has stopped it.
func TestAMachineStandsInForOneWhoseHostIsFenced(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	first := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
	made, err := n.CreateMachine(ctx, CreateMachine{App: "shop", Host: "h2", Config: drover.MachineConfig{Image: "busybox", Standbys: []drover.MachineID{first}}})
	if err != nil {
		t.Fatal(err)
	}
	second := made.Machine.ID
	idle := func(what string) {
		t.Helper()
		if v, err := n.Machine(ctx, "shop", second); err != nil || v.Machine.Goal != drover.GoalStopped {
			t.Fatalf("%s: %+v, %v", what, v.Machine, err)
		}
	}
	idle("created")
	w.dead(n)
	idle("its host is silent, but not fenced")
	w.confirmed(n)
	w.eventually("the machine runs in the other's place", func() bool { return w.hosts["h2"].running(second) })
	if _, err := n.StopMachine(ctx, "shop", second, drover.StopConfig{}); err != nil {
		t.Fatal(err)
	}
	n.kill()
	n = w.control("c1", nil)
	w.eventually("there is nothing due", func() bool { return n.reachable("h2") && len(n.dueMachines()) == 0 })
	idle("stopped by a person")
}
