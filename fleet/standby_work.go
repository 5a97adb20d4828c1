package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"reflect"
	"slices"
	"sync"
	"time"

	"drover"
)

// standbyWorker makes standbys follow their volumes: the lease holder's work. Each standby has at most one goroutine at a time.
type standbyWorker struct {
	*Fleet
	group sync.WaitGroup
	slots chan struct{}

	mu   sync.Mutex
	busy map[drover.StandbyID]bool
}

// keepStandbys works until ctx ends; all that it began has ended then.
func (f *Fleet) keepStandbys(ctx context.Context) {
	w := &standbyWorker{Fleet: f, slots: make(chan struct{}, maxVolumeWork), busy: map[drover.StandbyID]bool{}}
	defer w.group.Wait()
	for {
		changed := f.state.standbys.next(anyKey)
		for _, i := range f.state.standbys.all() {
			w.begin(ctx, i.value.ID)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
			select { // progress is written, too: this keeps it from being asked for without a pause
			case <-ctx.Done():
			case <-time.After(f.timing.Work / 10):
			}
		case <-time.After(f.timing.Work / 4): // a step is due to the second
		}
	}
}

func (w *standbyWorker) begin(ctx context.Context, id drover.StandbyID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy[id] {
		return
	}
	select {
	case w.slots <- struct{}{}:
	default:
		return // all are at work; its turn comes
	}
	w.busy[id] = true
	w.group.Go(func() {
		defer func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			delete(w.busy, id)
			<-w.slots
		}()
		for ctx.Err() == nil {
			if again, err := w.step(ctx, id); err != nil || !again {
				if err != nil && ctx.Err() == nil && !drover.Is(err, drover.Conflict) {
					w.log.Debug("standby is tried again", "standby", id, "err", err)
				}
				return
			}
		}
	})
}

