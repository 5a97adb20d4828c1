package fleet

import (
	"context"
	"slices"
	"strings"

	"drover"
	"drover/migrate"
)

// WriteOff asks to give up what never came from a migration's source that is lost. Without Confirm it only tells what that would be, and what copies there are.
type WriteOff struct {
	Migration drover.MigrationID
	Reason    string
	Actor     string
	Confirm   bool
}

// WriteOffSource gives up the source of a migration that is lost while the data is on the way: reads of what had not come fail, until it is written. It is refused while the
// source is heard, or anybody reaches it. It is durable when it returns; the record of the migration tells when it is done, and what was lost.
func (f *Fleet) WriteOffSource(ctx context.Context, req WriteOff) (drover.LostSource, error) {
	if err := f.await(ctx); err != nil {
		return drover.LostSource{}, err
	}
	req.Reason = strings.TrimSpace(req.Reason)
	switch {
	case req.Confirm && req.Reason == "":
		return drover.LostSource{}, drover.Errorf(drover.Invalid, "reason: say how it is known that the source is lost for good").WithField("reason")
	case len(req.Reason) > maxReason:
		return drover.LostSource{}, drover.Errorf(drover.Invalid, "reason: %d bytes are too many: at most %d", len(req.Reason), maxReason).WithField("reason")
	}
	m, err := f.Migration(ctx, req.Migration)
	if err != nil {
		return drover.LostSource{}, err
	}
	out := drover.LostSource{Migration: m.ID, Machine: m.Machine, Source: m.Source, Target: m.Target, Copies: f.copiesOf(m), WriteOff: m.WriteOff}
	if m.WriteOff != nil {
		return out, nil
	}
	if err := f.mayWriteOff(m); err != nil {
		return drover.LostSource{}, err
	}
	if out.Missing, out.MissingKnown, err = f.missing(ctx, m); err != nil {
		return drover.LostSource{}, err
	}
	if !req.Confirm {
		return out, nil
	}
	out.WriteOff, err = f.beginWriteOff(ctx, req)
	return out, err
}

// mayWriteOff tells why the source of a migration is not given up; nil when it may be.
func (f *Fleet) mayWriteOff(m drover.Migration) error {
	switch {
	case m.UndoneBy != "":
		return drover.Errorf(drover.Conflict, "migration %q is being taken back by migration %q", m.ID, m.UndoneBy).WithHint("see `drover migration show %s`", m.UndoneBy)
	case m.Outcome != drover.Running:
		return drover.Errorf(drover.Precondition, "migration %q is %s: nothing is waited for", m.ID, m.Outcome)
	case m.Phase != drover.PhaseHydrate && m.Phase != drover.PhaseStart:
		return drover.Errorf(drover.Precondition, "migration %q is in phase %s: the machine is still its source's", m.ID, m.Phase).
			WithHint("give it up: drover migration abort %s", m.ID)
	case hydrated(m):
		return drover.Errorf(drover.Precondition, "all of the machine's data has come: nothing is to be written off of migration %q", m.ID)
	}
	err := f.seemsOff(m.Source)
	if drover.Is(err, drover.Precondition) {
		return drover.AsError(err).WithHint("the hydration goes on by itself; `drover migration show %s` says what it waits for", m.ID)
	}
	return err
}

// beginWriteOff writes into the record that the source is given up.
func (f *Fleet) beginWriteOff(ctx context.Context, req WriteOff) (*drover.WriteOff, error) {
	for range casTries {
		m, rev, err := f.state.migrations.get(ctx, string(req.Migration))
		if err != nil {
			return nil, err
		}
		if m.WriteOff != nil {
			return m.WriteOff, nil // asked before
		}
		if err := f.mayWriteOff(m); err != nil {
			return nil, err
		}
		m.WriteOff = &drover.WriteOff{At: f.now().UTC(), Actor: req.Actor, Reason: req.Reason}
		_, err = f.state.migrations.update(ctx, string(m.ID), m, rev)
		if drover.Is(err, drover.Conflict) {
			continue
		}
		if err == nil {
			f.hit("fleet.write-off.begun")
			f.log.Warn("the source of a migration is written off", "migration", m.ID, "machine", m.Machine, "source", m.Source, "actor", req.Actor, "why", req.Reason)
		}
		return m.WriteOff, err
	}
	return nil, tooBusy("migration", string(req.Migration))
}

// missing sums what the target has not got of a migration's disks. known is false when it cannot be told of all how much the source had.
func (f *Fleet) missing(ctx context.Context, m drover.Migration) (sum drover.Bytes, known bool, err error) {
	var layers []drover.LayerStatus
	if err := f.order(ctx, f.timing.Apply, m.Target, drover.OrderLayers, drover.Empty{}, &layers); err != nil {
		return 0, false, err
	}
	known = true
	for _, l := range layers {
		if h := l.Hydration; h != nil && !h.Done && slices.ContainsFunc(m.Disks, func(d drover.DiskMove) bool { return d.Target == l.ID }) {
			sum += max(0, h.Total-h.Copied-h.Skipped)
			known = known && h.TotalKnown
		}
	}
	return sum, known, nil
}

// copiesOf finds the newest copies of the volumes of a migration that are not on its source.
func (f *Fleet) copiesOf(m drover.Migration) []drover.RecoverySource {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	copies := []drover.RecoverySource{}
	machine := f.state.machines.items[string(m.Machine)].value
	at := f.standbyHostLocked(machine, m.Source)
	for _, d := range m.Disks {
		if v, ok := f.state.volumes.items[string(d.Volume)]; ok && d.Volume != "" {
			copies = append(copies, f.sourceLocked(v.value, m.Source, at))
		}
	}
	return copies
}

// wroteOff takes the target's word on what was lost into the record.
func (v *mover) wroteOff(p drover.MoveProgress) taking {
	return func(m drover.Migration) drover.Migration { return migrate.WrittenOff(m, p, v.now().UTC()) }
}
