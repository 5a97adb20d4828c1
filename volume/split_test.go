package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"drover"
	"drover/nbd"
)

// volumeUnder is a volume that is written to, held against a byte slice.
type volumeUnder struct {
	t     *testing.T
	h     *testHost
	id    drover.LayerID
	conn  *nbd.Client
	model []byte
}

func newVolumeUnder(t *testing.T, h *testHost, id drover.LayerID, size int64) *volumeUnder {
	h.create(id, drover.Bytes(size))
	return &volumeUnder{t: t, h: h, id: id, conn: h.open(id, 1), model: make([]byte, size)}
}

func (v *volumeUnder) write(seed uint64, off, n int64) {
	v.t.Helper()
	p := pattern(seed, n)
	noErr(v.t, v.conn.WriteAt(v.t.Context(), p, off, false))
	copy(v.model[off:], p)
}

func (v *volumeUnder) discard(off, n int64) {
	v.t.Helper()
	noErr(v.t, v.conn.Discard(v.t.Context(), off, n, false))
	clear(v.model[off : off+n])
}

func (v *volumeUnder) split(into drover.LayerID) drover.LayerStatus {
	v.t.Helper()
	return must[drover.LayerStatus](v.t)(v.h.Split(v.t.Context(), v.id, into))
}

// check reads everything over the connection.
func (v *volumeUnder) check() {
	v.t.Helper()
	holds(v.t, v.conn, v.model)
}

// holds reads everything and compares.
func holds(t testing.TB, c *nbd.Client, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	for off := int64(0); off < int64(len(got)); off += mib {
		noErr(t, c.ReadAt(t.Context(), got[off:min(int64(len(got)), off+mib)], off))
	}
	if !bytes.Equal(got, want) {
		for b := 0; b < len(got); b += blockSize {
			if !bytes.Equal(got[b:b+blockSize], want[b:b+blockSize]) {
				t.Fatalf("block %d and maybe others hold something else", b/blockSize)
			}
		}
	}
}

// strays lists what the pool has in it that no layer needs.
func (h *testHost) strays() (stray []string) {
	h.tb.Helper()
	for _, dir := range []string{"new", "trash"} {
		for _, e := range must[[]os.DirEntry](h.tb)(os.ReadDir(filepath.Join(h.cfg.Dir, dir))) {
			stray = append(stray, filepath.Join(dir, e.Name()))
		}
	}
	live := map[string]bool{}
	for _, e := range must[[]os.DirEntry](h.tb)(os.ReadDir(filepath.Join(h.cfg.Dir, "layers"))) {
		dir := filepath.Join(h.cfg.Dir, "layers", e.Name())
		m := must[*meta](h.tb)(readMeta(filepath.Join(dir, metaFile), drover.LayerID(e.Name())))
		known := []string{metaFile, fileName(dataFile, m.Files), fileName(sumsName, m.Files)}
		if m.Mapped {
			known = append(known, fileName(mapName, m.Files))
			live[m.Incarnation+".map"], live[m.Incarnation+".map"+fetchedSuffix] = true, m.parent() != nil
		}
		for _, f := range must[[]os.DirEntry](h.tb)(os.ReadDir(dir)) {
			if !slices.Contains(known, f.Name()) {
				stray = append(stray, filepath.Join("layers", e.Name(), f.Name()))
			}
		}
	}
	for _, e := range must[[]os.DirEntry](h.tb)(os.ReadDir(filepath.Join(h.cfg.RunDir, "maps"))) {
		if !live[e.Name()] {
			stray = append(stray, filepath.Join("maps", e.Name()))
		}
	}
	return stray
}

// tidy fails if anything stays in the pool that no layer needs. What is being written just now has another name for a moment.
func (h *testHost) tidy() {
	h.tb.Helper()
	eventually(h.tb, func() error {
		if stray := h.strays(); len(stray) > 0 {
			return fmt.Errorf("left behind: %s", strings.Join(stray, " "))
		}
		return nil
	})
	// A file without a name takes space as long as it is open.
	eventually(h.tb, func() error {
		for _, fd := range must[[]os.DirEntry](h.tb)(os.ReadDir("/proc/self/fd")) {
			name := filepath.Join("/proc/self/fd", fd.Name())
			path, err := os.Readlink(name)
			var st syscall.Stat_t
			if err == nil && strings.HasPrefix(path, h.cfg.Dir) && syscall.Stat(name, &st) == nil && st.Nlink == 0 {
				return fmt.Errorf("open, and without a name: %s", path)
			}
		}
		return nil
	})
}

