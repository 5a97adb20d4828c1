package fleet

import (
	"context"
	"errors"
	"sync"
	"time"

	"drover"
	"drover/migrate"
)

// maxVolumeWork bounds how many volumes are worked on at once.
const maxVolumeWork = 32

// volumeWorker is the lease holder's work on volumes and their snapshots: whatever was begun is ended, what a schedule asks for is begun,
// what was kept long enough is removed. Each volume has at most one goroutine at a time.
type volumeWorker struct {
	*Fleet
	group sync.WaitGroup
	slots chan struct{}
	wake  chan struct{}

	mu sync.Mutex
	// busy are the volumes that are worked on; rest has those that are not looked at again before the time.
	busy map[drover.VolumeID]bool
	rest map[drover.VolumeID]time.Time
}

// keepVolumes works until ctx ends; all that it began has ended then.
func (f *Fleet) keepVolumes(ctx context.Context) {
	w := &volumeWorker{Fleet: f, slots: make(chan struct{}, maxVolumeWork), wake: make(chan struct{}, 1),
		busy: map[drover.VolumeID]bool{}, rest: map[drover.VolumeID]time.Time{}}
	defer w.group.Wait()
	for {
		volumes, snapshots := f.state.volumes.next(anyKey), f.state.snapshots.next(anyKey)
		w.round(ctx)
		select {
		case <-ctx.Done():
			return
		case <-volumes:
		case <-snapshots:
		case <-w.wake:
		case <-time.After(f.timing.Work):
		}
	}
}

