package volume

import (
	"bytes"
	"context"
	"flag"
	"slices"
	"testing"
	"time"

	"drover"
)

// soak is how long TestSoak goes on; 0 leaves it out.
var soak = flag.Duration("soak", 0, "how long to go on with random faults")

func (w *world) split(v *worldVolume) {
	f := &worldFrozen{id: drover.LayerID(w.name(string(v.disk) + ".s")), at: v.at, content: bytes.Clone(v.model)}
	w.order(v.at, func(ctx context.Context) error { _, err := w.hosts[v.at].Split(ctx, v.id, f.id); return err })
	v.hist.flushed() // it is in the frozen layer, which is durable
	w.frozen = append(w.frozen, f)
}

// giveUp deletes a frozen layer unless something is filled from it.
func (w *world) giveUp(f *worldFrozen) {
	if f.uses > 0 {
		if err := w.hosts[f.at].Delete(w.t.Context(), f.id); err != nil {
			wantCode(w.t, err, drover.Precondition)
			return
		} // what was filled from it is complete by now
		f.old = false
	}
	for _, peer := range f.peers {
		w.order(f.at, func(ctx context.Context) error { return w.hosts[f.at].Unexport(ctx, f.id, peer) })
	}
	w.order(f.at, func(ctx context.Context) error { return w.hosts[f.at].Delete(ctx, f.id) })
	w.frozen = slices.DeleteFunc(w.frozen, func(o *worldFrozen) bool { return o == f })
}

// source prepares a frozen layer for being read by a host, and returns what a layer over it needs.
func (w *world) source(f *worldFrozen, disk drover.DiskID, to int) *drover.Export {
	e := &drover.Export{Disk: disk, Layer: f.id, Size: drover.Bytes(len(f.content)), Host: w.hosts[f.at].id, Name: string(f.id),
		Address: w.hosts[f.at].cfg.Listen}
	if peer := w.hosts[to].id; to != f.at {
		w.order(f.at, func(ctx context.Context) error { return w.hosts[f.at].Export(ctx, f.id, peer) })
		f.peers = append(slices.DeleteFunc(f.peers, func(p drover.HostID) bool { return p == peer }), peer)
	}
	f.uses++
	return e
}

// over makes a layer that is filled from a frozen one, and opens it.
func (w *world) over(v *worldVolume, f *worldFrozen) {
	e := w.source(f, v.disk, v.at)
	v.from = f
	spec := drover.LayerSpec{ID: v.id, Disk: v.disk, Size: drover.Bytes(len(v.model)), Parent: e}
	w.order(v.at, func(ctx context.Context) error { _, err := w.hosts[v.at].CreateLayer(ctx, spec); return err })
	w.open(v)
}

func (w *world) fork(f *worldFrozen) {
	more := make([]byte, w.r.Int64N(3)*10*blockSize)
	v := &worldVolume{disk: drover.DiskID(w.name("vol")), at: w.r.IntN(2), epoch: 1, model: append(bytes.Clone(f.content), more...)}
	v.id, v.hist = drover.LayerID(v.disk), newHistory(v.model)
	w.over(v, f)
}

func (w *world) resize(v *worldVolume) {
	more := make([]byte, (1+w.r.Int64N(20))*blockSize)
	w.order(v.at, func(ctx context.Context) error {
		return w.hosts[v.at].Resize(ctx, v.id, drover.Bytes(len(v.model)+len(more)))
	})
	v.model = append(v.model, more...)
	v.hist.states = append(v.hist.states, newHistory(more).states...)
	w.connect(v)
}

// hydrate begins the copy, with or without a limit.
func (w *world) hydrate(v *worldVolume) {
	limit := drover.Bytes(w.r.IntN(3)) * drover.MiB
	w.order(v.at, func(ctx context.Context) error { return w.hosts[v.at].Hydrate(ctx, v.id, limit) })
}

// settle waits until the volume is filled.
func (w *world) settle(v *worldVolume) {
	if v.from == nil {
		return
	}
	w.order(v.at, func(ctx context.Context) error { return w.hosts[v.at].Hydrate(ctx, v.id, 0) })
	w.order(v.at, func(ctx context.Context) error {
		return await(ctx, func() (bool, error) {
			s, err := w.hosts[v.at].Layer(ctx, v.id)
			return err == nil && s.Hydration != nil && s.Hydration.Done, err
		})
	})
	w.released(v)
}

// released lets go of what the volume was filled from.
func (w *world) released(v *worldVolume) {
	f := v.from
	v.from = nil
	if f == nil {
		return
	}
	if f.uses--; f.uses == 0 && f.old {
		w.giveUp(f)
	}
}

// move takes the volume to the other host.
func (w *world) move(v *worldVolume) {
	w.settle(v)
	old := &worldFrozen{id: v.id, at: v.at, content: bytes.Clone(v.model), old: true}
	v.conn.Close()
	v.conn = nil
	w.order(v.at, func(ctx context.Context) error { _, err := w.hosts[v.at].Freeze(ctx, v.id); return err })
	w.frozen = append(w.frozen, old)
	v.id, v.at, v.epoch = drover.LayerID(w.name(string(v.disk)+".m")), 1-v.at, v.epoch+1
	v.hist = newHistory(v.model)
	w.vols = slices.DeleteFunc(w.vols, func(o *worldVolume) bool { return o == v })
	w.over(v, old)
}

// destroy closes and wipes a volume.
func (w *world) destroy(v *worldVolume) {
	v.conn.Close()
	v.conn = nil
	w.vols = slices.DeleteFunc(w.vols, func(o *worldVolume) bool { return o == v })
	w.order(v.at, func(ctx context.Context) error { return w.hosts[v.at].Close(ctx, v.id) })
	// A frozen layer of it may still hydrate; what it is filled from is needed on then.
	if f := v.from; f != nil {
		w.settle(v)
	}
	w.order(v.at, func(ctx context.Context) error { return w.hosts[v.at].Wipe(ctx, v.id) })
}

// TestVolumesAgainstAModel does everything that there is to do with volumes, with daemons killed in between and in the middle.
func TestVolumesAgainstAModel(t *testing.T) {
	const seed = 1
	t.Logf("seed %d", seed)
	newWorld(t, seed, false).run(func(step int) bool { return step < 120 })
}

// TestVolumesAgainstAModelWithPowerCuts does the same on disks that lose what was not synced.
func TestVolumesAgainstAModelWithPowerCuts(t *testing.T) {
	const seed = 2
	t.Logf("seed %d", seed)
	newWorld(t, seed, true).run(func(step int) bool { return step < 120 })
}

// TestSoak goes on with new seeds until its time is over.
func TestSoak(t *testing.T) {
	if *soak == 0 {
		t.Skip("takes long: 'make soak' runs it")
	}
	for end := time.Now().Add(*soak); time.Now().Before(end); {
		seed := uint64(time.Now().UnixNano())
		t.Run("volumes", func(t *testing.T) {
			t.Logf("seed %d", seed)
			newWorld(t, seed, true).run(func(step int) bool { return step < 2000 && time.Now().Before(end) })
		})
		for _, host := range []bool{true, false} {
			for k := 0; crashChainAt(t, seed, k, host); k++ {
			}
		}
		if t.Failed() {
			return
		}
	}
}
