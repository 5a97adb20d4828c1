package host

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"drover"
	"drover/boltstore"
)

// recoveryMake makes a volume of a dead host here, from a snapshot or from a standby of this host. The record comes first. Whoever has the
// placement opens it; until then it may be dropped again.
func (a *Agent) recoveryMake(ctx context.Context, req drover.RecoveryMakeRequest) (drover.LayerStatus, error) {
	v := req.Volume
	if v.ID == "" || req.Recovery == "" || v.Size <= 0 || v.Size%drover.BlockSize != 0 || v.ID != req.Source.Volume {
		return drover.LayerStatus{}, drover.Errorf(drover.Invalid, "the order names no recovery, or no volume with a size and a copy").WithField("volume")
	}
	end, err := a.volumes.take(ctx, v.ID)
	if err != nil {
		return drover.LayerStatus{}, err
	}
	defer end()
	disk, spec, err := a.recoveredDisk(req)
	if err != nil {
		return drover.LayerStatus{}, err
	}
	old, err := a.disk(v.ID.Disk())
	switch {
	case err == nil && old.Layer != disk.Layer:
		return drover.LayerStatus{}, drover.Errorf(drover.Conflict, "host %q has volume %q already, in the layer %q", a.cfg.ID, v.ID, old.Layer)
	case err == nil:
		disk, spec.Base, spec.Size = old, old.Base, old.Size
	case !drover.Is(err, drover.NotFound):
		return drover.LayerStatus{}, err
	default:
		if req.Source.Kind == drover.FromSnapshot {
			kept, err := a.promise(v.ID, v.Size)
			if err != nil {
				return drover.LayerStatus{}, err
			}
			defer kept()
		}
		a.hit("host.recovery-make.before")
		if err := a.update(func(tx *boltstore.Tx) error { return diskBucket.Put(tx, string(disk.Disk), disk) }); err != nil {
			return drover.LayerStatus{}, err
		}
	}
	if disk.Made {
		return call(ctx, func(ctx context.Context) (drover.LayerStatus, error) { return a.cfg.Storage.Layer(ctx, disk.Layer) })
	}
	a.hit("host.recovery-make.recorded")
	status, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) { return a.cfg.Storage.CreateLayer(ctx, spec) })
	if err != nil {
		return status, fmt.Errorf("cannot make volume %q from its %s: %w", v.ID, req.Source.Kind, err)
	}
	a.hit("host.recovery-make.created")
	if err := a.changeDisk(disk.Disk, func(d *diskRecord) error { d.Made = true; return nil }); err != nil {
		return status, err
	}
	if disk.filling() {
		if err := a.keepHydrating(ctx, disk, 0); err != nil {
			a.cfg.Log.Warn("a volume is filled later", "volume", string(v.ID), "err", err)
		}
	}
	return status, nil
}

// recoveredDisk makes the record and the specification of a volume's layer.
func (a *Agent) recoveredDisk(req drover.RecoveryMakeRequest) (diskRecord, LayerSpec, error) {
	v, src := req.Volume, req.Source
	disk := diskRecord{Disk: v.ID.Disk(), Volume: v.ID, Layer: drover.RecoveryLayer(v.ID.Disk(), req.Recovery), Size: v.Size,
		Recovery: req.Recovery, Cipher: v.Cipher}
	spec := LayerSpec{ID: disk.Layer, Disk: disk.Disk, Size: disk.Size, Cipher: disk.Cipher, Limits: v.Limits}
	switch src.Kind {
	case drover.FromSnapshot:
		if src.Snapshot == nil || src.Snapshot.Size > v.Size {
			return disk, spec, drover.Errorf(drover.Invalid, "volume %q: the order names no snapshot, or one that is larger", v.ID).WithField("source")
		}
		disk.Snapshot, disk.Used, spec.Snapshot = src.Snapshot, src.Snapshot.Data > 0, src.Snapshot
	case drover.FromStandby:
		base, err := a.promotable(src)
		if err != nil {
			return disk, spec, err
		}
		disk.Used, disk.Base, spec.Base = true, base, base
		// A volume that was extended since the step was taken is larger than that.
		disk.Size = max(disk.Size, src.Size)
		spec.Size = disk.Size
	default:
		return disk, spec, drover.Errorf(drover.Invalid, "volume %q cannot be made from %q", v.ID, src.Kind).WithField("source")
	}
	return disk, spec, nil
}

