package host

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"drover"
	"drover/boltstore"
	"drover/internal/durable"
)

const (
	// sweepEvery is how often leftovers are looked for, sweepWait how long one look may take.
	sweepEvery = time.Minute
	sweepWait  = 5 * time.Minute
)

// sweepLoop removes what belongs to nothing: at the start, and every minute.
func (a *Agent) sweepLoop(ctx context.Context) {
	for ctx.Err() == nil {
		if err := a.sweep(ctx); err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn("cannot sweep", "err", err)
		}
		pause(ctx, sweepEvery)
	}
}

// sweep looks once. A part that fails does not keep the others from being looked at. What exists is always listed before the
// records are asked, because a record comes before what it speaks of.
func (a *Agent) sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sweepWait)
	defer cancel()
	return errors.Join(a.sweepVMs(ctx), a.sweepTaps(ctx), a.sweepFiles(), a.outdateKept(ctx), a.sweepRetired(ctx), a.sweepLayers(ctx), a.sweepFrozen(), a.sweepStandbys(), a.sweepEnded(), a.trimLogs())
}

// knows reports whether the host has a record of the machine.
func (a *Agent) knows(id drover.MachineID) bool {
	_, err := a.machine(id)
	return err == nil
}

func (a *Agent) sweepVMs(ctx context.Context) error {
	ids, err := a.cfg.VMM.Running(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if a.knows(id) {
			continue
		}
		a.cfg.Log.Warn("a VM without a record is killed", "machine", string(id))
		vm, err := a.cfg.VMM.Find(ctx, id)
		if drover.Is(err, drover.NotFound) {
			continue
		}
		if err == nil {
			err = vm.Kill(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *Agent) sweepTaps(ctx context.Context) error {
	ids, err := a.cfg.Network.Attached(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if a.knows(id) {
			continue
		}
		a.cfg.Log.Warn("a link without a record is removed", "machine", string(id))
		if err := a.cfg.Network.Detach(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// sweepFiles removes the directories of machines that are not known.
func (a *Agent) sweepFiles() error {
	for _, dir := range []string{a.machinesDir(), filepath.Join(a.cfg.RunDir, "machines")} {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return drover.Errorf(drover.Internal, "cannot list %s: %w", dir, err)
		}
		for _, e := range entries {
			if a.knows(drover.MachineID(e.Name())) {
				continue
			}
			a.cfg.Log.Info("files without a record are removed", "machine", e.Name(), "dir", dir)
			if err := durable.Remove(filepath.Join(dir, e.Name())); err != nil {
				return drover.Errorf(drover.Internal, "cannot remove the files of machine %q: %w", e.Name(), err)
			}
		}
	}
	return nil
}

// sweepRetired deletes layers whose grace period is over.
func (a *Agent) sweepRetired(ctx context.Context) error {
	var due []retiredRecord
	err := a.cfg.Store.View(func(tx *boltstore.Tx) error {
		return retiredBucket.ForEach(tx, func(_ string, r retiredRecord, err error) error {
			if err == nil && r.Held == "" && !a.now().Before(r.DeleteAfter) {
				due = append(due, r)
			}
			return err
		})
	})
	for _, r := range due {
		a.hit("host.sweep.before-delete")
		if derr := a.discardLayer(ctx, r.Layer, r.Wipe); derr != nil {
			err = errors.Join(err, derr)
			continue
		}
		a.hit("host.sweep.after-delete")
		a.cfg.Log.Info("a layer was deleted after its grace period", "layer", string(r.Layer), "migration", string(r.Migration))
		err = errors.Join(err, a.update(func(tx *boltstore.Tx) error { return retiredBucket.Delete(tx, string(r.Layer)) }))
	}
	return err
}

// sweepLayers warns of layers that no record speaks of. It deletes none: a layer may be the only copy of somebody's data.
func (a *Agent) sweepLayers(ctx context.Context) error {
	all, err := a.cfg.Storage.Layers(ctx)
	if err != nil {
		return err
	}
	known := map[drover.LayerID]bool{}
	for _, m := range a.list() {
		mv := m.rec.Load().Move
		if mv == nil {
			continue
		}
		for _, layer := range append(mv.roundLayers(), mv.earlierRounds()...) {
			known[layer] = true
		}
		if mv.Role == roleTarget {
			for _, disk := range mv.clones() {
				known[disk.Layer] = true
			}
		}
	}
	err = a.cfg.Store.View(func(tx *boltstore.Tx) error {
		return errors.Join(
			diskBucket.ForEach(tx, func(_ string, d diskRecord, err error) error {
				known[d.Layer] = true
				return err
			}),
			frozenBucket.ForEach(tx, func(_ string, f frozenRecord, err error) error {
				known[f.Layer] = true
				return err
			}),
			standbyBucket.ForEach(tx, func(_ string, s standbyRecord, err error) error {
				for _, id := range s.layers() {
					known[id] = true
				}
				return err
			}),
			retiredBucket.ForEach(tx, func(_ string, r retiredRecord, err error) error {
				known[r.Layer] = true
				return err
			}))
	})
	for _, layer := range all {
		if layer.State != drover.LayerImage && !layer.Unwanted && !known[layer.ID] {
			a.cfg.Log.Warn("a layer without a record is kept: see whether somebody needs it", "layer", string(layer.ID), "disk", string(layer.Disk))
		}
	}
	return err
}

// sweepEnded forgets migrations that ended long ago, and the oldest of too many.
func (a *Agent) sweepEnded() error {
	type entry struct {
		id string
		at time.Time
	}
	var old []string
	var kept []entry
	err := a.cfg.Store.View(func(tx *boltstore.Tx) error {
		return endedBucket.ForEach(tx, func(id string, e endedMove, err error) error {
			if a.now().Sub(e.At) > endedMoveKeep {
				old = append(old, id)
			} else {
				kept = append(kept, entry{id, e.At})
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	for len(kept) > endedMoveMax {
		oldest := 0
		for i := range kept {
			if kept[i].at.Before(kept[oldest].at) {
				oldest = i
			}
		}
		old = append(old, kept[oldest].id)
		kept = append(kept[:oldest], kept[oldest+1:]...)
	}
	if len(old) == 0 {
		return nil
	}
	return a.update(func(tx *boltstore.Tx) error {
		for _, id := range old {
			if err := endedBucket.Delete(tx, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// trimLogs keeps the logs within their bound, and of what guests reported only what was not read yet.
func (a *Agent) trimLogs() error {
	var err error
	for _, m := range a.list() {
		err = errors.Join(err, a.cfg.files.TrimLog(m.logPath()), a.cfg.files.TrimLog(m.consolePath()),
			a.cfg.files.TrimRead(m.statusPath(), m.rec.Load().Obs.VM.Offset))
	}
	return err
}
