package fleet

import (
	"context"
	"slices"
	"sync"

	"drover"
)

// listings keeps what is listed of apps in order, put right as records change: to look at ten thousand machines for each list costs more than all else of it.
// Only apps that somebody has listed are kept.
type listings struct {
	// of is changed under the state's lock for writing, or under the one for reading together with mu.
	mu sync.Mutex
	of map[drover.AppName]*listing
}

// listing is the machines of one app that are not destroyed, as they were when somebody last asked.
type listing struct {
	// keys are in order. They and the slice are given out, so neither is changed.
	keys []*MachineKey
	// stale are the IDs of machines of which a record has changed since.
	stale map[string]struct{}
	// hosts is what the keys say of the hosts. No record changes when a host falls silent.
	hosts map[drover.HostID]drover.HostStatus
}

// touchLocked notes that a record of a machine has changed.
func (s *state) touchLocked(id string) {
	if m, ok := s.machines.items[id]; ok {
		s.listings.touchLocked(m.value.App, id)
	}
}

func (l *listings) touchLocked(app drover.AppName, id string) {
	if list, ok := l.of[app]; ok {
		list.stale[id] = struct{}{}
	}
}

// MachineKeys lists the keys of the machines of an app, in the order of Machines. Nobody changes them or the slice: of a machine that has not changed it is the
// same key each time.
func (f *Fleet) MachineKeys(ctx context.Context, app drover.AppName) ([]*MachineKey, error) {
	if _, err := f.App(ctx, app); err != nil {
		return nil, err
	}
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	l := f.state.listings
	l.mu.Lock()
	defer l.mu.Unlock()
	list, ok := l.of[app]
	if !ok {
		list = &listing{stale: map[string]struct{}{}, hosts: map[drover.HostID]drover.HostStatus{}}
		for id := range f.state.machinesOf[app] {
			list.stale[id] = struct{}{}
		}
	}
	f.lookAtHostsLocked(app, list)
	f.putRightLocked(app, list)
	if len(list.keys) == 0 {
		delete(l.of, app)
	} else {
		l.of[app] = list
	}
	return list.keys, nil
}

// lookAtHostsLocked has those machines looked at again whose host has fallen silent, or is back.
func (f *Fleet) lookAtHostsLocked(app drover.AppName, list *listing) {
	for host := range f.state.loads.apps[app] {
		now := f.hostStatusLocked(host)
		if was, ok := list.hosts[host]; ok && was == now {
			continue
		}
		list.hosts[host] = now
		for id := range f.state.placedOn[host] {
			if f.state.machines.items[id].value.App == app {
				list.stale[id] = struct{}{}
			}
		}
	}
}

// putRightLocked looks at the machines again that have changed.
func (f *Fleet) putRightLocked(app drover.AppName, list *listing) {
	if len(list.stale) == 0 {
		return
	}
	old := map[drover.MachineID]*MachineKey{}
	kept := make([]*MachineKey, 0, len(list.keys)+len(list.stale))
	for _, k := range list.keys {
		if _, ok := list.stale[string(k.ID)]; ok {
			old[k.ID] = k
		} else {
			kept = append(kept, k)
		}
	}
	var fresh []*MachineKey
	for id := range list.stale {
		v, ok := f.viewLocked(id)
		if !ok || v.Machine.App != app || v.Status.State == drover.StateDestroyed {
			continue
		}
		k := v.Key()
		if v.HostStatus != "" {
			k.HostStatus = list.hosts[v.Placement.Host] // that of this moment may be another one already, and nobody would notice that it was
		}
		if was, ok := old[k.ID]; ok && *was == k {
			fresh = append(fresh, was)
		} else {
			fresh = append(fresh, &k)
		}
	}
	clear(list.stale)
	slices.SortFunc(fresh, (*MachineKey).Compare)
	list.keys = merged(kept, fresh)
}

// merged puts what is in order into what is, in the room that the first has.
func merged(kept, fresh []*MachineKey) []*MachineKey {
	i, j := len(kept)-1, len(fresh)-1
	all := kept[:len(kept)+len(fresh)]
	for at := len(all) - 1; j >= 0; at-- {
		if i >= 0 && kept[i].Compare(fresh[j]) > 0 {
			all[at] = kept[i]
			i--
		} else {
			all[at] = fresh[j]
			j--
		}
	}
	return all
}