// round begins what is due.
func (w *volumeWorker) round(ctx context.Context) {
	now := w.now()
	for _, id := range w.dueVolumes(now) {
		w.mu.Lock()
		begin := !w.busy[id] && !now.Before(w.rest[id])
		if begin {
			w.busy[id] = true
		}
		w.mu.Unlock()
		if !begin {
			continue
		}
		select {
		case w.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		w.group.Go(func() {
			again := false
			defer func() {
				w.mu.Lock()
				delete(w.busy, id)
				delete(w.rest, id)
				if !again {
					w.rest[id] = w.now().Add(w.timing.Work * 9 / 10)
				}
				w.mu.Unlock()
				<-w.slots
				select {
				case w.wake <- struct{}{}:
				default:
				}
			}()
			var err error
			if again, err = w.step(ctx, id); err != nil && ctx.Err() == nil && !drover.Is(err, drover.Conflict) {
				w.log.Warn("volume is looked at again later", "volume", id, "err", err)
			}
			again = again && err == nil
		})
	}
	w.mu.Lock()
	for id, at := range w.rest {
		if !now.Before(at) && !w.busy[id] {
			delete(w.rest, id)
		}
	}
	w.mu.Unlock()
}

// dueVolumes finds in memory the volumes for which there is something to do.
func (w *volumeWorker) dueVolumes(now time.Time) []drover.VolumeID {
	w.state.mu.RLock()
	defer w.state.mu.RUnlock()
	due := map[drover.VolumeID]bool{}
	for _, i := range w.state.snapshots.items {
		if s := i.value; working(s) || s.Host != "" {
			due[s.Volume] = true
		}
	}
	creating := map[drover.HostID]int{}
	for _, i := range w.state.snapshots.items {
		if s := i.value; s.Scheduled && s.State == drover.SnapshotCreating {
			creating[s.Host]++
		}
	}
	for key, i := range w.state.volumes.items {
		v := i.value
		host := w.hostOfVolumeLocked(v)
		switch {
		case v.State == drover.VolumeDestroying, unsettled(v):
			due[v.ID] = true
		case v.State == drover.VolumeCreating:
			if now.Sub(v.CreatedAt) > w.timing.Stale {
				due[v.ID] = true
			}
		case v.State == drover.VolumeDestroyed:
			if !now.Before(v.WipeAt) {
				due[v.ID] = true
			}
		case w.cfg.Snapshots == nil:
		case creating[host] < maxScheduled && w.scheduledLocked(v, now):
			creating[host]++
			due[drover.VolumeID(key)] = true
		}
	}
	for id := range w.state.snapsOf {
		if len(w.expiredLocked(id, now)) > 0 {
			due[id] = true
		}
	}
	ids := make([]drover.VolumeID, 0, len(due))
	for id := range due {
		ids = append(ids, id)
	}
	return ids
}

// unsettled reports whether a host has still to be told, or asked, something about a volume that is in use.
func unsettled(v drover.Volume) bool {
	return (v.State == drover.VolumeCreated || v.State == drover.VolumeHydrating || v.State == drover.VolumeDestroyed) &&
		(v.From != nil && !v.From.Released || v.Grow != 0 || v.LimitsPending)
}

// step does what is to be done next for a volume and its snapshots. again says that more can be done at once.
func (w *volumeWorker) step(ctx context.Context, id drover.VolumeID) (again bool, err error) {
	v, _, err := w.state.volumes.get(ctx, string(id))
	switch {
	case err == nil:
		again, err = w.stepVolume(ctx, v)
	case drover.Is(err, drover.NotFound):
		err = nil
	default:
		return false, err
	}
	expired := w.expireSnapshots(ctx, id)
	more, serr := w.stepSnapshots(ctx, id)
	return again || more, errors.Join(err, expired, serr)
}

// stepVolume goes on with the volume itself.
func (w *volumeWorker) stepVolume(ctx context.Context, v drover.Volume) (again bool, err error) {
	host, err := w.hostOfVolume(ctx, v)
	if err != nil || !w.reachable(host) && v.State != drover.VolumeDestroyed {
		return false, err
	}
	now := w.now()
	switch {
	case v.State == drover.VolumeDestroying:
		return false, w.removeVolume(ctx, v.ID)
	case v.State == drover.VolumeCreating:
		if now.Sub(v.CreatedAt) > w.timing.Stale {
			return true, w.makeOrUnmake(ctx, v)
		}
		return false, nil
	case v.State == drover.VolumeDestroyed && !now.Before(v.WipeAt):
		return true, w.wipeVolume(ctx, v)
	case !w.reachable(host):
		return false, nil
	}
	if v.From != nil && !v.From.Released {
		err = w.stepFill(ctx, v, host)
	}
	if v.Machine != "" {
		if m, herr := w.holder(ctx, v.Machine); herr != nil || m != nil && migrate.Blocks(*m) {
			return false, errors.Join(err, herr) // the machine is on its way: its new host is told
		}
	}
	if v.Grow != 0 {
		_, gerr := w.growVolume(ctx, v, host)
		err = errors.Join(err, gerr)
	}
	if v.LimitsPending {
		err = errors.Join(err, w.tellLimits(ctx, v, host))
	}
	w.state.mu.RLock()
	scheduled := w.cfg.Snapshots != nil && w.scheduledLocked(v, now)
	w.state.mu.RUnlock()
	if scheduled {
		return true, errors.Join(err, w.beginScheduled(ctx, v))
	}
	return false, err
}

// makeOrUnmake goes on with a volume whose maker died. Nobody was told that it is there: one that cannot be made is taken back.
func (w *volumeWorker) makeOrUnmake(ctx context.Context, v drover.Volume) error {
	err := w.makeVolume(ctx, v.ID)
	if err == nil || ctx.Err() != nil || drover.Is(err, drover.Unavailable) || drover.Is(err, drover.Conflict) || drover.Is(err, drover.Internal) {
		return err
	}
	w.log.Warn("volume that cannot be made is taken back", "volume", v.ID, "app", v.App, "err", err)
	w.unmakeVolume(ctx, v.ID)
	return nil
}

// hostOfVolume returns the host that has a volume now, by the store.
func (f *Fleet) hostOfVolume(ctx context.Context, v drover.Volume) (drover.HostID, error) {
	if v.Machine == "" {
		return v.Host, nil
	}
	p, err := f.state.placementOf(ctx, v.Machine)
	if drover.Is(err, drover.NotFound) {
		return v.Host, nil // the machine is being made, or is gone by now
	}
	return p.Host, err
}

func (f *Fleet) hostOfVolumeLocked(v drover.Volume) drover.HostID {
	if p, ok := f.state.placements.items[string(v.Machine)]; ok && v.Machine != "" {
		return p.value.Host
	}
	return v.Host
}
