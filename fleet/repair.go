package fleet

import (
	"context"
	"sync"
	"time"

	"drover"
	"drover/migrate"
)

// kicks collects what is to be looked at. It holds each machine and host once.
type kicks struct {
	mu       sync.Mutex
	machines map[drover.MachineID]struct{}
	hosts    map[drover.HostID]struct{}
	signal   chan struct{}
}

func newKicks() *kicks {
	return &kicks{machines: map[drover.MachineID]struct{}{}, hosts: map[drover.HostID]struct{}{}, signal: make(chan struct{}, 1)}
}

func (k *kicks) add(id drover.MachineID) {
	k.mu.Lock()
	k.machines[id] = struct{}{}
	k.mu.Unlock()
	k.wake()
}

func (k *kicks) addHost(id drover.HostID) {
	k.mu.Lock()
	k.hosts[id] = struct{}{}
	k.mu.Unlock()
	k.wake()
}

func (k *kicks) wake() {
	select {
	case k.signal <- struct{}{}:
	default: // it is awake already
	}
}

// take empties the collection.
func (k *kicks) take() (machines []drover.MachineID, hosts []drover.HostID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id := range k.machines {
		machines = append(machines, id)
	}
	for id := range k.hosts {
		hosts = append(hosts, id)
	}
	clear(k.machines)
	clear(k.hosts)
	return machines, hosts
}

// maxRepairs bounds how many machines are repaired at once.
const maxRepairs = 16

// repairer is the lease holder's repair. It belongs to one goroutine.
type repairer struct {
	*Fleet
	// suspects are machines without a record, with the time when they were first seen so.
	suspects map[drover.MachineID]time.Time
	// keysAt is when keys without a use were looked for last.
	keysAt time.Time
}

// repairs looks at machines when something about them changed, and at everything from time to time, until ctx ends.
func (f *Fleet) repairs(ctx context.Context) {
	r := &repairer{Fleet: f, suspects: map[drover.MachineID]time.Time{}}
	tick := time.NewTicker(f.timing.Repair)
	defer tick.Stop()
	r.all(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.all(ctx)
		case <-f.kicks.signal:
			machines, hosts := f.kicks.take()
			back := f.placedOn(hosts)
			for _, id := range back {
				r.tellings.forget(id) // it may have missed anything
			}
			r.some(ctx, append(machines, back...))
		}
	}
}

func (f *Fleet) placedOn(hosts []drover.HostID) []drover.MachineID {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	var ids []drover.MachineID
	for _, host := range hosts {
		for id := range f.state.placedOn[host] {
			ids = append(ids, drover.MachineID(id))
		}
	}
	return ids
}

func (r *repairer) all(ctx context.Context) {
	var ids []drover.MachineID
	for _, m := range r.state.machines.all() {
		ids = append(ids, m.value.ID)
	}
	r.some(ctx, ids)
	r.sweep(ctx)
	r.sweepKeys(ctx)
}

// some repairs those that need it. A machine whose host is unreachable waits for the host.
func (r *repairer) some(ctx context.Context, ids []drover.MachineID) {
	var group sync.WaitGroup
	slots := make(chan struct{}, maxRepairs)
	for _, id := range ids {
		if !r.needsRepair(id) || r.toldAlready(id) {
			continue
		}
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			if err := r.repairMachine(ctx, id); err != nil && ctx.Err() == nil {
				r.log.Warn("machine is looked at again later", "machine", id, "err", err)
			}
		})
	}
	group.Wait()
}

// toldAlready reports whether this very state was told to the host a moment ago, or is being told now, and notes that it is being told now if not: a
// host whose status does not follow is not told again at once.
func (r *repairer) toldAlready(id drover.MachineID) bool {
	_, machine, ok := r.state.machines.seen(string(id))
	_, placement, _ := r.state.placements.seen(string(id))
	status, _, _ := r.state.status.seen(string(id))
	if !ok {
		r.tellings.forget(id)
		return true
	}
	t, held := r.tellings.last(id)
	now := r.now()
	if held || t.machine == machine && t.placement == placement && status.State != drover.StateDestroyed && now.Sub(t.at) < r.timing.Repair*9/10 {
		return true
	}
	r.tellings.note(id, telling{machine: machine, placement: placement, at: now})
	return false
}

// needsRepair tells from memory whether a machine may not be as it should.
func (f *Fleet) needsRepair(id drover.MachineID) bool {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	v, ok := f.viewLocked(string(id))
	if !ok {
		return false
	}
	_, reported := f.state.status.bestLocked(string(id))
	switch {
	case v.Placement.Host == "":
		return reported || len(f.state.volumesOn[id]) > 0
	case reported && v.Status.State == drover.StateDestroyed:
		return true
	case f.hostStatusLocked(v.Placement.Host) == drover.HostUnreachable:
		return false
	case v.Migration != nil && migrate.Blocks(*v.Migration):
		return false
	}
	return !reported || behind(v)
}

