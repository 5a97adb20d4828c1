package fleet

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"drover"
)

// maxScheduled bounds how many snapshots of the schedule are on their way from one host at once.
const maxScheduled = 2

// lateAfter is how long after its time a scheduled snapshot that was not taken is a condition.
const lateAfter = 15 * time.Minute

// slot returns the newest time at which the schedule of a volume asks for a snapshot. Each volume has its own offset in the interval, made of
// its ID, so that not all are taken at once, and the times stay the same whatever happens.
func slot(v drover.Volume, now time.Time) time.Time {
	every := time.Duration(v.SnapshotInterval)
	if every <= 0 {
		every = time.Duration(drover.DefaultSnapshotInterval)
	}
	h := fnv.New64a()
	h.Write([]byte(v.ID)) // never fails
	offset := time.Duration(h.Sum64() % uint64(every))
	return time.Unix(0, 0).Add(offset + (now.Sub(time.Unix(0, 0)) - offset).Truncate(every)).UTC()
}

// asksFor returns the time for which the schedule of a volume asks for a snapshot that was not begun yet; zero when it asks for none.
func asksFor(v drover.Volume, list []drover.Snapshot, now time.Time) time.Time {
	if !v.AutoBackup || v.State != drover.VolumeCreated && v.State != drover.VolumeHydrating {
		return time.Time{}
	}
	at := slot(v, now)
	if !v.CreatedAt.Before(at) {
		return time.Time{}
	}
	for _, s := range list {
		if s.Scheduled && !s.CreatedAt.Before(at) {
			return time.Time{}
		}
	}
	return at
}

// scheduledLocked reports whether a snapshot of the schedule is to be begun now.
func (f *Fleet) scheduledLocked(v drover.Volume, now time.Time) bool {
	list := f.snapshotsLocked(f.state.snapsOf[v.ID])
	if v.State != drover.VolumeCreated || asksFor(v, list, now).IsZero() || f.hostStatusLocked(f.hostOfVolumeLocked(v)) != drover.HostOK {
		return false
	}
	for _, s := range list {
		if s.State == drover.SnapshotCreating {
			return false
		}
	}
	return true
}

// beginScheduled begins a snapshot of the schedule. A volume that cannot be frozen now is asked again later.
func (w *volumeWorker) beginScheduled(ctx context.Context, v drover.Volume) error {
	host, err := w.splittable(ctx, v)
	if err != nil {
		return err
	}
	s := newSnapshot(v, host)
	s.Scheduled, s.CreatedAt = true, w.now().UTC()
	if _, err := w.state.snapshots.create(ctx, string(s.ID), s); err != nil {
		return err
	}
	w.log.Info("snapshot begun by the schedule", "snapshot", s.ID, "volume", v.ID, "host", host)
	w.hit("fleet.snapshot.scheduled.after")
	return nil
}

// expired returns the snapshots of a volume that were kept long enough: oldest first in, oldest first out. As long as the volume exists, the
// newest one that can be restored stays.
func expired(list []drover.Snapshot, exists bool, now time.Time) []drover.SnapshotID {
	newest := -1
	for i, s := range list {
		if s.State == drover.SnapshotCreated && (newest < 0 || !s.TakenAt.Before(list[newest].TakenAt)) {
			newest = i
		}
	}
	var ids []drover.SnapshotID
	for i, s := range list {
		days := s.RetentionDays
		if days == 0 {
			days = drover.DefaultRetentionDays
		}
		since := s.TakenAt
		if since.IsZero() {
			since = s.CreatedAt
		}
		done := s.State == drover.SnapshotCreated || s.State == drover.SnapshotFailed
		if done && !(exists && i == newest) && now.Sub(since) > time.Duration(days)*24*time.Hour {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

func (f *Fleet) expiredLocked(id drover.VolumeID, now time.Time) []drover.SnapshotID {
	v, exists := f.state.volumes.items[string(id)]
	exists = exists && v.value.State != drover.VolumeDestroying
	return expired(f.snapshotsLocked(f.state.snapsOf[id]), exists, now)
}

// expireSnapshots begins to remove those that were kept long enough.
func (w *volumeWorker) expireSnapshots(ctx context.Context, id drover.VolumeID) error {
	w.state.mu.RLock()
	ids := w.expiredLocked(id, w.now())
	w.state.mu.RUnlock()
	var err error
	for _, s := range ids {
		if _, derr := w.DeleteSnapshot(ctx, "", s); derr != nil && !drover.Is(derr, drover.NotFound) && !drover.Is(derr, drover.Precondition) {
			err = errors.Join(err, derr)
		}
	}
	return err
}

// snapshotConditionsLocked tells what is not as it should be with the snapshots of a volume.
func (f *Fleet) snapshotConditionsLocked(v drover.Volume) []drover.Condition {
	var out []drover.Condition
	add := func(since time.Time, format string, args ...any) {
		out = append(out, drover.Condition{Code: drover.SnapshotFailing, Severity: drover.SeverityWarning, Subject: string(v.ID),
			Text: fmt.Sprintf(format, args...), Since: since})
	}
	list := f.snapshotsLocked(f.state.snapsOf[v.ID])
	for i, s := range list {
		switch {
		case s.Problem == nil:
		case s.State == drover.SnapshotCreating:
			add(s.CreatedAt, "snapshot %s is not finished: %s", s.ID, s.Problem.Text)
		case s.State == drover.SnapshotFailed && i == len(list)-1:
			add(s.DoneAt, "snapshot %s failed: %s", s.ID, s.Problem.Text)
		}
	}
	now := f.now()
	if at := asksFor(v, list, now); !at.IsZero() && now.Sub(at) > lateAfter {
		why := "it waits for its turn"
		switch host := f.hostOfVolumeLocked(v); {
		case f.cfg.Snapshots == nil:
			why = "the fleet has no object store"
		case f.hostStatusLocked(host) != drover.HostOK:
			why = fmt.Sprintf("host %s does not answer", host)
		case v.State == drover.VolumeHydrating:
			why = "the volume is still being filled"
		}
		add(at, "the scheduled snapshot of %s was not taken: %s", at.Format(time.RFC3339), why)
	}
	return out
}