// recoveryDrop gives up what recoveryMake made. The copy that it was made of stays. Precondition once a machine has it.
func (a *Agent) recoveryDrop(ctx context.Context, req drover.RecoveryMakeRequest) (drover.Empty, error) {
	end, err := a.volumes.take(ctx, req.Volume.ID)
	if err != nil {
		return drover.Empty{}, err
	}
	defer end()
	layer := drover.RecoveryLayer(req.Volume.ID.Disk(), req.Recovery)
	disk, err := a.disk(req.Volume.ID.Disk())
	if drover.Is(err, drover.NotFound) || err == nil && disk.Layer != layer {
		return drover.Empty{}, nil
	}
	if err != nil {
		return drover.Empty{}, err
	}
	if m, _ := a.mountedBy(req.Volume.ID); m != nil {
		return drover.Empty{}, drover.Errorf(drover.Precondition, "volume %q is mounted by machine %q: its recovery went through", req.Volume.ID, m.id)
	}
	a.hit("host.recovery-drop.before")
	if err := a.discardLayer(ctx, layer, disk.Cipher == nil); err != nil {
		return drover.Empty{}, err
	}
	a.hit("host.recovery-drop.after")
	return drover.Empty{}, a.update(func(tx *boltstore.Tx) error { return diskBucket.Delete(tx, string(disk.Disk)) })
}

