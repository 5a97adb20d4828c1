package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"drover"
	"drover/internal/snapstore"
	"drover/internal/testkit/storetest"
	"drover/manifest"
)

// storeHost is a host with an object store in memory.
func storeHost(t *testing.T) (*testHost, *storetest.Memory) {
	t.Helper()
	store := storetest.NewMemory()
	h := prepareHost(t, newCA(t), "h1")
	h.cfg.Objects = store
	h.start()
	t.Cleanup(func() {
		if h.stop != nil {
			h.halt()
		}
	})
	return h, store
}

// uploadDone begins an upload and waits for its end.
func (h *testHost) uploadDone(layer drover.LayerID, snapshot drover.SnapshotID) drover.LayerStatus {
	h.tb.Helper()
	src := drover.SnapshotSource{Snapshot: snapshot, Volume: drover.VolumeID(diskOf(layer))}
	must[drover.LayerStatus](h.tb)(h.Upload(h.tb.Context(), layer, src))
	return h.uploaded(layer)
}

func (h *testHost) uploaded(layer drover.LayerID) (s drover.LayerStatus) {
	h.tb.Helper()
	eventually(h.tb, func() (err error) {
		if s, err = h.Layer(h.tb.Context(), layer); err == nil && (s.Upload == nil || !s.Upload.Done) {
			err = fmt.Errorf("not uploaded: %+v", s.Upload)
		}
		return err
	})
	return s
}

// sourceOf is what a restore of an uploaded layer is asked for with.
func sourceOf(s drover.LayerStatus) *drover.SnapshotSource {
	return &drover.SnapshotSource{Snapshot: s.Upload.Snapshot, Volume: drover.VolumeID(s.Disk), Manifest: s.Upload.Manifest, Size: s.Size, Data: s.Upload.Total}
}

// restore makes a layer of a snapshot, and connects to it.
func (h *testHost) restore(id drover.LayerID, src *drover.SnapshotSource, size drover.Bytes) {
	h.tb.Helper()
	must[drover.LayerStatus](h.tb)(h.CreateLayer(h.tb.Context(), drover.LayerSpec{ID: id, Disk: diskOf(id), Size: size, Snapshot: src, Cipher: h.cipher}))
}

func storeOf(t testing.TB, objects drover.ObjectStore, volume drover.VolumeID) *snapstore.Store {
	t.Helper()
	codec := must[*manifest.Codec](t)(manifest.NewCodec(1))
	return must[*snapstore.Store](t)(snapstore.New(objects, volume, codec))
}

// Thirty days of one volume: a snapshot a day, random changes between them, the retention rule, and whatever is kept can be restored.
func TestAMonthOfSnapshots(t *testing.T) {
	h, objects := storeHost(t)
	ctx := t.Context()
	const size, days, kept = 10 * mib, 30, 4
	v := newVolumeUnder(t, h, "vol_a", size)
	r := rand.New(rand.NewPCG(42, 1))
	type snapshot struct {
		src     *drover.SnapshotSource
		content []byte
	}
	var all []snapshot
	for day := range days {
		for range 5 {
			off := r.Int64N(size - 100_000)
			switch n := 1 + r.Int64N(100_000); r.IntN(4) {
			case 0:
				v.discard(off, n)
			default:
				v.write(r.Uint64(), off, n)
			}
		}
		layer := drover.LayerID(fmt.Sprintf("vol_a.s%d", day))
		v.split(layer)
		s := h.uploadDone(layer, drover.SnapshotID(fmt.Sprintf("vs_%d", day)))
		all = append(all, snapshot{sourceOf(s), slices.Clone(v.model)})
		if day%7 == 6 { // a snapshot without a change costs its manifest
			again := drover.LayerID(fmt.Sprintf("vol_a.again%d", day))
			objects.Count()
			v.split(again)
			s := h.uploadDone(again, drover.SnapshotID(fmt.Sprintf("vs_again%d", day)))
			if c := objects.Count(); c.Puts != 1 || s.Upload.Stored != c.PutBytes || c.PutBytes > 1000 {
				t.Errorf("an unchanged snapshot was stored with %+v", c)
			}
			all = append(all, snapshot{sourceOf(s), slices.Clone(v.model)})
		}
		if day%4 != 0 { // most often the frozen layer is given up at once
			noErr(t, h.Delete(ctx, layer))
		}
		if len(all) <= kept {
			continue
		}
		// The retention rule, and now and then one in the middle.
		drop := len(all) - kept - 1
		if r.IntN(3) == 0 {
			drop = r.IntN(len(all))
		}
		all = slices.Delete(all, drop, drop+1)
		var keep []drover.SnapshotID
		for _, s := range all {
			keep = append(keep, s.src.Snapshot)
		}
		must[snapstore.Swept](t)(storeOf(t, objects, "vol_a").Sweep(ctx, keep))
	}
	if c := objects.Count(); c.Twice != 0 {
		t.Errorf("%d objects were stored twice", c.Twice)
	}
	for i, s := range all {
		id := drover.LayerID(fmt.Sprintf("vol_r%d", i))
		h.restore(id, s.src, s.src.Size+drover.Bytes(i%2)*drover.MiB)
		noErr(t, h.CheckParent(ctx, id))
		f := &volumeUnder{t: t, h: h, id: id, conn: h.open(id, 1), model: append(slices.Clone(s.content), make([]byte, int64(i%2)*mib)...)}
		if i%2 == 0 {
			f.check() // before it is filled
		}
		f.write(uint64(i), mib-10, 100_000)
		noErr(t, h.Hydrate(ctx, id, 0))
		if st := h.hydrated(id); st.Hydration.Copied > st.Hydration.Total+drover.MiB {
			t.Errorf("%s: %+v", id, st.Hydration)
		}
		f.check()
	}
	// Nothing is left when nothing is kept.
	must[snapstore.Swept](t)(storeOf(t, objects, "vol_a").Sweep(ctx, nil))
	if names := objects.Names(); len(names) != 0 {
		t.Errorf("%d objects are left: %v", len(names), names[:min(len(names), 5)])
	}
}

