package host

import (
	"context"
	"fmt"
	"maps"

	"drover"
	"drover/boltstore"
)

// exportLayers lets the target read the machine's layers. A root disk that is to be replaced at the next start is left out: the target
// makes a new one.
func (m *machine) exportLayers(ctx context.Context) error {
	disks, err := m.allDisks()
	if err != nil {
		return err
	}
	cfg, src := m.agent.cfg, m.rec.Load().Move
	if err := m.pauseEarlier(ctx, src, true); err != nil {
		return err
	}
	exports := make([]drover.Export, 0, len(disks))
	err = eachDisk(ctx, disks, false, func(ctx context.Context, d diskRecord) error {
		m.agent.hit("host.export.before")
		if err := cfg.Storage.Export(ctx, d.Layer, src.Target); err != nil {
			return fmt.Errorf("cannot export the layer %q to host %q: %w", d.Layer, src.Target, err)
		}
		m.agent.hit("host.export.after")
		status, err := cfg.Storage.Layer(ctx, d.Layer)
		if err == nil && status.Size < d.Size {
			// An extension was cut after its record: the target must not clone less than the volume is.
			err = cfg.Storage.Resize(ctx, d.Layer, d.Size)
			status.Size = d.Size
		}
		if err != nil {
			return err
		}
		exports = append(exports, drover.Export{Disk: d.Disk, Volume: d.Volume, Layer: d.Layer, Size: status.Size, Host: cfg.ID,
			Address: cfg.StorageAddress, Name: string(d.Layer), Allocated: status.Allocated, Cipher: status.Cipher})
		return nil
	})
	if err != nil {
		return err
	}
	return m.changeMove(src.Migration, func(_ *records, _ *boltstore.Tx, mv *moveRecord) error {
		mv.Exports, mv.Exported = exports, true
		return nil
	})
}

// changeMove changes the move record if it is still of the migration; otherwise the work was for nothing, which is no error.
func (m *machine) changeMove(id drover.MigrationID, fn func(r *records, tx *boltstore.Tx, mv *moveRecord) error) error {
	return m.change(func(r *records, tx *boltstore.Tx) error {
		if r.Move == nil || r.Move.Migration != id {
			return nil
		}
		return fn(r, tx, r.Move)
	})
}

// showHeld tells in the status why a machine that should run does not.
func (m *machine) showHeld() error {
	return m.change(func(r *records, _ *boltstore.Tx) error {
		if r.Move != nil {
			r.Obs.Status.Reason = heldReason(r.Move.Migration)
		}
		return nil
	})
}

// freeze freezes every exported layer. The mark was stored by the order, before anything here happens.
func (m *machine) freeze(ctx context.Context) error {
	src := m.rec.Load().Move
	allocated := map[drover.DiskID]drover.Bytes{}
	for _, export := range src.Exports {
		m.agent.hit("host.freeze.before")
		status, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) {
			return m.agent.cfg.Storage.Freeze(ctx, export.Layer)
		})
		if err != nil {
			return fmt.Errorf("cannot freeze the layer %q: %w", export.Layer, err)
		}
		m.agent.hit("host.freeze.after")
		allocated[export.Disk] = status.Allocated
	}
	return m.changeMove(src.Migration, func(_ *records, _ *boltstore.Tx, mv *moveRecord) error {
		mv.Allocated = maps.Clone(allocated)
		return nil
	})
}

// fence makes the storage daemon refuse this host's own epoch for good, once the placement named another host. The exports stay: the
// target reads from them.
func (m *machine) fence(ctx context.Context) error {
	src := m.rec.Load().Move
	for _, export := range src.Exports {
		m.agent.hit("host.fence.before")
		if _, err := call(ctx, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, m.agent.cfg.Storage.Fence(ctx, export.Disk, src.Moved)
		}); err != nil {
			return fmt.Errorf("cannot fence the disk %q: %w", export.Disk, err)
		}
	}
	if err := m.detach(ctx); err != nil {
		return err
	}
	m.agent.hit("host.fence.after")
	return m.changeMove(src.Migration, func(_ *records, _ *boltstore.Tx, mv *moveRecord) error {
		mv.Fenced = true
		return nil
	})
}

// unexport takes the exports back. It works from the disks too, because a crash may have come before the exports were noted.
func (m *machine) unexport(ctx context.Context, src *moveRecord) error {
	layers := map[drover.LayerID]bool{}
	for _, export := range src.Exports {
		layers[export.Layer] = true
	}
	if !src.Exported {
		disks, err := m.allDisks()
		if err != nil {
			return err
		}
		for _, disk := range disks {
			layers[disk.Layer] = true
		}
	}
	for _, layer := range src.roundLayers() {
		layers[layer] = true
	}
	for layer := range layers {
		_, err := call(ctx, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, m.agent.cfg.Storage.Unexport(ctx, layer, src.Target)
		})
		if err != nil && !drover.Is(err, drover.NotFound) {
			return fmt.Errorf("cannot end the export of the layer %q: %w", layer, err)
		}
	}
	return nil
}

