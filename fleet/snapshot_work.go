package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"drover"
)

// A snapshot goes this way:
//
//	creating, not taken -> creating, taken -> created -> created, without a host -> destroying -> gone
//
// Its maker takes it. Everything after that, and the taking when its maker died, is done by the lease holder, one volume after
// another in whatever order and one step of a volume at a time. Each step is an order, or a removal from the store, that may be repeated,
// followed by the compare-and-set that says so.
//
// Chunks are shared between the snapshots of a volume. So one snapshot at a time works in the object store: the holder of the claim store.VOLUME,
// from before its first upload, or its removal, until that is over. An upload relies on chunks that it finds; nothing removes any meanwhile.

// stepSnapshots does what is to be done next for the snapshots of a volume. It tells whether it is worth to look again at once.
func (w *volumeWorker) stepSnapshots(ctx context.Context, id drover.VolumeID) (again bool, err error) {
	list := w.snapshotsOf(id)
	for _, s := range list {
		switch {
		case s.State == drover.SnapshotCreating && s.TakenAt.IsZero():
			if s.Scheduled || w.now().Sub(s.CreatedAt) > w.timing.Stale { // a user's maker is at it, or dead
				err = errors.Join(err, w.takeAgain(ctx, s))
			}
		case s.Host != "" && (s.State == drover.SnapshotCreated || s.State == drover.SnapshotFailed):
			err = errors.Join(err, w.endOnHost(ctx, s))
		}
	}
	next, serr := w.storeTurn(ctx, id, list)
	if serr != nil || next == nil {
		return false, errors.Join(err, serr)
	}
	if next.State == drover.SnapshotCreating {
		again, serr = w.upload(ctx, *next)
	} else {
		again, serr = w.remove(ctx, *next)
	}
	return again, errors.Join(err, serr)
}

// storeTurn returns the snapshot of a volume that may work in the object store now: the one that has the claim, or the oldest that wants it and can
// go on, which gets it.
func (w *volumeWorker) storeTurn(ctx context.Context, id drover.VolumeID, list []drover.Snapshot) (*drover.Snapshot, error) {
	var want []drover.Snapshot
	for _, s := range list {
		if s.State == drover.SnapshotDestroying || s.State == drover.SnapshotCreating && !s.TakenAt.IsZero() {
			want = append(want, s)
		}
	}
	if len(want) == 0 {
		return nil, nil
	}
	key := storeClaim(id)
	c, rev, err := w.state.claims.get(ctx, key)
	switch {
	case err == nil:
		// Memory may lag behind, so the store is asked what became of the holder.
		holder, _, err := w.state.snapshots.get(ctx, string(c.Snapshot))
		switch {
		case err != nil && !drover.Is(err, drover.NotFound):
			return nil, err
		case err == nil && working(holder) && !w.passable(holder):
			for _, s := range want {
				if s.ID == c.Snapshot {
					return &s, nil
				}
			}
			return nil, nil
		}
		// It is through, and died before it said so, or lets the others go first.
		if err := w.state.claims.remove(ctx, key, rev); err != nil {
			return nil, err
		}
	case !drover.Is(err, drover.NotFound):
		return nil, err
	}
	for _, s := range want {
		if s.Host != "" && !w.reachable(s.Host) || s.State == drover.SnapshotDestroying && w.restoring(s.ID) != "" {
			continue // it would hold up the others
		}
		if _, err := w.state.claims.create(ctx, key, claim{Snapshot: s.ID, At: w.now()}); err != nil {
			return nil, err
		}
		w.hit("fleet.snapshot.claim.after")
		return &s, nil
	}
	return nil, nil
}

// passable reports whether the holder of a volume's claim lets others go first: one that is to be removed, and whose host, which may be
// gone for good, has not been told yet. Nothing of its removal from the store has begun then.
func (w *volumeWorker) passable(s drover.Snapshot) bool {
	return s.State == drover.SnapshotDestroying && s.Host != "" && !w.reachable(s.Host)
}

// working reports whether a snapshot may be at work in the object store.
func working(s drover.Snapshot) bool {
	return s.State == drover.SnapshotCreating || s.State == drover.SnapshotDestroying
}

// leaveStore gives the claim of a snapshot up.
func (f *Fleet) leaveStore(ctx context.Context, s drover.Snapshot) error {
	key := storeClaim(s.Volume)
	c, rev, err := f.state.claims.get(ctx, key)
	if drover.Is(err, drover.NotFound) || err == nil && c.Snapshot != s.ID {
		return nil
	}
	if err != nil {
		return err
	}
	if err := f.state.claims.remove(ctx, key, rev); !drover.Is(err, drover.Conflict) {
		return err
	}
	return nil
}

// sweepStoreClaim removes a claim whose snapshot is through, or gone.
func (f *Fleet) sweepStoreClaim(ctx context.Context, key string, c item[claim]) error {
	s, _, err := f.state.snapshots.get(ctx, string(c.value.Snapshot))
	if err == nil && working(s) {
		return nil
	}
	if err != nil && !drover.Is(err, drover.NotFound) {
		return err
	}
	return f.state.claims.remove(ctx, key, c.rev)
}

