package host

import (
	"context"
	"fmt"

	"drover"
	"drover/boltstore"
)

// A migration can be taken back while its data is still on the way. Both hosts then have a part in two: the one that takes it back has the
// machine's move record, and keeps in Earlier what there was of the other, which goes on from there when this one is aborted.
//
// Its old source, which becomes the target, has all that the machine had at the switch, frozen. It makes layers over that, and goes on serving it
// to the other host until the machine is here again. Its old target stops copying, and becomes the source of a machine that has not all of its data.

// earlierPart is this host's part in a migration that is being taken back while it is under way, as it was then.
type earlierPart struct {
	Desired *drover.ApplyRequest `json:"desired,omitempty"`
	Obs     observed             `json:"obs,omitzero"`
	Move    moveRecord           `json:"move"`
}

// whole reports whether what this host has of the machine needs no other: it is not in the middle of being copied.
func (m *moveRecord) whole() bool { return m.Earlier == nil || m.Earlier.Move.Hydrated }

// earlierRounds lists the layers that rounds of the earlier migration made here.
func (m *moveRecord) earlierRounds() []drover.LayerID {
	if m.Earlier == nil {
		return nil
	}
	return m.Earlier.Move.roundLayers()
}

// ready is for the old source, before it becomes the target: it must know that it does not have the machine any more, and have fenced itself.
func (a *Agent) ready(ctx context.Context, req drover.MoveReserveRequest) error {
	m, err := a.machine(req.Machine)
	if drover.Is(err, drover.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	earlier := func(r *records) *moveRecord {
		if mv := r.source(); mv != nil && mv.Migration == req.Undoes {
			return mv
		}
		return nil
	}
	if mv := earlier(m.rec.Load()); mv == nil || mv.Fenced {
		return nil
	}
	m.asked()
	placement, err := a.readPlacement(ctx, req.Machine)
	if err != nil {
		return err
	}
	if placement.Migration != req.Undoes || placement.Host == a.cfg.ID {
		return drover.Errorf(drover.Precondition, "migration %s has not moved machine %q to another host: there is nothing to be taken back", req.Undoes, req.Machine)
	}
	err = m.order(func(r *records, _ *boltstore.Tx) error {
		if mv := earlier(r); mv != nil && mv.Frozen && mv.Ending != endingAbort && mv.Moved < placement.Epoch {
			mv.Moved = placement.Epoch
		}
		return nil
	})
	if err != nil {
		return err
	}
	return m.await(ctx, func(r *records) (bool, error) {
		mv := earlier(r)
		return mv == nil || mv.Fenced, nil
	}, actFence)
}

// turnBack makes the source of a migration the target of the one that takes it back. What was frozen for it is held as what is kept of a
// migration that has ended is.
func (m *machine) turnBack(r *records, tx *boltstore.Tx, req drover.MoveReserveRequest) error {
	src := r.Move
	if !src.Fenced || src.Ending != "" || r.Obs.VM.Live {
		return drover.Errorf(drover.Conflict, "machine %q is still part of migration %s on host %q", req.Machine, src.Migration, m.agent.cfg.ID).
			WithHint("ask again in a moment")
	}
	mv := &moveRecord{Migration: req.Migration, Role: roleTarget, Reserve: &req, Undoes: src.Migration,
		Earlier: &earlierPart{Desired: r.Desired, Obs: r.Obs, Move: *src}}
	disks := []drover.DiskID{drover.RootDisk(m.id)}
	for _, export := range src.Exports {
		if export.Volume != "" || export.Disk.HoldsMemory() {
			disks = append(disks, export.Disk)
		}
	}
	for _, id := range disks {
		disk, ok, err := diskBucket.Get(tx, string(id))
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := m.retire(tx, disk, src.Migration); err != nil {
			return err
		}
		if err := m.agent.holdFor(tx, disk.Layer, mv.Migration); err != nil {
			return err
		}
		if !disk.Disk.HoldsMemory() { // the memory is on the other host, and is gone on from once
			mv.Kept = append(mv.Kept, disk)
		}
	}
	r.Move, r.Desired, r.Obs = mv, nil, observed{}
	return nil
}

// holdFor keeps a retired layer from being deleted while a migration is under way.
func (a *Agent) holdFor(tx *boltstore.Tx, layer drover.LayerID, by drover.MigrationID) error {
	r, ok, err := retiredBucket.Get(tx, string(layer))
	if err != nil || !ok {
		return err
	}
	r.Held = by
	return retiredBucket.Put(tx, string(layer), r)
}

// clearEarlier removes what the earlier migration left here beside its layers.
func (m *machine) clearEarlier(ctx context.Context, mv *moveRecord) error {
	if mv.Earlier == nil {
		return nil
	}
	for _, layer := range mv.Earlier.Obs.Open { // a root disk that was left out of the move
		if err := m.closeLayer(ctx, layer); err != nil && !drover.Is(err, drover.NotFound) {
			return err
		}
	}
	return m.removeFiles()
}

// endEarlier ends the old source's part for good: the machine is here again, and the other host reads no more.
func (m *machine) endEarlier(ctx context.Context, mv *moveRecord) error {
	if mv.Earlier == nil {
		return nil
	}
	m.agent.hit("host.turn.before-unexport")
	if err := m.unexport(ctx, &mv.Earlier.Move); err != nil {
		return err
	}
	m.agent.hit("host.turn.after-unexport")
	return m.dropRounds(ctx, &mv.Earlier.Move)
}

// goBack makes the host the source of the earlier migration again, after its own layers over what is frozen are gone.
func (m *machine) goBack(tx *boltstore.Tx, r *records, mv *moveRecord) error {
	e := mv.Earlier
	held, err := heldBy(tx, mv.Migration)
	if err != nil {
		return err
	}
	for _, k := range held {
		if err := diskBucket.Put(tx, string(k.Disk), *k.Was); err != nil {
			return err
		}
		if err := retiredBucket.Delete(tx, string(k.Layer)); err != nil {
			return err
		}
	}
	was := e.Move
	r.Desired, r.Obs, r.Move = e.Desired, e.Obs, &was
	return nil
}

// turnAway makes the target of a migration, whose data may still be on the way, the source of the one that takes it back.
func turnAway(r *records, req drover.MoveExportRequest) error {
	mv := r.Move
	if !mv.Cloned || r.taking() {
		return drover.Errorf(drover.Conflict, "machine %q is still being taken over by migration %s", req.Machine, mv.Migration).
			WithHint("ask again in a moment")
	}
	r.Move = &moveRecord{Migration: req.Migration, Role: roleSource, Target: req.Target, Earlier: &earlierPart{Move: *mv}}
	return nil
}

// pauseEarlier stops the copying of the earlier migration, or lets it go on.
func (m *machine) pauseEarlier(ctx context.Context, mv *moveRecord, paused bool) error {
	if mv.whole() {
		return nil
	}
	for _, d := range mv.Earlier.Move.clones() {
		if now, err := m.disk(d.Disk); err == nil && now.Layer == d.Layer && now.HydratePaused {
			continue // an operator's wish
		}
		m.agent.hit("host.turn.before-pause")
		_, err := call(ctx, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, m.agent.cfg.Storage.PauseHydration(ctx, d.Layer, paused)
		})
		if err != nil && !drover.Is(err, drover.NotFound) {
			return fmt.Errorf("cannot stop the copying of the disk %q: %w", d.Disk, err)
		}
	}
	return nil
}