// What changed since the snapshot before is known by the map where the layer below is the one that it was made of.
func TestUploadReadsOnlyWhatChanged(t *testing.T) {
	h, objects := storeHost(t)
	v := newVolumeUnder(t, h, "vol_a", 16*mib)
	v.write(1, 0, 16*mib)
	v.split("vol_a.s1")
	h.uploadDone("vol_a.s1", "vs_1")
	v.write(2, 5*mib+100, 10)
	v.discard(9*mib, mib)
	v.split("vol_a.s2")
	objects.Count()
	p := h.uploadDone("vol_a.s2", "vs_2")
	if c := objects.Count(); c.Puts != 3 { // the chunk, the page, the manifest
		t.Errorf("two changes were stored with %+v", c)
	}
	m, _, err := storeOf(t, objects, "vol_a").Manifest(t.Context(), "vs_2", manifest.Hash{})
	noErr(t, err)
	if m.Parent != "vs_1" || m.Chunks != 15 || m.Size != 16*drover.MiB {
		t.Errorf("the manifest is %+v", m)
	}
	h.restore("vol_r", sourceOf(p), 16*drover.MiB)
	holds(t, h.dial("vol_r"), v.model)
}

func TestUploadRefusals(t *testing.T) {
	h, _ := storeHost(t)
	ctx := t.Context()
	h.create("vol_a", drover.MiB)
	src := drover.SnapshotSource{Snapshot: "vs_1", Volume: "vol_a"}
	upload := func(id drover.LayerID, src drover.SnapshotSource, code drover.Code) {
		t.Helper()
		_, err := h.Upload(ctx, id, src)
		wantCode(t, err, code)
	}
	upload("vol_a", src, drover.Precondition)
	upload("vol_x", src, drover.NotFound)
	must[drover.LayerStatus](t)(h.Split(ctx, "vol_a", "vol_a.s"))
	upload("vol_a.s", drover.SnapshotSource{Volume: "vol_a"}, drover.Invalid)
	upload("vol_a.s", drover.SnapshotSource{Snapshot: "../x", Volume: "vol_a"}, drover.Invalid)
	upload("vol_a.s", drover.SnapshotSource{Snapshot: "vs_1"}, drover.Invalid)
	s := h.uploadDone("vol_a.s", "vs_1")
	h.uploadDone("vol_a.s", "vs_1") // again
	upload("vol_a.s", drover.SnapshotSource{Snapshot: "vs_1", Volume: "vol_b"}, drover.Conflict)

	good := *sourceOf(s)
	for name, spoil := range map[string]func(*drover.LayerSpec){
		"too small":   func(s *drover.LayerSpec) { s.Size = drover.MiB / 2 },
		"no manifest": func(s *drover.LayerSpec) { s.Snapshot.Manifest = "" },
		"no volume":   func(s *drover.LayerSpec) { s.Snapshot.Volume = "" },
		"two sources": func(s *drover.LayerSpec) {
			s.Parent = &drover.Export{Host: "h2", Address: "a", Name: "n", Size: drover.MiB}
		},
		"odd snapshot": func(s *drover.LayerSpec) { s.Snapshot.Snapshot = "a/b" },
	} {
		source := good
		spec := drover.LayerSpec{ID: "vol_r", Disk: "vol_r", Size: drover.MiB, Snapshot: &source}
		spoil(&spec)
		if _, err := h.CreateLayer(ctx, spec); !drover.Is(err, drover.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := newHost(t, newCA(t), "h2") // without a store
	other.create("vol_a", drover.MiB)
	must[drover.LayerStatus](t)(other.Freeze(ctx, "vol_a"))
	_, err := other.Upload(ctx, "vol_a", src)
	wantCode(t, err, drover.Precondition)
	_, err = other.CreateLayer(ctx, drover.LayerSpec{ID: "vol_r", Disk: "vol_r", Size: drover.MiB, Snapshot: &good})
	wantCode(t, err, drover.Precondition)
}

var errDown = drover.Errorf(drover.Unavailable, "connection refused")

// A store that fails, refuses and forgets delays an upload, says why, and what is stored in the end is whole.
func TestUploadSurvivesABadStore(t *testing.T) {
	h, objects := storeHost(t)
	v := newVolumeUnder(t, h, "vol_a", 12*mib)
	v.write(1, 0, 12*mib)
	v.split("vol_a.s")
	objects.Change(func(k *storetest.Knobs) { k.Fail = func(string, string) error { return errDown } })
	must[drover.LayerStatus](t)(h.Upload(t.Context(), "vol_a.s", drover.SnapshotSource{Snapshot: "vs_1", Volume: "vol_a"}))
	eventually(t, func() error {
		s := must[drover.LayerStatus](t)(h.Layer(t.Context(), "vol_a.s"))
		if !strings.Contains(s.Upload.Waiting, "connection refused") || s.Upload.Done {
			return fmt.Errorf("the status is %+v", s.Upload)
		}
		return nil
	})
	r, mu := rand.New(rand.NewPCG(3, 3)), sync.Mutex{}
	forgotten := 0
	objects.Change(func(k *storetest.Knobs) {
		k.Fail = func(op, name string) error {
			mu.Lock()
			defer mu.Unlock()
			if r.IntN(16) == 0 {
				return []error{errDown, drover.Errorf(drover.Denied, "wrong key"), drover.Errorf(drover.Exhausted, "full")}[r.IntN(3)]
			}
			return nil
		}
		k.Forget = func(name string) bool {
			mu.Lock()
			defer mu.Unlock()
			if forgotten < 6 && r.IntN(2) == 0 {
				forgotten++
				return true
			}
			return false
		}
	})
	s := h.uploaded("vol_a.s")
	objects.Change(func(k *storetest.Knobs) { *k = storetest.Knobs{} })
	if s.Upload.Waiting != "" {
		t.Errorf("it is done and waits: %s", s.Upload.Waiting)
	}
	h.restore("vol_r", sourceOf(s), 12*drover.MiB)
	holds(t, h.dial("vol_r"), v.model)
}

// Bits that flip on the way are fetched again; what is wrong in the store is an error that names where, and never passed on.
func TestRestoreNeverPassesOnWhatIsDamaged(t *testing.T) {
	h, objects := storeHost(t)
	v := newVolumeUnder(t, h, "vol_a", 8*mib)
	v.write(1, 0, 8*mib)
	v.split("vol_a.s")
	s := h.uploadDone("vol_a.s", "vs_1")
	flips, mu := map[string]bool{}, sync.Mutex{}
	objects.Change(func(k *storetest.Knobs) {
		k.Flip = func(name string) bool { // each object once
			mu.Lock()
			defer mu.Unlock()
			was := flips[name]
			flips[name] = true
			return !was
		}
	})
	h.restore("vol_r", sourceOf(s), 8*drover.MiB)
	holds(t, h.dial("vol_r"), v.model)

	objects.Change(func(k *storetest.Knobs) { *k = storetest.Knobs{} })
	bad := manifest.ChunkName("vol_a", manifest.Sum(v.model[3*mib:4*mib]))
	for i, spoil := range []func(){
		func() { objects.Spoil(bad, func(b []byte) []byte { b[1000] ^= 1; return b }) },
		func() { noErr(t, objects.Delete(t.Context(), bad)) },
	} {
		spoil()
		id := drover.LayerID(fmt.Sprintf("vol_q%d", i))
		h.halt() // nothing is remembered
		h.start()
		h.restore(id, sourceOf(s), 8*drover.MiB)
		c := h.dial(string(id))
		got := make([]byte, mib)
		if err := c.ReadAt(t.Context(), got, 3*mib); !drover.Is(err, drover.Internal) {
			t.Fatalf("a damaged chunk reads as %v", err)
		}
		noErr(t, c.ReadAt(t.Context(), got, 4*mib))
		if !bytes.Equal(got, v.model[4*mib:5*mib]) {
			t.Error("the chunk beside it is wrong")
		}
		noErr(t, h.Hydrate(t.Context(), id, 0))
		eventually(t, func() error {
			w := must[drover.LayerStatus](t)(h.Layer(t.Context(), id)).Hydration.Waiting
			for _, want := range []string{"vs_1", "vol_a", "offset 3145728"} {
				if !strings.Contains(w, want) {
					return fmt.Errorf("%q does not name %s", w, want)
				}
			}
			return nil
		})
		// A snapshot that shares it does not mend it; one that stores all of it does, for those before it, too.
		next := drover.LayerID(fmt.Sprintf("vol_a.n%d", i))
		v.split(next)
		if shared := h.uploadDone(next, drover.SnapshotID(fmt.Sprintf("vs_n%d", i))); shared.Upload.Stored > 64*drover.KiB && i == 0 {
			t.Errorf("a snapshot without a change stored %d bytes", shared.Upload.Stored)
		}
		whole := drover.LayerID(fmt.Sprintf("vol_a.w%d", i))
		v.split(whole)
		must[drover.LayerStatus](t)(h.Upload(t.Context(), whole, drover.SnapshotSource{Snapshot: drover.SnapshotID(fmt.Sprintf("vs_w%d", i)), Volume: "vol_a", Full: true}))
		if full := h.uploaded(whole); full.Upload.Stored < 8*drover.MiB {
			t.Errorf("a full snapshot stored %d bytes", full.Upload.Stored)
		}
		mended := id + "_m"
		h.restore(mended, sourceOf(s), 8*drover.MiB)
		holds(t, h.dial(string(mended)), v.model)
	}
}

// A restored volume is there at once, and written, however slow the store is; a read waits for what it reads, at most ParentWait.
func TestRestoredVolumeIsUsableAtOnce(t *testing.T) {
	h, objects := storeHost(t)
	h.halt()
	h.cfg.ParentWait = 300 * time.Millisecond
	h.start()
	v := newVolumeUnder(t, h, "vol_a", 8*mib)
	v.write(1, 0, 4*mib)
	v.split("vol_a.s")
	s := h.uploadDone("vol_a.s", "vs_1")
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	defer open()
	objects.Change(func(k *storetest.Knobs) { k.Gate = func(string, string) <-chan struct{} { return gate } })
	h.restore("vol_r", sourceOf(s), 8*drover.MiB)
	c := h.open("vol_r", 1)
	want := slices.Clone(v.model)
	copy(want[mib:], pattern(9, 64<<10))
	noErr(t, c.WriteAt(t.Context(), pattern(9, 64<<10), mib, true))
	got := make([]byte, 64<<10)
	noErr(t, c.ReadAt(t.Context(), got, mib))
	if !bytes.Equal(got, pattern(9, 64<<10)) {
		t.Error("what was written reads as something else")
	}
	if err := c.ReadAt(t.Context(), got, 2*mib); !drover.Is(err, drover.Internal) {
		t.Fatalf("a read without the store: %v", err)
	}
	noErr(t, h.Hydrate(t.Context(), "vol_r", 0))
	h.halt() // and it goes on by itself
	open()
	h.start()
	h.hydrated("vol_r")
	holds(t, h.dial("vol_r"), want)
	h.halt()
	h.cfg.Objects = nil
	h.start()
	holds(t, h.dial("vol_r"), want) // nothing of the store is needed any more
}

// Many readers of one chunk fetch it once.
func TestAChunkIsFetchedOnce(t *testing.T) {
	h, objects := storeHost(t)
	v := newVolumeUnder(t, h, "vol_a", 4*mib)
	v.write(1, 0, 4*mib)
	v.split("vol_a.s")
	s := h.uploadDone("vol_a.s", "vs_1")
	h.restore("vol_r", sourceOf(s), 4*drover.MiB)
	c := h.dial("vol_r")
	objects.Count()
	var wg sync.WaitGroup
	for i := range int64(64) {
		wg.Go(func() {
			got := make([]byte, blockSize)
			off := mib + i*3*blockSize
			if err := c.ReadAt(t.Context(), got, off); err != nil || !bytes.Equal(got, v.model[off:off+blockSize]) {
				t.Errorf("block at %d: %v", off, err)
			}
		})
	}
	wg.Wait()
	if n := objects.Count().Gets; n != 3 { // the manifest, the page, the chunk
		t.Errorf("one chunk took %d reads of the store", n)
	}
}

func TestCheckParentOfASnapshot(t *testing.T) {
	h, objects := storeHost(t)
	v := newVolumeUnder(t, h, "vol_a", 2*mib)
	v.write(1, 0, mib)
	v.split("vol_a.s")
	s := h.uploadDone("vol_a.s", "vs_1")
	h.restore("vol_r", sourceOf(s), 2*drover.MiB)
	noErr(t, h.CheckParent(t.Context(), "vol_r"))
	noErr(t, objects.Delete(t.Context(), manifest.ManifestName("vol_a", "vs_1")))
	h.restore("vol_q", sourceOf(s), 2*drover.MiB)
	wantCode(t, h.CheckParent(t.Context(), "vol_q"), drover.NotFound)
	objects.Change(func(k *storetest.Knobs) { k.Fail = func(string, string) error { return errDown } })
	h.restore("vol_p", sourceOf(s), 2*drover.MiB)
	wantCode(t, h.CheckParent(t.Context(), "vol_p"), drover.Unavailable)
}

// A layer that is deleted or thawed while it is uploaded is not in the way of that.
func TestUploadEndsWithItsLayer(t *testing.T) {
	h, objects := storeHost(t)
	ctx := t.Context()
	gate := make(chan struct{})
	defer close(gate)
	objects.Change(func(k *storetest.Knobs) { k.Gate = func(string, string) <-chan struct{} { return gate } })
	h.create("vol_a", drover.MiB)
	h.create("vol_b", drover.MiB)
	for _, id := range []drover.LayerID{"vol_a", "vol_b"} {
		must[drover.LayerStatus](t)(h.Freeze(ctx, id))
		must[drover.LayerStatus](t)(h.Upload(ctx, id, drover.SnapshotSource{Snapshot: "vs_1", Volume: drover.VolumeID(id)}))
	}
	_, err := h.Upload(ctx, "vol_a", drover.SnapshotSource{Snapshot: "vs_2", Volume: "vol_a"})
	wantCode(t, err, drover.Conflict)
	noErr(t, h.Thaw(ctx, "vol_a"))
	if s := must[drover.LayerStatus](t)(h.Layer(ctx, "vol_a")); s.Upload != nil {
		t.Errorf("a thawed layer has %+v", s.Upload)
	}
	noErr(t, h.Delete(ctx, "vol_b"))
}

// A reader that gives up leaves the chunk to the others.
func TestOneReaderOfAChunkMayGiveUp(t *testing.T) {
	c := newChunkCache()
	key := chunkKey{volume: "v", hash: manifest.Sum([]byte("x"))}
	ended, cancel := context.WithCancel(t.Context())
	fetching := make(chan struct{})
	first := make(chan error, 1)
	go func() {
		first <- c.read(ended, guestClass, key, make([]byte, 1), 0, func(ctx context.Context, _ []byte) error {
			close(fetching)
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	<-fetching
	second := make(chan error, 1)
	got := make([]byte, 1)
	go func() {
		second <- c.read(t.Context(), guestClass, key, got, 7, func(_ context.Context, chunk []byte) error { chunk[7] = 9; return nil })
	}()
	cancel()
	if err := <-first; !drover.Is(err, drover.Canceled) {
		t.Error(err)
	}
	if err := <-second; err != nil || got[0] != 9 {
		t.Errorf("%v, %v", got, err)
	}
	failed := errors.New("broken")
	err := c.read(t.Context(), hydrationClass, chunkKey{volume: "w"}, got, 0, func(context.Context, []byte) error { return failed })
	if !errors.Is(err, failed) {
		t.Error(err)
	}
	for i := range byte(3 * cachedChunks) {
		noErr(t, c.read(t.Context(), guestClass, chunkKey{hash: manifest.Sum([]byte{i})}, got, 0, func(context.Context, []byte) error { return nil }))
	}
	if len(c.entries) != cachedChunks || c.idle.Len() != cachedChunks {
		t.Errorf("%d chunks are remembered", len(c.entries))
	}
}
