package host

import (
	"context"
	"fmt"
	"slices"
	"time"

	"drover"
	"drover/boltstore"
)

// standbyRecord is a standby that is kept on this host. Its layers are named by its steps.
type standbyRecord struct {
	ID     drover.StandbyID `json:"id"`
	Volume drover.VolumeID  `json:"volume"`
	Cipher *drover.Cipher   `json:"cipher,omitempty"`
	// Complete is the last whole step, 0 for none; At its moment, Size what the volume was then.
	Complete int          `json:"complete,omitempty"`
	At       time.Time    `json:"at,omitzero"`
	Size     drover.Bytes `json:"size,omitempty"`
	// Making is the step that is being copied, 0 for none.
	Making   int            `json:"making,omitempty"`
	MakingAt time.Time      `json:"making_at,omitzero"`
	Over     int            `json:"over,omitempty"`
	Export   *drover.Export `json:"export,omitempty"`
	// Copied is what the last whole step took over the network.
	Copied drover.Hydration `json:"copied"`
	// Leaving are layers of steps that are not needed any more.
	Leaving []int `json:"leaving,omitempty"`
	// DroppedAt is when it was given up; a late order finds it and does nothing.
	DroppedAt time.Time `json:"dropped_at,omitzero"`
	Wipe      bool      `json:"wipe,omitempty"`
}

func (s standbyRecord) layer(step int) drover.LayerID {
	return drover.StandbyLayer(s.Volume, s.ID, step)
}

// layers are those that there may be, what lies over another first.
func (s standbyRecord) layers() []drover.LayerID {
	var ids []drover.LayerID
	for _, step := range []int{s.Making, s.Complete} {
		if step != 0 {
			ids = append(ids, s.layer(step))
		}
	}
	for _, step := range slices.Backward(s.Leaving) {
		ids = append(ids, s.layer(step))
	}
	return ids
}

// standby reads the record of a standby; a zero one when there is none.
func (a *Agent) standby(id drover.StandbyID) (s standbyRecord, err error) {
	err = a.cfg.Store.View(func(tx *boltstore.Tx) error {
		s, _, err = standbyBucket.Get(tx, string(id))
		return err
	})
	return s, err
}

func (a *Agent) putStandby(s standbyRecord) error {
	return a.update(func(tx *boltstore.Tx) error { return standbyBucket.Put(tx, string(s.ID), s) })
}

// standbyFreeze freezes what a volume holds as a step, and lets the standby's host read it.
func (a *Agent) standbyFreeze(ctx context.Context, req drover.StandbyFreezeRequest) (drover.StandbyFrozen, error) {
	v := req.Volume.ID
	if req.Standby == "" || v == "" || req.Step <= 0 || req.Over < 0 || req.Over >= req.Step || req.Target == "" {
		return drover.StandbyFrozen{}, drover.Errorf(drover.Invalid, "the order names no standby, volume, target or step").WithField("standby")
	}
	end, err := a.volumes.take(ctx, v)
	if err != nil {
		return drover.StandbyFrozen{}, err
	}
	defer end()
	want := frozenRecord{Layer: drover.StandbySourceLayer(v, req.Standby, req.Step), Disk: v.Disk(), Volume: v, Standby: req.Standby, Target: req.Target}
	var over drover.LayerID
	if req.Over > 0 {
		over = drover.StandbySourceLayer(v, req.Standby, req.Over)
		if err := a.liesUnder(ctx, v, want.Layer, over); err != nil {
			return drover.StandbyFrozen{}, err
		}
	}
	f, err := a.freezeVolume(ctx, want, false)
	if err != nil {
		return drover.StandbyFrozen{}, err
	}
	a.hit("host.standby-export.before")
	if _, err := call(ctx, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, a.cfg.Storage.Export(ctx, f.Layer, f.Target)
	}); err != nil {
		return drover.StandbyFrozen{}, fmt.Errorf("cannot export the layer %q to host %q: %w", f.Layer, f.Target, err)
	}
	a.hit("host.standby-export.after")
	status, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) { return a.cfg.Storage.Layer(ctx, f.Layer) })
	return drover.StandbyFrozen{TakenAt: f.TakenAt, Export: drover.Export{Disk: v.Disk(), Volume: v, Layer: f.Layer, Size: status.Size, Host: a.cfg.ID,
		Address: a.cfg.StorageAddress, Name: string(f.Layer), Since: over, Allocated: status.Allocated, Cipher: status.Cipher}}, err
}