func TestSplitFreezesTheMoment(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	v := newVolumeUnder(t, h, "vol_a", 4*mib)
	v.write(1, 0, 2*mib)
	v.write(2, 3*mib+100, 5000)
	first := slices.Clone(v.model)
	s := v.split("vol_a.s1")
	if s.State != drover.LayerFrozen || s.Disk != "vol_a" || s.Allocated != 2*drover.MiB+3*blockSize-blockSize {
		t.Errorf("frozen layer: %+v", s)
	}
	v.write(3, mib-77, 300000) // over the old content, in part
	v.discard(blockSize+5, 3*blockSize)
	v.write(4, 3*mib, 10)
	v.check()
	second := slices.Clone(v.model)
	v.split("vol_a.s2")
	v.write(5, 0, 4*mib-5)
	v.check()
	holds(t, h.dial("vol_a.s1"), first)
	holds(t, h.dial("vol_a.s2"), second)
	if again := v.split("vol_a.s2"); again.ID != "vol_a.s2" {
		t.Errorf("asked again: %+v", again)
	}
	h.tidy()
	h.halt()
	h.start()
	v.conn = h.dial("vol_a@1")
	v.check()
	holds(t, h.dial("vol_a.s1"), first)
	holds(t, h.dial("vol_a.s2"), second)
	if st := must[drover.LayerStatus](t)(h.Layer(t.Context(), "vol_a")); st.Base != "vol_a.s2" || st.Writer != 1 {
		t.Errorf("the layer after a restart: %+v", st)
	}
	h.tidy()
}

func TestSplitRefusals(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	ctx := t.Context()
	h.create("vol_a", drover.MiB)
	h.create("vol_b", drover.MiB)
	for _, c := range []struct {
		id, into drover.LayerID
		code     drover.Code
	}{{"vol_x", "s", drover.NotFound}, {"vol_a", "vol_b", drover.Exists}, {"vol_a", "vol_a", drover.Invalid}, {"vol_a", "a/b", drover.Invalid}} {
		_, err := h.Split(ctx, c.id, c.into)
		wantCode(t, err, c.code)
	}
	must[drover.LayerStatus](t)(h.Split(ctx, "vol_a", "vol_a.s1"))
	_, err := h.Split(ctx, "vol_b", "vol_a.s1")
	wantCode(t, err, drover.Exists)
	_, err = h.Split(ctx, "vol_a.s1", "vol_a.s2")
	wantCode(t, err, drover.Precondition)
	wantCode(t, h.Thaw(ctx, "vol_a.s1"), drover.Precondition)
	_, err = h.Open(ctx, "vol_a.s1", 9)
	wantCode(t, err, drover.Precondition)
	h2 := newHost(t, h.ca, "h2")
	h.export("vol_b", "h2")
	h2.clone("vol_b.m", &drover.Export{Disk: "vol_b", Layer: "vol_b", Size: drover.MiB, Host: "h1", Address: h.cfg.Listen, Name: "vol_b"}, "")
	_, err = h2.Split(ctx, "vol_b.m", "vol_b.s")
	wantCode(t, err, drover.Precondition) // its parent may still change
	for i := range maxChain - 1 {
		must[drover.LayerStatus](t)(h.Split(ctx, "vol_a", drover.LayerID(fmt.Sprintf("vol_a.t%d", i))))
	}
	_, err = h.Split(ctx, "vol_a", "vol_a.last")
	wantCode(t, err, drover.Precondition)
	h.tidy()
}

// Writers see a pause, and nothing else: each write is wholly before the moment or wholly after it.
func TestSplitUnderWritersIsOneMoment(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	const writers, blocks = 4, 64
	h.create("vol_a", writers*blocks*blockSize)
	a := must[drover.Attachment](t)(h.Open(t.Context(), "vol_a", 1))
	c := h.dial(a.Export)
	stop, cancel := context.WithCancel(t.Context())
	var acked [writers]atomic.Int64
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := int64(1); stop.Err() == nil; i++ { // the i-th write goes to block i modulo blocks, and is full of i
				off := (int64(w)*blocks + i%blocks) * blockSize
				if err := c.WriteAt(t.Context(), bytes.Repeat([]byte{byte(i), byte(i >> 8)}, blockSize/2), off, i%50 == 0); err != nil {
					t.Errorf("write %d: %v", i, err)
					return
				}
				acked[w].Store(i)
			}
		})
	}
	for n := range 6 {
		eventually(t, func() error {
			if acked[0].Load() < int64(n*100+1) {
				return errors.New("the writers have not begun")
			}
			return nil
		})
		var before [writers]int64
		for w := range writers {
			before[w] = acked[w].Load()
		}
		id := drover.LayerID(fmt.Sprintf("vol_a.s%d", n))
		must[drover.LayerStatus](t)(h.Split(t.Context(), "vol_a", id))
		frozen := h.dial(string(id))
		got := make([]byte, writers*blocks*blockSize)
		noErr(t, frozen.ReadAt(t.Context(), got, 0))
		for w := range writers {
			checkMoment(t, got[w*blocks*blockSize:(w+1)*blocks*blockSize], before[w], acked[w].Load())
		}
	}
	cancel()
	group.Wait()
	h.tidy()
}