// release is the end of a migration at its source: exports go, layers become retired, records go.
func (m *machine) release(ctx context.Context) error {
	src := m.rec.Load().Move
	m.agent.hit("host.release.before")
	if err := m.detach(ctx); err != nil {
		return err
	}
	if err := m.unexport(ctx, src); err != nil {
		return err
	}
	m.agent.hit("host.release.after-unexport")
	if err := m.dropRounds(ctx, src); err != nil {
		return err
	}
	if err := m.dropUnfinished(ctx, src); err != nil {
		return err
	}
	if err := m.removeFiles(); err != nil {
		return err
	}
	stale := m.rec.Load().Obs.Open // a root disk that was left out of the move
	for _, layer := range stale {
		if err := m.closeLayer(ctx, layer); err != nil {
			return err
		}
	}
	return m.changeMove(src.Migration, func(r *records, tx *boltstore.Tx, mv *moveRecord) error {
		ids := []drover.DiskID{drover.RootDisk(m.id)}
		for _, export := range mv.Exports {
			if export.Volume != "" || export.Disk.HoldsMemory() {
				ids = append(ids, export.Disk)
			}
		}
		for _, id := range ids {
			disk, ok, err := diskBucket.Get(tx, string(id))
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			if mv.unfinished(disk.Layer) {
				if err := diskBucket.Delete(tx, string(id)); err != nil {
					return err
				}
				continue
			}
			if err := m.retire(tx, disk, mv.Migration); err != nil {
				return err
			}
		}
		if err := m.remember(tx, mv.Migration, endingRelease, "the machine is on its target"); err != nil {
			return err
		}
		r.Desired, r.Move, r.Obs = nil, nil, observed{}
		return nil
	})
}

// abortSource takes back whatever the migration did here. The machine goes on to its goal afterwards.
func (m *machine) abortSource(ctx context.Context) error {
	src := m.rec.Load().Move
	if src.Frozen {
		for _, export := range src.Exports {
			m.agent.hit("host.abort-source.before-thaw")
			if _, err := call(ctx, func(ctx context.Context) (struct{}, error) {
				return struct{}{}, m.agent.cfg.Storage.Thaw(ctx, export.Layer)
			}); err != nil {
				return fmt.Errorf("cannot thaw the layer %q: %w", export.Layer, err)
			}
		}
	}
	m.agent.hit("host.abort-source.after-thaw")
	if err := m.goOnHere(ctx, src); err != nil {
		return err
	}
	if err := m.unexport(ctx, src); err != nil {
		return err
	}
	m.agent.hit("host.abort-source.after-unexport")
	if err := m.dropRounds(ctx, src); err != nil {
		return err
	}
	if err := m.pauseEarlier(ctx, src, false); err != nil {
		return err
	}
	return m.changeMove(src.Migration, func(r *records, tx *boltstore.Tx, mv *moveRecord) error {
		if wasHeld := mv.Hold; wasHeld && wantsVMAfter(r) {
			r.event(m.agent.now(), event{kind: "migrate", source: "drover", text: fmt.Sprintf("migration %s was given up; the machine stays", mv.Migration),
				request: map[string]any{"migrated": false, "migration": string(mv.Migration)}})
		}
		if r.Obs.Status.Reason == heldReason(mv.Migration) {
			r.Obs.Status.Reason = ""
		}
		r.Move = nil
		if mv.Earlier != nil {
			was := mv.Earlier.Move
			r.Move = &was
		}
		return m.remember(tx, mv.Migration, endingAbort, "it was aborted")
	})
}

// wantsVMAfter reports whether the machine is to run once its migration is out of the way.
func wantsVMAfter(r *records) bool {
	c := *r
	c.Move = nil
	return wantsVM(&c)
}

// giveUp ends a migration that has not frozen anything, on the source's own account. It is stored in the same transaction that the
// migration is never to be frozen here.
func (m *machine) giveUp(r *records, tx *boltstore.Tx, why string) error {
	if r.Move == nil || r.Move.Role != roleSource || r.Move.Frozen {
		return nil
	}
	m.log.Warn("the source gives a migration up", "migration", string(r.Move.Migration), "why", why)
	r.Move.Ending = endingAbort
	return m.remember(tx, r.Move.Migration, endingAbort, why)
}

// remember stores that this host is done with a migration, in place of the first reason only.
func (m *machine) remember(tx *boltstore.Tx, id drover.MigrationID, ending moveEnding, why string) error {
	if _, ok, err := endedBucket.Get(tx, string(id)); ok || err != nil {
		return err
	}
	return endedBucket.Put(tx, string(id), endedMove{At: m.agent.now(), Machine: string(m.id), Ending: ending, Why: why})
}

// retire gives a layer up: it is deleted after the grace period. The disk has no layer here any more.
func (m *machine) retire(tx *boltstore.Tx, disk diskRecord, by drover.MigrationID) error {
	a := m.agent
	if err := retiredBucket.Put(tx, string(disk.Layer), retiredRecord{Layer: disk.Layer, Disk: disk.Disk, Migration: by, Machine: m.id,
		DeleteAfter: a.now().Add(a.cfg.Grace), Was: &disk, Wipe: (disk.Volume != "" || disk.Disk.HoldsMemory()) && disk.Cipher == nil}); err != nil {
		return err
	}
	return diskBucket.Delete(tx, string(disk.Disk))
}