// liesUnder returns NotFound unless a layer lies under the volume's present one, or under the step that was split off it already.
func (a *Agent) liesUnder(ctx context.Context, v drover.VolumeID, step, over drover.LayerID) error {
	disk, err := a.disk(v.Disk())
	if drover.Is(err, drover.NotFound) {
		return drover.Errorf(drover.Precondition, "volume %q is not on host %q", v, a.cfg.ID)
	}
	if err != nil {
		return err
	}
	all, err := call(ctx, a.cfg.Storage.Layers)
	if err != nil {
		return err
	}
	base := map[drover.LayerID]drover.LayerID{}
	for _, l := range all {
		if !l.Unwanted || l.ID != over { // one that was deleted hides nothing that lies under it
			base[l.ID] = l.Base
		}
	}
	for _, top := range []drover.LayerID{step, disk.Layer} {
		for n, id := 0, top; id != "" && n <= len(base); n, id = n+1, base[id] {
			if _, there := base[id]; there && id == over {
				return nil
			}
		}
	}
	return drover.Errorf(drover.NotFound, "host %q does not know any more what volume %q held in the layer %q", a.cfg.ID, v, over)
}

// standbyRelease gives a step up on the host that froze it.
func (a *Agent) standbyRelease(ctx context.Context, req drover.StandbyReleaseRequest) (drover.Empty, error) {
	end, err := a.volumes.take(ctx, req.Volume)
	if err != nil {
		return drover.Empty{}, err
	}
	defer end()
	return drover.Empty{}, a.giveUpFrozen(ctx, frozenRecord{Layer: drover.StandbySourceLayer(req.Volume, req.Standby, req.Step), Disk: req.Volume.Disk(),
		Volume: req.Volume, Standby: req.Standby, Target: req.Target}, req.Wipe)
}

// maxLeaving bounds how many layers of a standby wait to be taken in: each costs reads a look at a map, and the chain has an end.
const maxLeaving = 8

// standbyCopy copies a step over the last whole one, and tells how far that is.
func (a *Agent) standbyCopy(ctx context.Context, req drover.StandbyCopyRequest) (drover.StandbyCopied, error) {
	if req.Standby == "" || req.Volume == "" || req.Step <= 0 || req.Over < 0 || req.Over >= req.Step || req.Export.Size <= 0 {
		return drover.StandbyCopied{}, drover.Errorf(drover.Invalid, "the order names no standby, volume, step or export").WithField("standby")
	}
	end, err := a.volumes.take(ctx, req.Volume)
	if err != nil {
		return drover.StandbyCopied{}, err
	}
	defer end()
	if d, err := a.disk(req.Volume.Disk()); err == nil {
		return drover.StandbyCopied{}, drover.Errorf(drover.Conflict, "host %q has volume %q itself, in the layer %q", a.cfg.ID, req.Volume, d.Layer)
	} else if !drover.Is(err, drover.NotFound) {
		return drover.StandbyCopied{}, err
	}
	s, err := a.standby(req.Standby)
	switch {
	case err != nil:
		return drover.StandbyCopied{}, err
	case !s.DroppedAt.IsZero():
		return drover.StandbyCopied{}, drover.Errorf(drover.Canceled, "standby %q was given up on host %q", req.Standby, a.cfg.ID)
	case s.Complete == req.Step:
		return drover.StandbyCopied{Hydration: s.Copied, Done: true}, a.leave(ctx, s)
	case s.Complete > req.Step:
		return drover.StandbyCopied{}, drover.Errorf(drover.Canceled, "standby %q has step %d already", req.Standby, s.Complete)
	case req.Over != 0 && req.Over != s.Complete:
		return drover.StandbyCopied{}, drover.Errorf(drover.NotFound, "standby %q has step %d, not %d", req.Standby, s.Complete, req.Over)
	}
	if s, err = a.beginCopy(ctx, s, req); err != nil {
		return drover.StandbyCopied{}, err
	}
	return a.goOnCopying(ctx, s)
}

