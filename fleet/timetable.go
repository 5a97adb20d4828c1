package fleet

import (
	"context"
	"time"

	"drover"
)

// scheduleSlot returns the newest time at which the schedule of a machine asks for a start that was not dealt with yet; zero when there is
// none. The times are counted from the machine's creation, so that they are the same on every control host. Of several that were missed, the
// newest counts.
func scheduleSlot(m drover.Machine, now time.Time) time.Time {
	slot := slotBefore(m.Config.Schedule, m.CreatedAt.UTC(), now.UTC())
	done := m.ScheduledAt
	if done.IsZero() {
		done = m.CreatedAt
	}
	if !slot.After(done) {
		return time.Time{}
	}
	return slot
}

// slotBefore returns the newest time of a schedule that is not after now.
func slotBefore(s drover.Schedule, from, now time.Time) time.Time {
	every := map[drover.Schedule]time.Duration{drover.Hourly: time.Hour, drover.Daily: 24 * time.Hour, drover.Weekly: 7 * 24 * time.Hour}[s]
	switch {
	case now.Before(from):
		return time.Time{}
	case every > 0:
		return from.Add(now.Sub(from).Truncate(every))
	case s != drover.Monthly:
		return time.Time{}
	}
	months := (now.Year()-from.Year())*12 + int(now.Month()-from.Month())
	if slot := monthsAfter(from, months); !slot.After(now) {
		return slot
	}
	return monthsAfter(from, months-1)
}

// monthsAfter returns the same day and time n months later, or the last day of a month that is too short.
func monthsAfter(from time.Time, n int) time.Time {
	slot := from.AddDate(0, n, 0)
	if slot.Day() != from.Day() { // the day is one of the next month
		slot = slot.AddDate(0, 0, -slot.Day())
	}
	return slot
}

// keepTimetable starts machines by their schedules, and those that stand in for others, until ctx ends.
func (f *Fleet) keepTimetable(ctx context.Context) {
	for {
		for _, id := range f.dueMachines() {
			if err := f.startDue(ctx, id); err != nil && ctx.Err() == nil && !drover.Is(err, drover.Conflict) {
				f.log.Warn("machine is started by the timetable later", "machine", id, "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(f.timing.Work):
		}
	}
}

// dueMachines returns the machines that are to be started now, as far as memory knows.
func (f *Fleet) dueMachines() []drover.MachineID {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	now := f.now()
	var ids []drover.MachineID
	for id, m := range f.state.machines.items {
		if m.value.Goal == drover.GoalDestroyed || m.value.Config.Schedule == "" && len(m.value.Config.Standbys) == 0 {
			continue
		}
		if f.state.apps.items[string(m.value.App)].value.Destroyed != nil {
			continue
		}
		if !scheduleSlot(m.value, now).IsZero() || f.standsInLocked(m.value) != "" {
			ids = append(ids, drover.MachineID(id))
		}
	}
	return ids
}

// startDue starts a machine for a slot of its schedule, or in the place of another. What it is started for is noted in the same write of its
// record, so that it is started once for it, whoever drives the fleet and whenever that one dies. A machine that runs is left alone, and the slot is
// over for it.
func (f *Fleet) startDue(ctx context.Context, id drover.MachineID) error {
	if err := f.still(ctx, id); err != nil {
		return err // it is asked again while the slot lasts
	}
	started := false
	err := f.change(ctx, "", id, func(m *drover.Machine) error {
		started = false
		if slot := scheduleSlot(*m, f.now()); !slot.IsZero() {
			m.ScheduledAt, started = slot, true
		}
		f.state.mu.RLock()
		place := f.standsInLocked(*m)
		f.state.mu.RUnlock()
		if place != "" {
			m.StandsIn, started = place, true
		}
		if started = started && !f.upOrComing(*m); started {
			m.Goal, m.Stop = drover.GoalStarted, drover.StopConfig{}
			m.Run++
		}
		return nil
	})
	if err != nil || !started {
		return err
	}
	f.hit("fleet.timetable.noted")
	f.log.Info("machine is started by the timetable", "machine", id)
	_, err = f.apply(ctx, id)
	if drover.Is(err, drover.Unavailable) {
		return nil // its host learns of it when it is back
	}
	return err
}

// upOrComing reports whether a machine runs, or is about to.
func (f *Fleet) upOrComing(m drover.Machine) bool {
	st, _, known := f.state.status.seen(string(m.ID))
	switch {
	case m.Goal != drover.GoalStarted:
		return known && st.State == drover.StateStopping
	case !known || st.Run < m.Run:
		return true
	}
	switch st.State {
	case drover.StateCreated, drover.StateStarting, drover.StateStarted, drover.StateStopping:
		return true
	}
	return false
}

// standsInLocked returns for which death of a host a machine is to be started in the place of one that was there; "" for none. Its own host has to
// be there, and it was not started for the same fence before, so that a person who stops it is not opposed.
func (f *Fleet) standsInLocked(m drover.Machine) string {
	if f.fencedLocked(string(m.ID)) != nil {
		return ""
	}
	for _, id := range m.Config.Standbys {
		other, ok := f.state.machines.items[string(id)]
		if !ok || other.value.App != m.App || other.value.Goal != drover.GoalStarted {
			continue
		}
		fence := f.fencedLocked(string(id))
		if fence == nil {
			continue
		}
		if place := string(id) + "/" + string(fence.Host) + "/" + fence.At.UTC().Format(time.RFC3339Nano); place != m.StandsIn {
			return place
		}
		return ""
	}
	return ""
}

// fencedLocked returns the fence of a machine's host; nil while that may write.
func (f *Fleet) fencedLocked(id string) *drover.HostFence {
	p, ok := f.state.placements.items[id]
	if !ok {
		return nil
	}
	fence, ok := f.state.fences.items[string(p.value.Host)]
	if !ok || !fence.value.ReturnedAt.IsZero() {
		return nil
	}
	return &fence.value
}