// step does what is to be done next for a standby. again says that more can be done at once.
func (w *standbyWorker) step(ctx context.Context, id drover.StandbyID) (again bool, err error) {
	s, rev, err := w.state.standbys.get(ctx, string(id))
	if drover.Is(err, drover.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	v, _, err := w.state.volumes.get(ctx, string(s.Volume))
	gone := drover.Is(err, drover.NotFound) || err == nil && v.State == drover.VolumeDestroying
	if err != nil && !gone {
		return false, err
	}
	if gone && s.State != drover.StandbyDeleting {
		s.State = drover.StandbyDeleting
		_, err := w.state.standbys.update(ctx, string(id), s, rev)
		return true, err
	}
	if s.State == drover.StandbyDeleting {
		return false, w.remove(ctx, s, rev, gone)
	}
	next, err := w.next(ctx, s, v)
	if err != nil {
		next.Problem = drover.AsError(err)
	} else if next.Source == "" || next.Complete != s.Complete {
		next.Problem = nil
	}
	if same(s, next) {
		return false, err
	}
	if _, uerr := w.state.standbys.update(ctx, string(id), next, rev); uerr != nil {
		return false, uerr
	}
	w.hit("fleet.standby.step.after")
	return err == nil && (next.Step != s.Step || next.Source != s.Source || next.Export != nil && s.Export == nil), err
}

// same compares records; errors carry a cause that is not stored.
func same(a, b drover.Standby) bool {
	if (a.Problem == nil) != (b.Problem == nil) || a.Problem != nil && a.Problem.Text != b.Problem.Text {
		return false
	}
	a.Problem, b.Problem = nil, nil
	return reflect.DeepEqual(a, b)
}

// next does one thing and returns what the record is to be then. An error is what the standby waits for; the record may have changed all the same.
func (w *standbyWorker) next(ctx context.Context, s drover.Standby, v drover.Volume) (drover.Standby, error) {
	at, err := w.hostOfVolume(ctx, v)
	if err != nil {
		return s, err
	}
	if s.Replaces != "" && s.Complete > 0 {
		if _, err := w.changeStandby(ctx, s.Replaces, func(old *drover.Standby) { old.State = drover.StandbyDeleting }); err != nil && !drover.Is(err, drover.NotFound) {
			return s, err
		}
		w.hit("fleet.standby.replaced.after")
		s.Replaces = ""
		return s, nil
	}
	if left := w.release(ctx, s, v); len(left) != len(s.Releases) {
		s.Releases = left
		return s, nil
	}
	if err := w.retarget(ctx, s, v, at); err != nil {
		w.log.Debug("no other host for a standby now", "standby", s.ID, "err", err)
	}
	switch {
	case s.Source != "" && s.Source != at:
		return abandon(s), nil // the volume is elsewhere by now
	case s.Host == at, v.State != drover.VolumeCreated && v.State != drover.VolumeHydrating:
		return s, nil
	case !w.reachable(at):
		return s, drover.Errorf(drover.Unavailable, "host %q, which has the volume, does not answer", at)
	case !w.reachable(s.Host):
		return s, drover.Errorf(drover.Unavailable, "host %q, which has the standby, does not answer", s.Host)
	case s.Source == "" && w.now().Sub(s.BegunAt) < time.Duration(s.Every):
		return s, nil
	case s.Source == "":
		return beginStep(s, at, w.now().UTC()), nil
	case s.Export == nil:
		return w.freeze(ctx, s, v)
	}
	return w.copy(ctx, s)
}

// beginStep begins the next step: what changed since the last whole one where its source still knows that, else all.
func beginStep(s drover.Standby, at drover.HostID, now time.Time) drover.Standby {
	s.Step++
	s.Source, s.Over, s.Export, s.TakenAt, s.BegunAt, s.Pending = at, 0, nil, time.Time{}, now, 0
	if s.CompleteFrom == at {
		s.Over = s.Complete
	}
	return s
}

// abandon gives the step up that is under way.
func abandon(s drover.Standby) drover.Standby {
	s.Releases = append(slices.Clone(s.Releases), drover.StandbyRelease{Host: s.Source, Step: s.Step})
	s.Source, s.Export, s.Over, s.Pending = "", nil, 0, 0
	return s
}

// freeze lets the source freeze the step.
func (w *standbyWorker) freeze(ctx context.Context, s drover.Standby, v drover.Volume) (drover.Standby, error) {
	var frozen drover.StandbyFrozen
	err := w.order(ctx, w.timing.Apply, s.Source, drover.OrderStandbyFreeze,
		drover.StandbyFreezeRequest{Standby: s.ID, Volume: v, Step: s.Step, Over: s.Over, Target: s.Host}, &frozen)
	switch {
	case drover.Is(err, drover.NotFound) && s.Over != 0:
		s.Over = 0 // the source lost the step before: all of it again
		return s, nil
	case drover.Is(err, drover.Canceled):
		return abandon(s), nil
	case err != nil:
		return s, err
	}
	w.hit("fleet.standby.frozen.after")
	s.Export, s.TakenAt = &frozen.Export, frozen.TakenAt
	return s, nil
}

// copy lets the standby's host copy the step, and takes it over when it is whole.
func (w *standbyWorker) copy(ctx context.Context, s drover.Standby) (drover.Standby, error) {
	var copied drover.StandbyCopied
	err := w.order(ctx, w.timing.Apply, s.Host, drover.OrderStandbyCopy, drover.StandbyCopyRequest{Standby: s.ID, Volume: s.Volume,
		Step: s.Step, Over: s.Over, Export: *s.Export, TakenAt: s.TakenAt}, &copied)
	switch {
	case drover.Is(err, drover.NotFound), drover.Is(err, drover.Canceled):
		s = abandon(s)
		s.CompleteFrom = "" // what the next step would be a change to is not there: all of it again
		return s, nil
	case err != nil:
		return s, err
	case !copied.Done:
		s.Pending = max(copied.Hydration.Total-copied.Hydration.Copied-copied.Hydration.Skipped, 0)
		if copied.Hydration.Waiting != "" {
			return s, drover.Errorf(drover.Unavailable, "step %d is not copied: %s", s.Step, copied.Hydration.Waiting)
		}
		return s, nil
	}
	w.hit("fleet.standby.copied.after")
	if s.Complete > 0 && s.CompleteFrom != "" {
		s.Releases = append(slices.Clone(s.Releases), drover.StandbyRelease{Host: s.CompleteFrom, Step: s.Complete})
	}
	s.Complete, s.CompleteAt, s.CompleteFrom, s.CompleteSize = s.Step, s.TakenAt, s.Source, s.Export.Size
	s.Copied, s.Pending, s.Source, s.Export, s.Over, s.State = copied.Hydration.Copied, 0, "", nil, 0, drover.StandbyFollowing
	return s, nil
}

// release lets hosts give up frozen layers, and returns those that are left.
func (w *standbyWorker) release(ctx context.Context, s drover.Standby, v drover.Volume) []drover.StandbyRelease {
	var left []drover.StandbyRelease
	for _, r := range s.Releases {
		var err error = drover.Errorf(drover.Unavailable, "host %q does not answer", r.Host)
		if w.reachable(r.Host) {
			err = w.order(ctx, w.timing.Apply, r.Host, drover.OrderStandbyRelease, drover.StandbyReleaseRequest{Standby: s.ID,
				Volume: s.Volume, Step: r.Step, Target: s.Host, Wipe: v.ID == ""}, nil)
			w.hit("fleet.standby.released.after")
		}
		if err != nil {
			w.log.Debug("a frozen layer of a standby is given up later", "standby", s.ID, "step", r.Step, "host", r.Host, "err", err)
			left = append(left, r)
		}
	}
	return left
}

// retarget makes another standby where this one cannot stay: with the volume itself, or on a host that is closed or gone. This one goes when the
// other has a whole step.
func (w *standbyWorker) retarget(ctx context.Context, s drover.Standby, v drover.Volume, at drover.HostID) error {
	w.state.mu.RLock()
	info, known := w.hostLocked(s.Host)
	w.state.mu.RUnlock()
	away := !known || info.Mark != nil || info.Status == drover.HostUnreachable && w.silent(s.Host) > 30*w.timing.Unreachable
	if !away && s.Host != at {
		return nil
	}
	for _, other := range w.standbysOf(v.ID) {
		if other.Replaces == s.ID {
			return nil
		}
	}
	host, err := w.standbyHost(ctx, v, at, "", s.Region)
	if err != nil {
		return err
	}
	// One name for the one that comes after this one, so that two controllers make one.
	next := drover.Standby{ID: successor(s.ID), Volume: v.ID, App: v.App, Host: host, Region: s.Region, Every: s.Every,
		State: drover.StandbyFilling, Replaces: s.ID, CreatedAt: w.now().UTC()}
	_, err = w.state.standbys.create(ctx, string(next.ID), next)
	if drover.Is(err, drover.Exists) {
		return nil
	}
	if err == nil {
		w.log.Info("standby goes to another host", "standby", s.ID, "from", s.Host, "to", host, "as", next.ID)
		w.hit("fleet.standby.retarget.after")
	}
	return err
}

// successor names the standby that comes after one.
func successor(id drover.StandbyID) drover.StandbyID {
	h := sha256.Sum256([]byte("after " + id))
	return drover.StandbyID("sby_" + hex.EncodeToString(h[:8]))
}

// remove removes what hosts keep for a standby, and then its record.
func (w *standbyWorker) remove(ctx context.Context, s drover.Standby, rev uint64, wipe bool) error {
	if s.Source != "" || s.CompleteFrom != "" {
		if s.Source != "" {
			s = abandon(s)
		}
		if s.CompleteFrom != "" {
			s.Releases = append(slices.Clone(s.Releases), drover.StandbyRelease{Host: s.CompleteFrom, Step: s.Complete})
			s.CompleteFrom = ""
		}
		_, err := w.state.standbys.update(ctx, string(s.ID), s, rev)
		return err
	}
	if !w.reachable(s.Host) {
		return drover.Errorf(drover.Unavailable, "host %q does not answer", s.Host)
	}
	if err := w.order(ctx, w.timing.Apply, s.Host, drover.OrderStandbyDrop, drover.StandbyDropRequest{Standby: s.ID, Volume: s.Volume, Wipe: wipe}, nil); err != nil {
		return err
	}
	w.hit("fleet.standby.dropped.after")
	v := drover.Volume{ID: s.Volume}
	if wipe {
		v.ID = ""
	}
	if left := w.release(ctx, s, v); len(left) > 0 {
		s.Releases = left
		_, err := w.state.standbys.update(ctx, string(s.ID), s, rev)
		return err
	}
	w.log.Info("standby removed", "standby", s.ID, "volume", s.Volume, "host", s.Host)
	return w.state.standbys.remove(ctx, string(s.ID), rev)
}

// StandbyFaultPoints names the places at which a fault can strike whoever makes standbys follow.
func StandbyFaultPoints() []string {
	return []string{"fleet.standby.step.after", "fleet.standby.frozen.after", "fleet.standby.copied.after", "fleet.standby.released.after",
		"fleet.standby.retarget.after", "fleet.standby.replaced.after", "fleet.standby.dropped.after"}
}