// behind reports whether the host has not been told, or has not taken in, what the machine should be.
func behind(v MachineView) bool {
	st, m := v.Status, v.Machine
	switch {
	case m.Goal == drover.GoalDestroyed:
		return true
	case st.Epoch != v.Placement.Epoch, st.Instance != m.Instance, st.Run != m.Run:
		return true
	case m.Goal == drover.GoalSuspended:
		return st.State == drover.StateStarted && st.Reason == "" // else it cannot be
	case m.Goal == drover.GoalStopped:
		return st.State == drover.StateSuspended || st.State == drover.StateStarting || st.State == drover.StateStarted
	}
	return false
}

// repairMachine tells the host of a machine what it should be, and clears away what is left of a destroyed one. It may be called at any time,
// by anybody.
func (f *Fleet) repairMachine(ctx context.Context, id drover.MachineID) error {
	m, _, err := f.state.machines.get(ctx, string(id))
	if err != nil {
		return err
	}
	p, err := f.state.placementOf(ctx, id)
	if drover.Is(err, drover.NotFound) {
		if m.Goal == drover.GoalDestroyed {
			return f.clear(ctx, m, drover.Placement{})
		}
		return drover.Errorf(drover.Internal, "machine %q has no placement", id)
	}
	if err != nil {
		return err
	}
	seen, _, known := f.state.status.seen(string(id))
	status := seen
	if !known || status.State != drover.StateDestroyed || status.Epoch < p.Epoch {
		if status, err = f.apply(ctx, id); err != nil {
			return err
		}
	}
	if status.State != drover.StateDestroyed {
		return nil
	}
	if len(seen.Events) > len(status.Events) {
		status = seen
		status.State = drover.StateDestroyed
	}
	if m.Goal != drover.GoalDestroyed || saysMore(status, m.Last) { // auto_destroy, or nobody has noted the end yet
		if m, err = f.changeRecord(ctx, id, func(m *drover.Machine) error {
			m.Goal = drover.GoalDestroyed
			if saysMore(status, m.Last) {
				m.Last = &status
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return f.clear(ctx, m, p)
}

// saysMore reports whether a host's word of a destroyed machine is worth more than what was noted: a host that was asked once more may know nothing
// of the machine any more.
func saysMore(now drover.MachineStatus, noted *drover.MachineStatus) bool {
	return noted == nil || now.Run > noted.Run || len(now.Events) > len(noted.Events)
}

// clear frees what a machine had, after its host said that nothing is left of it, or when there never was a host. The placement goes last: while
// it is there, this is not finished.
func (f *Fleet) clear(ctx context.Context, m drover.Machine, p drover.Placement) error {
	f.state.mu.RLock()
	var volumes []string
	for id := range f.state.volumesOn[m.ID] {
		volumes = append(volumes, id)
	}
	f.state.mu.RUnlock()
	for _, mount := range m.Config.Mounts {
		volumes = append(volumes, string(mount.Volume))
	}
	for _, id := range volumes {
		if err := f.freeVolume(ctx, m.ID, id, p); err != nil {
			return err
		}
	}
	if err := f.freeName(ctx, m); err != nil {
		return err
	}
	if err := f.state.status.remove(ctx, string(m.ID)); err != nil {
		return err
	}
	if _, _, leased := f.state.machineLeases.seen(string(m.ID)); leased {
		if err := f.state.machineLeases.remove(ctx, string(m.ID), 0); err != nil {
			return err
		}
	}
	if p.Host == "" {
		return nil
	}
	if err := f.state.placements.remove(ctx, string(m.ID), uint64(p.Epoch)); err != nil {
		return err
	}
	f.log.Info("machine destroyed", "machine", m.ID, "app", m.App, "host", p.Host)
	return nil
}

// freeVolume takes a volume from a machine; it stays on the host where the machine was, and remembers the epoch.
func (f *Fleet) freeVolume(ctx context.Context, machine drover.MachineID, id string, p drover.Placement) error {
	for range casTries {
		v, rev, err := f.state.volumes.get(ctx, id)
		if drover.Is(err, drover.NotFound) || (err == nil && v.Machine != machine) {
			return nil
		}
		if err != nil {
			return err
		}
		v.Machine = ""
		if p.Host != "" {
			v.Host, v.Epoch = p.Host, max(v.Epoch, p.Epoch)
		}
		if v.State == drover.VolumeHydrating && !v.Filling() {
			v.State = drover.VolumeCreated // a machine is destroyed only when its migration is through
		}
		if _, err = f.state.volumes.update(ctx, id, v, rev); !drover.Is(err, drover.Conflict) {
			return err
		}
	}
	return tooBusy("volume", id)
}

// freeName gives up a machine's claim to its name.
func (f *Fleet) freeName(ctx context.Context, m drover.Machine) error {
	key := nameClaim(m.App, m.Name)
	c, rev, err := f.state.claims.get(ctx, key)
	if drover.Is(err, drover.NotFound) || (err == nil && c.Machine != m.ID) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := f.state.claims.remove(ctx, key, rev); !drover.Is(err, drover.Conflict) {
		return err
	}
	return nil // somebody else freed it
}