// beginCopy records the step, after what is left of an earlier one is gone. A step that is begun already is found.
func (a *Agent) beginCopy(ctx context.Context, s standbyRecord, req drover.StandbyCopyRequest) (standbyRecord, error) {
	if err := a.leave(ctx, s); err != nil {
		return s, err
	}
	s, err := a.standby(req.Standby)
	if err != nil || s.Making == req.Step {
		return s, err
	}
	switch {
	case s.Making != 0:
		s.Making, s.Leaving = 0, append(s.Leaving, s.Making)
		if err := a.putStandby(s); err != nil {
			return s, err
		}
		a.hit("host.standby-copy.replaced")
		return a.beginCopy(ctx, s, req)
	case len(s.Leaving) > maxLeaving:
		return s, drover.Errorf(drover.Conflict, "standby %q on host %q takes in what came before", req.Standby, a.cfg.ID).WithHint("ask again in a moment")
	case s.Complete == 0:
		kept, err := a.promise(req.Volume, req.Export.Size)
		if err != nil {
			return s, err
		}
		defer kept()
	}
	s.ID, s.Volume, s.Cipher, s.Making, s.MakingAt, s.Over = req.Standby, req.Volume, req.Export.Cipher, req.Step, req.TakenAt, req.Over
	export := req.Export
	s.Export = &export
	a.hit("host.standby-copy.before")
	return s, a.putStandby(s)
}

// goOnCopying makes the layer of a step, lets it be filled, and, when it is whole, makes it the one that counts.
func (a *Agent) goOnCopying(ctx context.Context, s standbyRecord) (drover.StandbyCopied, error) {
	id := s.layer(s.Making)
	spec := LayerSpec{ID: id, Disk: s.Volume.Disk(), Size: s.Export.Size, Parent: s.Export, Cipher: s.Cipher}
	if s.Over != 0 {
		spec.Base = s.layer(s.Over)
	}
	status, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) { return a.cfg.Storage.Layer(ctx, id) })
	if drover.Is(err, drover.NotFound) {
		status, err = call(ctx, func(ctx context.Context) (drover.LayerStatus, error) { return a.cfg.Storage.CreateLayer(ctx, spec) })
		a.hit("host.standby-copy.created")
	}
	if err != nil {
		return drover.StandbyCopied{}, err
	}
	if h := status.Hydration; h == nil || !h.Done {
		_, err := call(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, a.cfg.Storage.Hydrate(ctx, id, 0) })
		out := drover.StandbyCopied{}
		if h != nil {
			out.Hydration = *h
		}
		return out, err
	}
	a.hit("host.standby-copy.whole")
	// Frozen, it can be the base of the next step, and nobody writes it by mistake.
	if _, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) { return a.cfg.Storage.Freeze(ctx, id) }); err != nil {
		return drover.StandbyCopied{}, err
	}
	a.hit("host.standby-copy.frozen")
	if s.Complete != 0 {
		s.Leaving = append(s.Leaving, s.Complete)
	}
	s.Complete, s.At, s.Size, s.Copied = s.Making, s.MakingAt, s.Export.Size, *status.Hydration
	s.Making, s.Over, s.Export = 0, 0, nil
	if err := a.putStandby(s); err != nil {
		return drover.StandbyCopied{}, err
	}
	a.hit("host.standby-copy.done")
	return drover.StandbyCopied{Hydration: s.Copied, Done: true}, a.leave(ctx, s)
}

