package host

import (
	"context"
	"errors"
	"os"
	"time"

	"drover"
	"drover/boltstore"
	"drover/internal/durable"
)

// closeAll closes the layers of a machine that does not run, and removes its tap.
func (m *machine) closeAll(ctx context.Context) error {
	m.agent.hit("host.close.before")
	for _, layer := range m.rec.Load().Obs.Open {
		if err := m.closeLayer(ctx, layer); err != nil {
			return err
		}
	}
	if err := m.detach(ctx); err != nil {
		return err
	}
	m.agent.hit("host.close.after")
	return m.change(func(r *records, _ *boltstore.Tx) error { r.Obs.Open = nil; return nil })
}

// closeLayer closes a layer; one that is not there is no error.
func (m *machine) closeLayer(ctx context.Context, id drover.LayerID) error {
	_, err := call(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, m.agent.cfg.Storage.Close(ctx, id) })
	if drover.Is(err, drover.NotFound) {
		return nil
	}
	return err
}

func (m *machine) detach(ctx context.Context) error {
	_, err := call(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, m.agent.cfg.Network.Detach(ctx, m.id) })
	return err
}

// rest stores the state of a machine that runs nothing and is not to.
func (m *machine) rest() error {
	return m.change(func(r *records, _ *boltstore.Tx) error {
		o := &r.Obs
		o.Status.Instance = r.Desired.Machine.Instance
		o.RetryAt, o.Retries, o.BootTries, o.StartTries = time.Time{}, 0, 0, 0
		switch keeps := r.keepsMemory(); {
		case keeps:
			was := o.Status.State
			o.Status.State, o.Status.Reason = drover.StateSuspended, ""
			o.Status.Run = r.Desired.Machine.Run
			if was != drover.StateSuspended {
				r.event(m.agent.now(), event{kind: "suspend", source: "drover", text: "its memory is kept on disk"})
			}
		case !restingState(o.Status.State), o.Status.State == drover.StateSuspended:
			o.Status.State, o.Status.Reason = drover.StateStopped, ""
			o.Status.Run = r.Desired.Machine.Run
			o.Destroy = r.goal() == drover.GoalStopped && r.Desired.Machine.Config.AutoDestroy
			if r.wantsSuspend() {
				o.SuspendOver = r.Desired.Machine.Suspend
				r.event(m.agent.now(), event{kind: "suspend", source: "drover", text: "it did not run any more when it was to be suspended: the memory is lost, and the next start boots"})
			}
		}
		if o.Status.State == drover.StateCreated {
			o.Status.Reason = ""
		}
		if r.goal() == drover.GoalStopped || r.goal() == drover.GoalSuspended {
			o.Over = false
		}
		return nil
	})
}

// destroy removes what belongs to the machine alone: its root disk, its files, its link. Its volumes stay.
func (m *machine) destroy(ctx context.Context) error {
	if m.rec.Load().Obs.Status.State != drover.StateDestroying {
		if err := m.change(func(r *records, _ *boltstore.Tx) error {
			r.Obs.Status.State, r.Obs.Status.Reason = drover.StateDestroying, ""
			return nil
		}); err != nil {
			return err
		}
	}
	m.agent.hit("host.destroy.before")
	if err := m.detach(ctx); err != nil {
		return err
	}
	rootID := drover.RootDisk(m.id)
	root, err := m.disk(rootID)
	if err == nil {
		err = m.deleteLayer(ctx, root.Layer)
	}
	if err != nil && !drover.Is(err, drover.NotFound) {
		return err
	}
	if err := m.removeFiles(); err != nil {
		return err
	}
	m.agent.hit("host.destroy.after")
	return m.change(func(r *records, tx *boltstore.Tx) error {
		r.Obs.Status.State = drover.StateDestroyed
		source := "user"
		if r.Obs.Destroy {
			source = "drover"
		}
		r.event(m.agent.now(), event{kind: "destroy", source: source})
		if t := r.target(); t == nil || !t.adopted() || t.Hydrated {
			r.Move = nil // volumes that are still on their way here live on without the machine
		}
		return diskBucket.Delete(tx, string(rootID))
	})
}

func (m *machine) removeFiles() error {
	if err := errors.Join(durable.Remove(m.dir()), os.RemoveAll(m.runDir())); err != nil {
		return drover.Errorf(drover.Internal, "cannot remove the files of machine %q: %w", m.id, err)
	}
	return nil
}

// forget removes the records of a machine that this host does not own any more, and that it did not hand over itself. Its
// layers are kept aside: what was never frozen may be the only copy of what was written last. A machine that was destroyed loses
// its root disk after the grace period.
func (m *machine) forget(ctx context.Context) error {
	if err := m.removeFiles(); err != nil {
		return err
	}
	gone := *m.rec.Load().Obs.Lost
	var aside []diskRecord
	var layers map[drover.LayerID]drover.LayerStatus
	if gone.Host != "" {
		var err error
		if aside, err = m.fenceLost(ctx, gone); err != nil {
			return err
		}
		if err := m.stopCopying(ctx); err != nil {
			return err
		}
		if layers, err = m.agent.layerMap(ctx); err != nil {
			return err
		}
		m.log.Error("the machine is another host's without a migration from here: its layers are kept aside",
			"owner", string(gone.Host), "gen", uint64(gone.Epoch), "until", m.agent.now().Add(m.agent.cfg.KeepAside))
	}
	return m.change(func(r *records, tx *boltstore.Tx) error {
		if err := m.agent.keepRounds(tx, r.Move); err != nil {
			return err
		}
		r.Desired, r.Move, r.Obs = nil, nil, observed{}
		memory, ok, err := diskBucket.Get(tx, string(drover.MemoryDisk(m.id)))
		if err == nil && ok { // what a migration still had exported of a suspended machine
			err = m.retire(tx, memory, memory.Migration)
		}
		if err != nil {
			return err
		}
		if gone.Host != "" {
			return m.agent.keepAside(tx, m.id, aside, layers, gone)
		}
		id := drover.RootDisk(m.id)
		root, ok, err := diskBucket.Get(tx, string(id))
		if err != nil || !ok {
			return err
		}
		return m.retire(tx, root, root.Migration)
	})
}
