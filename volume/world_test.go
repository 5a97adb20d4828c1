package volume

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"drover"
	"drover/internal/fault"
	"drover/nbd"
)

// world is two hosts with volumes that are used, split, forked, resized, moved, deleted, killed and cut off from power at random, held
// against byte slices.
type world struct {
	t      *testing.T
	r      *rand.Rand
	hosts  [2]*worldHost
	vols   []*worldVolume
	frozen []*worldFrozen
	made   int
	step   int
	did    map[string]int
}

type worldHost struct {
	*processHost
	disk *powerDisk // nil: a power cut loses what is on tmpfs only
}

// worldVolume is a volume with what it must hold.
type worldVolume struct {
	disk  drover.DiskID
	id    drover.LayerID
	at    int
	epoch drover.Epoch
	conn  *nbd.Client
	model []byte
	hist  *history // what a power cut may leave
	// from is what it is filled from; nil when nothing is needed of it any more.
	from *worldFrozen
}

// worldFrozen is a layer that never changes again.
type worldFrozen struct {
	id      drover.LayerID
	at      int
	content []byte
	// uses counts the volumes that are filled from it, peers the exports. old: it is what a move left, and goes with it.
	uses  int
	peers []drover.HostID
	old   bool
}

const worldSize = mib

func newWorld(t *testing.T, seed uint64, cuts bool) *world {
	w := &world{t: t, r: rand.New(rand.NewPCG(seed, 21)), did: map[string]int{}}
	ca := newCA(t)
	for i := range w.hosts {
		h := prepareHost(t, ca, drover.HostID(fmt.Sprintf("h%d", i)))
		h.cfg.ParentWait = 20 * time.Second
		w.hosts[i] = &worldHost{}
		if cuts {
			w.hosts[i].disk = newPowerDisk(t)
			h.cfg.Dir = filepath.Join(w.hosts[i].disk.dir, "pool")
		}
		w.hosts[i].processHost = newProcessHost(t, h)
		w.hosts[i].start()
	}
	w.create()
	return w
}

func (w *world) name(kind string) string { w.made++; return fmt.Sprintf("%s%d", kind, w.made) }

// order does something that may be repeated, with a crash of the host's daemon at a random place in half of the cases.
func (w *world) order(at int, do func(ctx context.Context) error) {
	w.t.Helper()
	h := w.hosts[at]
	points := FaultPoints()
	point := points[w.r.IntN(len(points))]
	if w.r.IntN(2) == 0 {
		noErr(w.t, fault.Arm(h.faults, point, "process"))
		defer w.disarm(at, point, h.gone)
	}
	for try := 0; ; try++ {
		ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
		err := do(ctx)
		cancel()
		if err == nil {
			return
		}
		select {
		case <-h.gone:
		case <-time.After(time.Second):
			w.t.Fatalf("step %d: %v", w.step, err)
		}
		if try == 3 {
			w.t.Fatalf("step %d: still failing after crashes: %v", w.step, err)
		}
		w.revive(at)
	}
}

// disarm makes sure that a fault does not strike later. gone is closed when the process has ended that was there when it was armed.
func (w *world) disarm(at int, point string, gone <-chan struct{}) {
	h := w.hosts[at]
	if err := os.Remove(filepath.Join(h.faults, point)); err == nil {
		return
	}
	<-gone
	w.did["crash"]++
	w.revive(at)
}

// revive starts a host's daemon if it does not run, and connects its guests.
func (w *world) revive(at int) {
	h := w.hosts[at]
	select {
	case <-h.gone:
		h.start()
	default:
	}
	for _, v := range w.vols {
		if v.at == at && v.conn != nil {
			w.connect(v)
		}
	}
}

func (w *world) connect(v *worldVolume) {
	if v.conn != nil {
		v.conn.Close()
	}
	v.conn = must[*nbd.Client](w.t)(w.hosts[v.at].tryDial(exportName(v.id, v.epoch)))
}

func (w *world) open(v *worldVolume) {
	w.order(v.at, func(ctx context.Context) error { _, err := w.hosts[v.at].Open(ctx, v.id, v.epoch); return err })
	w.connect(v)
	if !slices.Contains(w.vols, v) {
		w.vols = append(w.vols, v)
	}
}

func (w *world) create() {
	v := &worldVolume{at: w.r.IntN(2), epoch: 1, model: make([]byte, worldSize), hist: newHistory(make([]byte, worldSize))}
	v.disk = drover.DiskID(w.name("vol"))
	v.id = drover.LayerID(v.disk)
	w.order(v.at, func(ctx context.Context) error {
		_, err := w.hosts[v.at].CreateLayer(ctx, drover.LayerSpec{ID: v.id, Disk: v.disk, Size: drover.Bytes(worldSize)})
		return err
	})
	w.open(v)
}

// change writes, discards or zeroes.
func (w *world) change(v *worldVolume, off int64, p []byte, do func(context.Context) error) {
	v.hist.write(off, p)
	copy(v.model[off:], p)
	w.order(v.at, do)
}