// takeAgain takes a snapshot whose record is there and whose moment is not known: its maker died, or it is one of the schedule. A volume that went to
// another host meanwhile is frozen there, after the first host was told to forget it.
func (w *volumeWorker) takeAgain(ctx context.Context, s drover.Snapshot) error {
	v, _, err := w.state.volumes.get(ctx, string(s.Volume))
	if drover.Is(err, drover.NotFound) {
		return w.failSnapshot(ctx, s, drover.Errorf(drover.Precondition, "the volume was destroyed before the snapshot was taken"))
	}
	if err != nil || !w.reachable(s.Host) {
		return err
	}
	_, err = w.takeSnapshot(ctx, s, v, false)
	if !drover.Is(err, drover.Precondition) {
		return w.orFail(ctx, s, err)
	}
	host, herr := w.hostOfVolume(ctx, v)
	if herr != nil {
		return herr
	}
	if host == s.Host {
		return w.failSnapshot(ctx, s, err)
	}
	if err := w.endOrder(ctx, s); err != nil {
		return err
	}
	_, err = w.changeSnapshot(ctx, s.ID, func(now *drover.Snapshot) error {
		if now.TakenAt.IsZero() && now.State == drover.SnapshotCreating {
			now.Host = host
		}
		return nil
	})
	return err
}

// upload goes on with the way of a snapshot into the object store.
func (w *volumeWorker) upload(ctx context.Context, s drover.Snapshot) (again bool, err error) {
	if !w.reachable(s.Host) {
		return false, w.noteProblem(ctx, s, drover.Errorf(drover.Unavailable, "host %q, which has the frozen layer, does not answer", s.Host))
	}
	var p drover.SnapshotProgress
	err = w.order(ctx, w.timing.Apply, s.Host, drover.OrderVolumeSnapshot, drover.SnapshotRequest{Snapshot: s,
		Volume: drover.Volume{ID: s.Volume}, Upload: true}, &p)
	if err != nil {
		return false, w.orFail(ctx, s, err)
	}
	if p.Upload == nil || !p.Upload.Done {
		var waits *drover.Error
		if p.Upload != nil && p.Upload.Waiting != "" {
			waits = drover.Errorf(drover.Unavailable, "it is not in the object store yet: %s", p.Upload.Waiting)
		}
		return false, errors.Join(w.noteProblem(ctx, s, waits), w.noteUpload(ctx, s, p.Upload))
	}
	w.hit("fleet.snapshot.uploaded.after")
	s, err = w.changeSnapshot(ctx, s.ID, func(now *drover.Snapshot) error {
		if now.State == drover.SnapshotCreating {
			now.State, now.Problem, now.Upload, now.DoneAt = drover.SnapshotCreated, nil, nil, w.now().UTC()
			now.Data, now.Stored, now.Manifest = p.Upload.Total, p.Upload.Stored, p.Upload.Manifest
		}
		return nil
	})
	if err != nil || s.State != drover.SnapshotCreated {
		return true, err
	}
	w.log.Info("snapshot is in the object store", "snapshot", s.ID, "volume", s.Volume, "data", s.Data, "stored", s.Stored)
	w.hit("fleet.snapshot.created.after")
	return true, w.leaveStore(ctx, s)
}

// endOnHost lets the host give up what it froze, of a snapshot that does not need it any more.
func (w *volumeWorker) endOnHost(ctx context.Context, s drover.Snapshot) error {
	if !w.reachable(s.Host) {
		return nil
	}
	if err := w.endOrder(ctx, s); err != nil {
		return err
	}
	_, err := w.changeSnapshot(ctx, s.ID, func(now *drover.Snapshot) error { now.Host = ""; return nil })
	return err
}

func (w *volumeWorker) endOrder(ctx context.Context, s drover.Snapshot) error {
	v, _, err := w.state.volumes.get(ctx, string(s.Volume))
	gone := drover.Is(err, drover.NotFound)
	if err != nil && !gone {
		return err
	}
	err = w.order(ctx, w.timing.Apply, s.Host, drover.OrderVolumeSnapshotEnd, drover.SnapshotEndRequest{Snapshot: s.ID, Volume: s.Volume,
		Wipe: gone || v.State == drover.VolumeDestroying}, nil)
	if err == nil {
		w.hit("fleet.snapshot.end.after")
	}
	return err
}