// leave removes layers that are not needed any more. Those that lie under another are taken in by that, in the background; one that cannot go yet
// is left for the next time.
func (a *Agent) leave(ctx context.Context, s standbyRecord) error {
	if len(s.Leaving) == 0 {
		return nil
	}
	var left []int
	for _, step := range slices.Backward(s.Leaving) {
		a.hit("host.standby-leave.before")
		err := a.discardLayer(ctx, s.layer(step), s.Wipe)
		if drover.Is(err, drover.Precondition) {
			left = append(left, step)
			continue
		}
		if err != nil {
			return err
		}
		a.hit("host.standby-leave.after")
	}
	slices.Reverse(left)
	s.Leaving = left
	return a.putStandby(s)
}

// standbyDrop removes all of a standby. What was promoted from it keeps what it needs.
func (a *Agent) standbyDrop(ctx context.Context, req drover.StandbyDropRequest) (drover.Empty, error) {
	if req.Standby == "" || req.Volume == "" {
		return drover.Empty{}, drover.Errorf(drover.Invalid, "the order names no standby or no volume").WithField("standby")
	}
	end, err := a.volumes.take(ctx, req.Volume)
	if err != nil {
		return drover.Empty{}, err
	}
	defer end()
	s, err := a.standby(req.Standby)
	if err != nil {
		return drover.Empty{}, err
	}
	if s.DroppedAt.IsZero() {
		s.ID, s.Volume, s.DroppedAt, s.Wipe = req.Standby, req.Volume, a.now(), req.Wipe && s.Cipher == nil
		for _, step := range []int{s.Complete, s.Making} {
			if step != 0 {
				s.Leaving = append(s.Leaving, step)
			}
		}
		s.Complete, s.Making, s.Export = 0, 0, nil
		a.hit("host.standby-drop.before")
		if err := a.putStandby(s); err != nil {
			return drover.Empty{}, err
		}
		a.hit("host.standby-drop.after")
	}
	if err := a.leave(ctx, s); err != nil {
		return drover.Empty{}, err
	}
	if s, err = a.standby(req.Standby); err == nil && len(s.Leaving) > 0 {
		err = drover.Errorf(drover.Conflict, "layers of standby %q are still needed on host %q", req.Standby, a.cfg.ID).WithHint("ask again in a moment")
	}
	return drover.Empty{}, err
}

// promotable returns the layer with the last whole step of a standby of this host. The caller has the volume's turn.
func (a *Agent) promotable(src drover.RecoverySource) (drover.LayerID, error) {
	s, err := a.standby(src.Standby)
	if err != nil {
		return "", err
	}
	if s.Volume != src.Volume || s.Complete == 0 {
		return "", drover.Errorf(drover.NotFound, "host %q has no whole standby %q of volume %q", a.cfg.ID, src.Standby, src.Volume)
	}
	return s.layer(s.Complete), nil
}

// sweepStandbys forgets what was given up long ago.
func (a *Agent) sweepStandbys() error {
	var old []string
	err := a.cfg.Store.View(func(tx *boltstore.Tx) error {
		return standbyBucket.ForEach(tx, func(id string, s standbyRecord, err error) error {
			if err == nil && !s.DroppedAt.IsZero() && len(s.Leaving) == 0 && a.now().Sub(s.DroppedAt) > frozenKeep {
				old = append(old, id)
			}
			return err
		})
	})
	if err != nil || len(old) == 0 {
		return err
	}
	return a.update(func(tx *boltstore.Tx) error {
		for _, id := range old {
			if err := standbyBucket.Delete(tx, id); err != nil {
				return err
			}
		}
		return nil
	})
}
