package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"drover"
	"drover/boltstore"
)

// spec returns the machine that is coming, or has come.
func (r *records) spec() (drover.Machine, bool) {
	switch {
	case r.Desired != nil:
		return r.Desired.Machine, true
	case r.Move != nil && r.Move.Reserve != nil:
		return r.Move.Reserve.Spec, true
	}
	return drover.Machine{}, false
}

// ensureMoveImage fetches the image that the root disk of the machine is a change to.
func (m *machine) ensureMoveImage(ctx context.Context) error {
	r := m.rec.Load()
	spec, ok := r.spec()
	if !ok {
		return drover.Errorf(drover.Precondition, "machine %q was not reserved on host %q", m.id, m.agent.cfg.ID)
	}
	m.agent.hit("host.reserve.before-image")
	image, err := m.agent.cfg.Images.Ensure(ctx, spec.Config.Image, spec.Image, m.progress())
	if err != nil {
		return err
	}
	image.Ref.Digest = spec.Image.Digest
	m.agent.hit("host.reserve.after-image")
	return m.changeMove(r.Move.Migration, func(_ *records, _ *boltstore.Tx, mv *moveRecord) error {
		mv.Image = &image
		return nil
	})
}

// clones returns the disks that the migration makes here.
func (mv *moveRecord) clones() []diskRecord {
	if mv.Undoes != "" {
		return mv.restored()
	}
	disks := make([]diskRecord, 0, len(mv.Exports))
	for _, export := range mv.Exports {
		disk := diskRecord{Disk: export.Disk, Volume: export.Volume, Layer: drover.LayerFor(export.Disk, mv.Migration), Size: export.Size,
			Migration: mv.Migration, Used: export.Allocated > 0, Cipher: export.Cipher, Made: true}
		if export.Volume == "" && !export.Disk.HoldsMemory() {
			disk.Image = mv.Image
		}
		disks = append(disks, disk)
	}
	return disks
}

// cloneLayers makes a layer over each export, and proves that it can read.
func (m *machine) cloneLayers(ctx context.Context) error {
	cfg, mv := m.agent.cfg, m.rec.Load().Move
	if err := m.bringMoveSecrets(ctx, mv); err != nil {
		return err
	}
	if mv.Undoes != "" {
		return m.restoreLayers(ctx)
	}
	for i, disk := range mv.clones() {
		spec := LayerSpec{ID: disk.Layer, Disk: disk.Disk, Size: disk.Size, Parent: &mv.Exports[i], Cipher: disk.Cipher,
			Limits: m.limitsOf(disk.Volume)}
		mv.layOver(&spec, mv.Rounded)
		m.agent.hit("host.clone.before")
		if _, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) { return cfg.Storage.CreateLayer(ctx, spec) }); err != nil {
			return fmt.Errorf("cannot clone the disk %q: %w", disk.Disk, err)
		}
		m.agent.hit("host.clone.after")
		if mv.adopted() {
			continue // the machine is this host's whether its source answers or not: reads wait for it
		}
		if _, err := call(ctx, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, cfg.Storage.CheckParent(ctx, disk.Layer)
		}); err != nil {
			return fmt.Errorf("cannot read the disk %q from host %q: %w", disk.Disk, mv.Exports[i].Host, err)
		}
		m.agent.hit("host.clone.after-check")
		if disk.Cipher != nil {
			// Before the machine is stopped: it could not start here without the key.
			if err := m.agent.bringKey(ctx, disk.Cipher.Key); err != nil {
				// Another control host may have it; the phase has its own bound.
				return drover.Errorf(drover.Unavailable, "cannot get the key of the disk %q: %w", disk.Disk, err)
			}
		}
	}
	return m.changeMove(mv.Migration, func(r *records, tx *boltstore.Tx, now *moveRecord) error {
		now.Cloned = true
		return m.takeDisks(tx, r)
	})
}

// limitsOf returns what the machine may ask of a volume, by the volume's record that came with the machine.
func (m *machine) limitsOf(id drover.VolumeID) drover.Limits {
	r := m.rec.Load()
	var volumes []drover.Volume
	switch {
	case r.Desired != nil:
		volumes = r.Desired.Volumes
	case r.Move != nil && r.Move.Reserve != nil:
		volumes = r.Move.Reserve.Volumes
	}
	for _, v := range volumes {
		if v.ID == id {
			return v.Limits
		}
	}
	return drover.Limits{}
}

// takeDisks makes the clones the disks' layers, once the machine is this host's and they are there. An older layer of the same disk,
// from an earlier stay on this host, is retired.
func (m *machine) takeDisks(tx *boltstore.Tx, r *records) error {
	if !r.Move.adopted() || !r.Move.Cloned {
		return nil
	}
	for _, disk := range r.Move.clones() {
		old, ok, err := diskBucket.Get(tx, string(disk.Disk))
		if err != nil {
			return err
		}
		if ok && old.Layer == disk.Layer {
			continue
		}
		if ok {
			if err := m.retire(tx, old, r.Move.Migration); err != nil {
				return err
			}
		}
		if err := diskBucket.Put(tx, string(disk.Disk), disk); err != nil {
			return err
		}
	}
	return nil
}