// checkMoment checks that a writer's part of a frozen layer is what its first n writes left, for an n between the bounds.
func checkMoment(t *testing.T, part []byte, least, most int64) {
	t.Helper()
	blocks := int64(len(part) / blockSize)
	newest := int64(0)
	value := func(b int64) int64 { return int64(part[b*blockSize]) | int64(part[b*blockSize+1])<<8 }
	for b := range blocks {
		newest = max(newest, value(b))
		block := part[b*blockSize : (b+1)*blockSize]
		if !bytes.Equal(block[2:], block[:blockSize-2]) {
			t.Fatalf("block %d is a mix of two writes", b)
		}
	}
	if newest < least || newest > most+1 {
		t.Fatalf("the newest write is %d, not between %d and %d", newest, least, most)
	}
	for i := max(1, newest-blocks+1); i <= newest; i++ {
		if value(i%blocks) != i {
			t.Fatalf("write %d is in the frozen layer, write %d is not", newest, i)
		}
	}
}

// A layer whose hydration is under way is split like any other: the frozen one is filled on, for both.
func TestSplitOfALayerThatHydrates(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	v := newVolumeUnder(t, h1, "vol_a", 8*mib)
	v.write(1, mib, 6*mib)
	e := h1.export("vol_a", "h2")
	h2.clone("vol_a.m", e, "")
	v.h, v.id, v.conn = h2, "vol_a.m", h2.open("vol_a.m", 2)
	v.write(2, 2*mib, 100000)
	noErr(t, h2.Hydrate(t.Context(), "vol_a.m", drover.MiB)) // too slow to end by itself
	frozen := slices.Clone(v.model)
	v.split("vol_a.s")
	v.write(3, 2*mib+50000, 100000)
	v.check()
	holds(t, h2.dial("vol_a.s"), frozen)
	h2.halt()
	h2.start()
	v.conn = h2.dial("vol_a.m@2")
	if s := must[drover.LayerStatus](t)(h2.Layer(t.Context(), "vol_a.m")); s.Hydration == nil {
		t.Errorf("the layer does not tell of the hydration under it: %+v", s)
	}
	must[drover.LayerStatus](t)(h2.CreateLayer(t.Context(), drover.LayerSpec{ID: "vol_a.m", Disk: e.Disk, Size: e.Size, Parent: e})) // asked again
	noErr(t, h2.CheckParent(t.Context(), "vol_a.m"))
	noErr(t, h2.Hydrate(t.Context(), "vol_a.m", 0))
	h2.hydrated("vol_a.m")
	h2.hydrated("vol_a.s")
	h1.halt()
	v.check()
	holds(t, h2.dial("vol_a.s"), frozen)
	h2.tidy()
}

// Over an image base a frozen layer belongs to the volume, the image does not: what another host reads is the same.
func TestSplitRootDiskMovesWhole(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	image := pattern(9, 2*mib)
	for _, h := range []*testHost{h1, h2} {
		path := filepath.Join(h.cfg.Dir, "image")
		noErr(t, os.WriteFile(path, image, 0o600))
		must[drover.LayerStatus](t)(h.ImportImage(t.Context(), "image", path))
	}
	spec := drover.LayerSpec{ID: "root_1", Disk: "root_1", Size: 4 * drover.MiB, Base: "image"}
	must[drover.LayerStatus](t)(h1.CreateLayer(t.Context(), spec))
	v := &volumeUnder{t: t, h: h1, id: "root_1", conn: h1.open("root_1", 1), model: append(slices.Clone(image), make([]byte, 2*mib)...)}
	v.write(1, 100000, 50000)
	v.write(2, 3*mib, 5*blockSize)
	v.split("root_1.s")
	v.write(3, 110000, 50000)
	v.discard(3*mib, 2*blockSize)
	v.check()
	must[drover.LayerStatus](t)(h1.CreateLayer(t.Context(), spec)) // asked again
	e := h1.export("root_1", "h2")
	h2.clone("root_1.m", e, "image")
	v.conn = h2.open("root_1.m", 2)
	v.check()
	noErr(t, h2.Hydrate(t.Context(), "root_1.m", 0))
	s := h2.hydrated("root_1.m")
	if s.Hydration.Total != e.Allocated || s.Hydration.Total > 200000 {
		t.Errorf("%d bytes of the volume's own were fetched, %d were told of", s.Hydration.Total, e.Allocated)
	}
	h1.halt()
	v.check()
}