// dropUnfinished removes what had come of the machine's disks: without the other host's frozen layers, which are the machine's again, it is no copy.
func (m *machine) dropUnfinished(ctx context.Context, mv *moveRecord) error {
	if mv.whole() {
		return nil
	}
	for _, d := range mv.Earlier.Move.clones() {
		m.agent.hit("host.turn.before-delete")
		if err := m.agent.discardLayer(ctx, d.Layer, (d.Volume != "" || d.Disk.HoldsMemory()) && d.Cipher == nil); err != nil {
			return err
		}
		m.agent.hit("host.turn.after-delete")
	}
	return m.dropRounds(ctx, &mv.Earlier.Move)
}

// unfinished tells whether a layer is one of those.
func (m *moveRecord) unfinished(layer drover.LayerID) bool {
	if m.whole() {
		return false
	}
	for _, d := range m.Earlier.Move.clones() {
		if d.Layer == layer {
			return true
		}
	}
	return false
}

// stopCopying stops the copying to layers that are kept aside: their machine is another host's, and so is what they would be filled from.
func (m *machine) stopCopying(ctx context.Context) error {
	mv := m.rec.Load().target()
	if mv == nil || !mv.adopted() || mv.Hydrated {
		return nil
	}
	for _, d := range mv.clones() {
		m.agent.hit("host.lost-copy.before")
		_, err := call(ctx, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, m.agent.cfg.Storage.PauseHydration(ctx, d.Layer, true)
		})
		if err != nil && !drover.Is(err, drover.NotFound) {
			return fmt.Errorf("cannot stop the copying of the disk %q: %w", d.Disk, err)
		}
	}
	return nil
}

// keepRounds keeps what rounds had brought for as long as the layers that lie over it.
func (a *Agent) keepRounds(tx *boltstore.Tx, mv *moveRecord) error {
	if mv == nil || mv.Role != roleTarget || !mv.adopted() || mv.Hydrated {
		return nil
	}
	for _, e := range mv.Exports {
		for round := mv.Round; round > 0; round-- {
			layer := drover.RoundLayer(e.Disk, mv.Migration, round)
			err := retiredBucket.Put(tx, string(layer), retiredRecord{Layer: layer, Disk: e.Disk, Migration: mv.Migration, DeleteAfter: a.now().Add(a.cfg.KeepAside),
				Wipe: e.Volume != "" && e.Cipher == nil})
			if err != nil {
				return err
			}
		}
	}
	return nil
}