// fenceLost makes the storage daemon refuse every epoch of this host for good, before the machine's records go. It returns the disks.
func (m *machine) fenceLost(ctx context.Context, gone lost) ([]diskRecord, error) {
	r := m.rec.Load()
	var ids []drover.DiskID
	if r.Desired != nil {
		ids = append(ids, drover.RootDisk(m.id))
		for _, mount := range r.Desired.Machine.Config.Mounts {
			ids = append(ids, mount.Volume.Disk())
		}
	}
	var disks []diskRecord
	for _, id := range ids {
		disk, err := m.disk(id)
		if drover.Is(err, drover.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		disks = append(disks, disk)
	}
	return disks, eachDisk(ctx, disks, false, func(ctx context.Context, d diskRecord) error {
		m.agent.hit("host.lost-fence.before")
		if err := m.agent.cfg.Storage.Fence(ctx, d.Disk, gone.Epoch); err != nil {
			return fmt.Errorf("cannot fence the disk %q: %w", d.Disk, err)
		}
		m.agent.hit("host.lost-fence.after")
		return nil
	})
}

// keepAside retires the layers of a machine that went on elsewhere, for a long time.
func (a *Agent) keepAside(tx *boltstore.Tx, id drover.MachineID, disks []diskRecord, layers map[drover.LayerID]drover.LayerStatus, gone lost) error {
	now := a.now()
	for _, d := range disks {
		_, later, known, err := a.laterThanFrozen(tx, layers, d.Layer)
		if err != nil {
			return err
		}
		kept := &keptRecord{Volume: d.Volume, Machine: id, Owner: gone.Host, Epoch: gone.Epoch, At: now, Later: later, LaterKnown: known}
		err = retiredBucket.Put(tx, string(d.Layer), retiredRecord{Layer: d.Layer, Disk: d.Disk, Migration: d.Migration, Kept: kept,
			DeleteAfter: now.Add(a.cfg.KeepAside), Wipe: d.Volume != "" && d.Cipher == nil})
		if err == nil {
			err = diskBucket.Delete(tx, string(d.Disk))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// layerMap returns the layers of the pool by their IDs.
func (a *Agent) layerMap(ctx context.Context) (map[drover.LayerID]drover.LayerStatus, error) {
	all, err := call(ctx, a.cfg.Storage.Layers)
	layers := map[drover.LayerID]drover.LayerStatus{}
	for _, l := range all {
		layers[l.ID] = l
	}
	return layers, err
}

// recoveryKept lists what is kept aside, with what each layer had got since the newest point that a frozen layer under it marked.
func (a *Agent) recoveryKept(ctx context.Context, _ drover.Empty) ([]drover.KeptLayer, error) {
	layers, err := a.layerMap(ctx)
	if err != nil {
		return nil, err
	}
	kept := []drover.KeptLayer{}
	err = a.cfg.Store.View(func(tx *boltstore.Tx) error {
		return retiredBucket.ForEach(tx, func(_ string, r retiredRecord, err error) error {
			if err != nil || r.Kept == nil {
				return err
			}
			k := drover.KeptLayer{Host: a.cfg.ID, Layer: r.Layer, Disk: r.Disk, Volume: r.Kept.Volume, Machine: r.Kept.Machine,
				Owner: r.Kept.Owner, Epoch: r.Kept.Epoch, KeptAt: r.Kept.At, DeleteAfter: r.DeleteAfter, Later: r.Kept.Later, LaterKnown: r.Kept.LaterKnown}
			k.Allocated, _, _, err = a.laterThanFrozen(tx, layers, r.Layer)
			kept = append(kept, k)
			return err
		})
	})
	slices.SortFunc(kept, func(x, y drover.KeptLayer) int {
		return cmp.Or(cmp.Compare(x.Machine, y.Machine), cmp.Compare(x.Layer, y.Layer))
	})
	return kept, err
}

// laterThanFrozen sums up what a chain of layers holds, and what of it lies over the first layer that was frozen for a standby or snapshot.
func (a *Agent) laterThanFrozen(tx *boltstore.Tx, layers map[drover.LayerID]drover.LayerStatus, id drover.LayerID) (allocated, later drover.Bytes, known bool, err error) {
	for n := 0; id != "" && n <= len(layers); n++ {
		l, ok := layers[id]
		if !ok || l.State == drover.LayerImage {
			break
		}
		f, ok, err := frozenBucket.Get(tx, string(id))
		if err != nil {
			return allocated, later, known, err
		}
		if ok && f.EndedAt.IsZero() && f.Fork == "" && !known {
			known, later = true, allocated
		}
		allocated += l.Allocated
		id = l.Base
	}
	return allocated, later, known, nil
}

// recovered makes the status of a machine that comes here from a dead host: its events go on, and tell how old the data is.
func (r *records) recovered(note drover.RecoveryNote, req drover.ApplyRequest, now time.Time) {
	if s := note.Status; s != nil {
		o := &r.Obs
		o.Status.Events, o.Status.ExitCode, o.Status.StoppedAt = slices.Clone(s.Events), s.ExitCode, s.StoppedAt
		ended := s.State == drover.StateStopped || s.State == drover.StateFailed
		if ended && req.Machine.Goal == drover.GoalStarted && req.Machine.Run <= s.Run {
			// It had ended by its own doing there: a larger Run starts it.
			o.Over, o.OverRun = true, s.Run
			o.Status.State, o.Status.Reason, o.Status.Run = s.State, s.Reason, s.Run
		}
	}
	text := fmt.Sprintf("started elsewhere after the loss of host %s", note.From)
	if req.Machine.Goal == drover.GoalSuspended {
		text = fmt.Sprintf("brought elsewhere after the loss of host %s, where it was suspended: its memory is lost, and its next start boots", note.From)
	}
	ages := map[string]any{}
	var parts []string
	for _, s := range note.Sources {
		age := max(note.At.Sub(s.At), 0).Round(time.Second)
		ages[string(s.Volume)] = age.Seconds()
		parts = append(parts, fmt.Sprintf("volume %s is what it was at %s, %s before (from a %s)", s.Volume, s.At.UTC().Format(time.RFC3339), age, s.Kind))
	}
	if len(parts) > 0 {
		text += "; " + strings.Join(parts, "; ")
	}
	r.event(now, event{kind: "recover", source: "drover", text: text, request: map[string]any{"recovery": string(note.Recovery),
		"from": string(note.From), "age_seconds": ages}})
}
