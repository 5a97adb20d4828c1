package fleet

import (
	"context"
	"slices"

	"drover"
	"drover/natsbus"
)

// statuses is the bucket of what hosts say of machines. Each host has a record of its own for each machine, which no other host can write; of a
// machine's records one counts: see bestLocked. It is used as if it had one record per machine.
type statuses struct {
	*table[drover.MachineStatus]
	s *state
	// of has the keys of each machine's records, by its ID; guarded by mu.
	of index[string]
}

var _ follower = (*statuses)(nil)

func newStatuses(s *state) *statuses {
	t := &statuses{table: newTable[drover.MachineStatus](&s.mu, natsbus.BucketStatus), s: s, of: index[string]{}}
	t.group = func(key string) string { id, _ := natsbus.SplitStatusKey(key); return string(id) }
	t.changed = func(key string, old, now *drover.MachineStatus) {
		if old != nil {
			t.of.drop(t.group(key), key)
		}
		if now != nil {
			t.of.add(t.group(key), key)
		}
		s.touchLocked(t.group(key))
	}
	return t
}

// bestLocked returns what counts of a machine's records: the one of the newest epoch that can be. A host that the placement does not name cannot know
// the epoch of the placement, so what it says counts only until the host speaks that does.
func (t *statuses) bestLocked(id string) (best item[drover.MachineStatus], found bool) {
	p, placed := t.s.placements.items[id]
	for key := range t.of[id] {
		i := t.items[key]
		machine, host := natsbus.SplitStatusKey(key)
		if i.value.Machine != machine || (host != "" && i.value.Host != host) {
			continue
		}
		if epoch := drover.Epoch(p.rev); placed && (i.value.Epoch > epoch || (i.value.Epoch == epoch && i.value.Host != p.value.Host)) {
			continue
		}
		if !found || i.value.Epoch > best.value.Epoch || (i.value.Epoch == best.value.Epoch && i.rev > best.rev) {
			best, found = i, true
		}
	}
	return best, found
}

// seen returns what is in memory of a machine.
func (t *statuses) seen(id string) (drover.MachineStatus, uint64, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	i, ok := t.bestLocked(id)
	return i.value, i.rev, ok
}

// get reads the machine's records from the store, and returns the one that counts.
func (t *statuses) get(ctx context.Context, id string) (drover.MachineStatus, uint64, error) {
	if err := t.each(ctx, id, func(key string) error { _, _, err := t.table.get(ctx, key); return err }); err != nil {
		return drover.MachineStatus{}, 0, err
	}
	v, rev, ok := t.seen(id)
	if !ok {
		return v, 0, drover.Errorf(drover.NotFound, "no host says anything of machine %q", id)
	}
	return v, rev, nil
}

// remove removes all records of a machine.
func (t *statuses) remove(ctx context.Context, id string) error {
	return t.each(ctx, id, func(key string) error { return t.table.remove(ctx, key, 0) })
}

// each calls do with the key of each record of a machine that the store has. One that is gone is passed over.
func (t *statuses) each(ctx context.Context, id string, do func(key string) error) error {
	keys, err := t.bucket.Matching(ctx, natsbus.StatusKey(drover.MachineID(id), "*"))
	if err != nil {
		return err
	}
	t.mu.RLock()
	if _, ok := t.items[id]; ok { // of the first versions
		keys = append(keys, id)
	}
	t.mu.RUnlock()
	for _, key := range keys {
		if err := do(key); err != nil && !drover.Is(err, drover.NotFound) {
			return err
		}
	}
	return nil
}

// former lists the records of hosts that a machine has left, once the host that has it has spoken.
func (t *statuses) former() (keys []string) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for id, of := range t.of {
		p, placed := t.s.placements.items[id]
		best, found := t.bestLocked(id)
		if len(of) < 2 || !placed || !found || best.value.Epoch != drover.Epoch(p.rev) {
			continue
		}
		for key := range of {
			if t.items[key].rev != best.rev {
				keys = append(keys, key)
			}
		}
	}
	slices.Sort(keys)
	return keys
}