// remove takes a snapshot out of the object store, then out of the fleet. Its host gives up first, so that nothing is added any more.
func (w *volumeWorker) remove(ctx context.Context, s drover.Snapshot) (again bool, err error) {
	if s.Host != "" {
		if err := w.endOnHost(ctx, s); err != nil {
			return false, err
		}
		if s, _, err = w.state.snapshots.get(ctx, string(s.ID)); err != nil || s.Host != "" {
			return false, err
		}
	}
	if w.cfg.Snapshots == nil {
		return false, drover.Errorf(drover.Precondition, "snapshot %q cannot be removed: this control host has no object store", s.ID)
	}
	keep, going, err := w.keepersOf(ctx, s)
	if err != nil {
		return false, err
	}
	err = w.cfg.Snapshots.Remove(ctx, s.Volume, s.ID, slices.Concat(keep, going))
	if err != nil && len(going) > 0 {
		// One that goes, too, and whose manifest is lost must not hold up the others for ever.
		err = w.cfg.Snapshots.Remove(ctx, s.Volume, s.ID, keep)
	}
	if err != nil {
		return false, w.orNote(ctx, s, fmt.Errorf("cannot remove it from the object store: %w", err))
	}
	w.hit("fleet.snapshot.removed.after")
	if err := w.state.snapshots.remove(ctx, string(s.ID), 0); err != nil {
		return false, err
	}
	w.dropKey(ctx, s.Cipher)
	w.log.Info("snapshot removed", "snapshot", s.ID, "volume", s.Volume)
	w.hit("fleet.snapshot.gone.after")
	return true, w.leaveStore(ctx, s)
}

// keepersOf reads from the store which snapshots of the volume need their chunks, and makes sure that no volume is filled from the one that goes.
// Those that go as well, and that no volume is filled from, are told apart.
func (w *volumeWorker) keepersOf(ctx context.Context, s drover.Snapshot) (keep, going []drover.SnapshotID, err error) {
	others, err := w.othersOf(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	volumes, err := w.state.volumes.bucket.All(ctx)
	if err != nil {
		return nil, nil, err
	}
	read := map[drover.SnapshotID]bool{}
	for _, v := range volumes {
		if !needsSnapshot(v.Value) {
			continue
		}
		read[v.Value.From.Snapshot.Snapshot] = true
		if v.Value.From.Snapshot.Snapshot == s.ID {
			return nil, nil, drover.Errorf(drover.Conflict, "snapshot %q stays until volume %q is filled", s.ID, v.Value.ID)
		}
	}
	for _, other := range others {
		switch {
		case other.Manifest == "":
		case other.State == drover.SnapshotDestroying && !read[other.ID]:
			going = append(going, other.ID)
		default:
			keep = append(keep, other.ID)
		}
	}
	return keep, going, nil
}

// othersOf reads the other snapshots of the volume from the store.
func (w *volumeWorker) othersOf(ctx context.Context, s drover.Snapshot) (others []drover.Snapshot, err error) {
	all, err := w.state.snapshots.bucket.All(ctx)
	if err != nil {
		return nil, err
	}
	for _, other := range all {
		if other.Value.Volume == s.Volume && other.Value.ID != s.ID {
			others = append(others, other.Value)
		}
	}
	slices.SortFunc(others, func(a, b drover.Snapshot) int { return cmp.Compare(a.ID, b.ID) })
	return others, nil
}

// orFail decides what an order's failure means for a snapshot that is being made.
func (w *volumeWorker) orFail(ctx context.Context, s drover.Snapshot, err error) error {
	switch {
	case err == nil:
		return nil
	case drover.Is(err, drover.NotFound), drover.Is(err, drover.Canceled) && ctx.Err() == nil, drover.Is(err, drover.Precondition), drover.Is(err, drover.Invalid):
		return w.failSnapshot(ctx, s, err)
	}
	return w.orNote(ctx, s, err)
}

// failSnapshot closes a snapshot that cannot be finished any more.
func (w *volumeWorker) failSnapshot(ctx context.Context, s drover.Snapshot, why error) error {
	w.log.Warn("snapshot failed", "snapshot", s.ID, "volume", s.Volume, "host", s.Host, "err", why)
	_, err := w.changeSnapshot(ctx, s.ID, func(now *drover.Snapshot) error {
		if now.State == drover.SnapshotCreating {
			now.State, now.Problem, now.DoneAt = drover.SnapshotFailed, drover.AsError(why), w.now().UTC()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.leaveStore(ctx, s)
}

// noteProblem writes into the record what a snapshot waits for; nil when it goes on.
func (w *volumeWorker) noteProblem(ctx context.Context, s drover.Snapshot, why *drover.Error) error {
	_, err := w.changeSnapshot(ctx, s.ID, func(now *drover.Snapshot) error {
		if working(*now) && (now.Problem == nil) != (why == nil) || now.Problem != nil && why != nil && now.Problem.Text != why.Text {
			now.Problem = why
		}
		return nil
	})
	return err
}

// noteUpload keeps how far a snapshot's way into the object store is, for those who follow it.
func (w *volumeWorker) noteUpload(ctx context.Context, s drover.Snapshot, up *drover.Upload) error {
	_, err := w.changeSnapshot(ctx, s.ID, func(now *drover.Snapshot) error {
		if working(*now) {
			now.Upload = up
		}
		return nil
	})
	return err
}

// orNote notes an error that is tried again, and returns it.
func (w *volumeWorker) orNote(ctx context.Context, s drover.Snapshot, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return errors.Join(err, w.noteProblem(ctx, s, drover.AsError(err)))
}