// guest does what a guest does.
func (w *world) guest(v *worldVolume) {
	size := int64(len(v.model))
	n := 1 + w.r.Int64N(100<<10)
	off := w.r.Int64N(size - n)
	if w.r.IntN(2) == 0 {
		off = off / blockSize * blockSize
		n = min((n+blockSize-1)/blockSize*blockSize, size-off)
	}
	switch k := w.r.IntN(20); {
	case k < 8:
		p := pattern(w.r.Uint64(), n)
		w.change(v, off, p, func(ctx context.Context) error { return v.conn.WriteAt(ctx, p, off, false) })
	case k < 11:
		w.change(v, off, make([]byte, n), func(ctx context.Context) error { return v.conn.Discard(ctx, off, n, false) })
	case k < 12:
		w.change(v, off, make([]byte, n), func(ctx context.Context) error { return v.conn.Zero(ctx, off, n, true, false) })
	case k < 15:
		w.order(v.at, func(ctx context.Context) error { return v.conn.Flush(ctx) })
		v.hist.flushed()
	default:
		got := make([]byte, n)
		w.order(v.at, func(ctx context.Context) error { return v.conn.ReadAt(ctx, got, off) })
		if !bytes.Equal(got, v.model[off:off+n]) {
			w.t.Fatalf("step %d: a read of %d bytes at %d of %s is wrong", w.step, n, off, v.id)
		}
	}
}

// read reads everything.
func (w *world) read(at int, name string, size int) []byte {
	got := make([]byte, size)
	w.order(at, func(ctx context.Context) error {
		c, err := w.hosts[at].tryDial(name)
		if err != nil {
			return err
		}
		defer c.Close()
		for off := 0; off < size; off += int(mib) / 2 {
			if err := c.ReadAt(ctx, got[off:min(size, off+int(mib)/2)], int64(off)); err != nil {
				return err
			}
		}
		return nil
	})
	return got
}

func (w *world) checkFrozen(f *worldFrozen) {
	if !bytes.Equal(w.read(f.at, string(f.id), len(f.content)), f.content) {
		w.t.Fatalf("step %d: the frozen layer %s holds something else than its moment", w.step, f.id)
	}
}

func (w *world) check(v *worldVolume) {
	if !bytes.Equal(w.read(v.at, string(v.id), len(v.model)), v.model) {
		w.t.Fatalf("step %d: %s holds something else than was written", w.step, v.id)
	}
}

// powerCut cuts a host off. Volumes then hold what their histories allow, frozen layers their moments.
func (w *world) powerCut(at int) {
	h := w.hosts[at]
	h.powerCut()
	if h.disk != nil {
		h.disk.cut()
	}
	h.start()
	for _, v := range w.vols {
		if v.at != at {
			continue
		}
		w.connect(v)
		got := w.read(at, string(v.id), len(v.model))
		if err := v.hist.allows(got); err != nil {
			w.t.Fatalf("step %d: %s after a power cut: %v", w.step, v.id, err)
		}
		v.model, v.hist = got, newHistory(got)
	}
	for _, f := range w.frozen {
		if f.at == at {
			w.checkFrozen(f)
		}
	}
}

// kill ends a host's daemon without warning.
func (w *world) kill(at int) {
	w.hosts[at].kill()
	w.revive(at)
}

// run takes steps until it is told to stop, and then checks and removes everything.
func (w *world) run(goOn func(step int) bool) {
	for w.step = 0; goOn(w.step); w.step++ {
		v := w.vols[w.r.IntN(len(w.vols))]
		name, do := w.choose(v)
		w.did[name]++
		do()
	}
	for _, v := range w.vols {
		w.settle(v)
		w.check(v)
	}
	for _, f := range w.frozen {
		w.checkFrozen(f)
	}
	for len(w.vols) > 0 {
		w.destroy(w.vols[0])
	}
	for len(w.frozen) > 0 {
		w.giveUp(w.frozen[0])
	}
	for _, h := range w.hosts {
		eventually(w.t, func() error {
			all, err := h.Layers(w.t.Context())
			if err == nil && len(all) > 0 {
				err = fmt.Errorf("layers are left: %+v", all)
			}
			return err
		})
		h.emptied()
		h.tidy()
	}
	w.t.Logf("%d steps: %v", w.step, w.did)
}

// choose picks something to do with a volume or its host.
func (w *world) choose(v *worldVolume) (string, func()) {
	switch k := w.r.IntN(100); {
	case k < 70:
		return "guest", func() { w.guest(v) }
	case k < 75 && len(w.frozen) < 8:
		return "split", func() { w.split(v) }
	case k < 79 && len(w.frozen) > 0:
		return "give up", func() { w.giveUp(w.frozen[w.r.IntN(len(w.frozen))]) }
	case k < 82 && len(w.frozen) > 0 && len(w.vols) < 4:
		return "fork", func() { w.fork(w.frozen[w.r.IntN(len(w.frozen))]) }
	case k < 84 && int64(len(v.model)) < 3*worldSize:
		return "resize", func() { w.resize(v) }
	case k < 87:
		return "hydrate", func() { w.hydrate(v) }
	case k < 90:
		return "move", func() { w.move(v) }
	case k < 94:
		return "kill", func() { w.kill(v.at) }
	case k < 96:
		return "power cut", func() { w.powerCut(v.at) }
	case k < 97 && len(w.vols) > 1:
		return "destroy", func() { w.destroy(v) }
	case k < 98 && len(w.vols) < 4:
		return "create", w.create
	case len(w.frozen) > 0:
		return "check", func() { w.checkFrozen(w.frozen[w.r.IntN(len(w.frozen))]) }
	}
	return "check", func() { w.check(v) }
}