// adopt makes the machine this host's: the records that the order brings, durably. The loop does the rest.
func (m *machine) adopt(r *records, tx *boltstore.Tx, req drover.MoveActivateRequest) error {
	now := m.agent.now()
	if r.Move == nil || r.Move.Migration != req.Migration {
		r.Move = &moveRecord{Migration: req.Migration, Role: roleTarget} // the reservation was lost: the order brings all that is needed
	}
	mv := r.Move
	if mv.Ending != "" {
		mv.Ending, mv.Cloned = "", false // an abort was at the clones: whatever it left is made whole
	}
	if err := m.keepFor(tx, mv, req.Undoes); err != nil {
		return err
	}
	mv.AdoptedAt = now
	if req.Limit != 0 {
		mv.Limit = req.Limit
	}
	if !mv.WantClones {
		mv.WantClones = true
		mv.Exports = slices.Clone(req.Exports)
	}
	if !mv.Cloned {
		mv.Cloned = len(mv.Exports) == 0 && mv.Undoes == ""
	}
	apply := req.Apply
	r.Desired = &apply
	r.Obs = observed{Status: req.Status}
	o := &r.Obs
	o.Status.Machine, o.Status.Host, o.Status.Epoch = m.id, m.agent.cfg.ID, apply.Epoch
	o.Over = (req.Status.State == drover.StateStopped || req.Status.State == drover.StateFailed) && apply.Machine.Goal == drover.GoalStarted
	o.OverRun = req.Status.Run
	o.Status.Run = req.Status.Run
	switch {
	case o.Over, apply.Machine.Goal != drover.GoalStarted:
		if !restingState(o.Status.State) {
			o.Status.State = drover.StateStopped
		}
	default:
		o.Status.State = drover.StateStarting
	}
	o.Status.Reason = ""
	m.adoptLive(r, req)
	m.adoptMemory(r, req.Migration)
	r.event(now, event{kind: "migrate", source: "drover", text: "moved to host " + string(m.agent.cfg.ID),
		request: map[string]any{"migrated": true, "migration": string(req.Migration)}})
	if err := endedBucket.Delete(tx, string(req.Migration)); err != nil {
		return err
	}
	return m.takeDisks(tx, r)
}

// hydrateEvery is how often hydration is looked at, and told to go on in case the storage daemon was restarted. At first it is looked at after hydrateSoon,
// then after twice as long each time: little is copied in no time, and the next move of a drain waits for it.
const (
	hydrateSoon  = 50 * time.Millisecond
	hydrateEvery = time.Second
)

// hydrate starts the background copy of each clone, or sees how far it is.
func (m *machine) hydrate(ctx context.Context) error {
	mv := m.rec.Load().Move
	m.hydratePause = min(max(2*m.hydratePause, hydrateSoon), hydrateEvery)
	m.hydrateAt = m.agent.now().Add(m.hydratePause)
	var copied []diskRecord
	err := eachDisk(ctx, mv.clones(), true, func(ctx context.Context, d diskRecord) error {
		status, err := m.agent.cfg.Storage.Layer(ctx, d.Layer)
		if err != nil || status.Hydration == nil || status.Hydration.Done {
			return err // no hydration means no parent: the root disk was replaced meanwhile
		}
		if now, err := m.disk(d.Disk); err == nil && now.Layer == d.Layer {
			d = now // with what an operator wishes
		}
		copied = append(copied, d)
		return nil
	})
	if err != nil {
		return err
	}
	for _, d := range copied {
		m.agent.hit("host.hydrate.before")
		if err := m.agent.keepHydrating(ctx, d, mv.limitEach(len(copied))); err != nil && !drover.Is(err, drover.NotFound) {
			return err
		}
	}
	if len(copied) > 0 {
		return nil
	}
	m.hydratePause = 0
	if err := m.dropRounds(ctx, mv); err != nil {
		return err
	}
	if err := m.endEarlier(ctx, mv); err != nil {
		return err
	}
	if err := m.dropKept(ctx, mv); err != nil {
		return err
	}
	m.agent.hit("host.hydrate.after")
	return m.changeMove(mv.Migration, func(_ *records, tx *boltstore.Tx, now *moveRecord) error {
		now.Hydrated, now.Earlier = true, nil
		return m.agent.forgetKept(tx, mv)
	})
}

// abortTarget removes the clones and the reservation.
func (m *machine) abortTarget(ctx context.Context) error {
	mv := m.rec.Load().Move
	if err := m.dropTake(ctx, mv); err != nil {
		return err
	}
	for _, disk := range mv.clones() {
		m.agent.hit("host.abort-target.before-delete")
		if err := m.deleteLayer(ctx, disk.Layer); err != nil {
			return err
		}
		m.agent.hit("host.abort-target.after-delete")
	}
	if err := errors.Join(m.abortRounds(ctx, mv), m.dropSecrets()); err != nil {
		return err
	}
	return m.changeMove(mv.Migration, func(r *records, tx *boltstore.Tx, mv *moveRecord) error {
		if mv.Ending != endingAbort {
			return nil // the machine was handed over after all
		}
		if mv.Earlier != nil {
			if err := m.goBack(tx, r, mv); err != nil {
				return err
			}
			return m.remember(tx, mv.Migration, endingAbort, "it was aborted")
		}
		if err := m.agent.unhold(tx, mv.Migration); err != nil {
			return err
		}
		r.Move = nil
		if r.Desired == nil {
			r.Obs = observed{}
		}
		return m.remember(tx, mv.Migration, endingAbort, "it was aborted")
	})
}
