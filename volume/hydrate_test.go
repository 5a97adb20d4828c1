package volume

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"drover"
	"drover/nbd"
)

// simOver opens a layer in memory over a parent with data in some blocks.
func simOver(t *testing.T, blocks int64, data ...int64) *simLayer {
	t.Helper()
	parent := &memParent{data: make([]byte, blocks*blockSize)}
	for _, b := range data {
		copy(parent.data[b*blockSize:], pattern(uint64(b), blockSize))
	}
	s := newSimLayer(blocks, parent, nil)
	noErr(t, s.open(nil))
	return s
}

func TestUnreachableParentWaitsAndNeverReadsAsZeroes(t *testing.T) {
	s := simOver(t, 8, 3)
	s.over.Load().src.Load().wait = 20 * time.Millisecond
	gate, why := make(chan struct{}), "parent p at host h1 (10.0.0.1:1): connection refused"
	s.parent.blocked.Store(&gate)
	s.parent.why.Store(&why)
	got := make([]byte, blockSize)
	for _, off := range []int64{3 * blockSize, 5 * blockSize} { // even where the parent turns out to have nothing
		err := s.ReadAt(t.Context(), got, off)
		wantCode(t, err, drover.Unavailable)
		if !strings.Contains(err.Error(), why) {
			t.Errorf("the error does not say why: %v", err)
		}
	}
	wantCode(t, s.WriteAt(t.Context(), []byte("part of a block"), 3*blockSize+5, false), drover.Unavailable)
	noErr(t, s.WriteAt(t.Context(), pattern(9, blockSize), 2*blockSize, true)) // a whole block needs no parent
	noErr(t, s.ReadAt(t.Context(), got, 2*blockSize))

	ended, cancel := context.WithCancelCause(t.Context())
	s.over.Load().src.Load().wait = time.Hour
	result := make(chan error, 1)
	go func() { result <- s.ReadAt(ended, got, 3*blockSize) }()
	cancel(drover.Errorf(drover.Canceled, "the connection has ended"))
	wantCode(t, <-result, drover.Unavailable)

	go func() { result <- s.ReadAt(t.Context(), got, 3*blockSize) }()
	close(gate)
	noErr(t, <-result)
	if !bytes.Equal(got, pattern(3, blockSize)) {
		t.Error("read something else than the parent has")
	}
}

// The same with real daemons: EIO while the source is down, the right data when it is back, and the status says why.
func TestReadWaitsForTheSourceToComeBack(t *testing.T) {
	ca := newCA(t)
	h1 := newHost(t, ca, "h1")
	h2 := prepareHost(t, ca, "h2")
	h2.cfg.ParentWait = 300 * time.Millisecond
	h2.start()
	t.Cleanup(h2.halt)
	h1.create("vol_a", drover.MiB)
	noErr(t, h1.open("vol_a", 1).WriteAt(t.Context(), pattern(1, blockSize), 0, false))
	h2.clone("vol_a.m", h1.export("vol_a", "h2"), "")
	c := h2.open("vol_a.m", 2)
	noErr(t, h2.Hydrate(t.Context(), "vol_a.m", 1)) // one byte a second: it will not get far
	h1.halt()
	got := make([]byte, blockSize)
	if err := c.ReadAt(t.Context(), got, 0); !drover.Is(err, drover.Internal) {
		t.Fatalf("the read got %v, want EIO", err)
	}
	if s := must[drover.LayerStatus](t)(h2.Layer(t.Context(), "vol_a.m")); !strings.Contains(s.Hydration.Waiting, "parent vol_a at host h1") {
		t.Errorf("the status does not say why: %+v", s.Hydration)
	}
	h1.start()
	eventually(t, func() error { return c.ReadAt(t.Context(), got, 0) })
	if !bytes.Equal(got, pattern(1, blockSize)) {
		t.Error("read something else than the source has")
	}
}

func TestDiscardOfANeverHydratedBlockCopiesNothing(t *testing.T) {
	s := simOver(t, 16, 2, 3, 4, 5)
	ctx := t.Context()
	noErr(t, s.Discard(ctx, 2*blockSize, 2*blockSize, false))
	noErr(t, s.Zero(ctx, 4*blockSize, blockSize, false, false))
	got := make([]byte, 3*blockSize)
	noErr(t, s.ReadAt(ctx, got, 2*blockSize))
	if !isZero(got) || s.parent.bytes.Load() != 0 || s.parent.asked.Load() != 0 {
		t.Errorf("zeroes: %v, %d bytes fetched, %d questions", isZero(got), s.parent.bytes.Load(), s.parent.asked.Load())
	}
	// A part of a block is zeroed, the rest of it stays.
	noErr(t, s.Discard(ctx, 5*blockSize+100, 1000, false))
	want := pattern(5, blockSize)
	clear(want[100:1100])
	noErr(t, s.ReadAt(ctx, got[:blockSize], 5*blockSize))
	if !bytes.Equal(got[:blockSize], want) {
		t.Error("the discard of a part went wrong")
	}
	noErr(t, s.hydrate(ctx, newLimit(0), func() error { return nil }))
	if n := s.parent.bytes.Load(); n != blockSize {
		t.Errorf("%d bytes fetched, want the one block of which a part was discarded", n)
	}
}

func TestWriteOfAWholeAbsentBlockFetchesNothing(t *testing.T) {
	s := simOver(t, 4, 0, 1, 2, 3)
	noErr(t, s.WriteAt(t.Context(), pattern(7, 4*blockSize), 0, true))
	if s.parent.bytes.Load() != 0 || s.parent.asked.Load() != 0 {
		t.Error("something was fetched")
	}
}

func TestNothingIsFetchedTwice(t *testing.T) {
	const blocks = 2048
	var all []int64
	for b := range int64(blocks) {
		if b%7 != 0 {
			all = append(all, b)
		}
	}
	s := simOver(t, blocks, all...)
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(g, 1))
			for range 300 {
				n := int64(1+r.IntN(40)) * blockSize
				off := r.Int64N(blocks*blockSize - n)
				p := make([]byte, n)
				if err := s.ReadAt(t.Context(), p, off); err != nil || !bytes.Equal(p, s.parent.data[off:off+n]) {
					t.Errorf("read of %d bytes at %d: wrong, %v", n, off, err)
				}
			}
		})
	}
	noErr(t, s.hydrate(t.Context(), newLimit(0), func() error { return nil }))
	wg.Wait()
	if got, want := s.parent.bytes.Load(), int64(len(all)*blockSize); got != want {
		t.Errorf("%d bytes fetched, the parent has %d", got, want)
	}
}

// What became present between the look at the map and the claim, in the middle of the claimed run, is not fetched again.
func TestAClaimedRunIsLookedAtAgain(t *testing.T) {
	s := simOver(t, 8, 0, 1, 2, 3, 4, 5, 6, 7)
	o, src := s.over.Load(), s.over.Load().src.Load()
	f, mine := src.flying.claim(0, 8) // as if all were absent still
	if !mine {
		t.Fatal("somebody else is fetching")
	}
	noErr(t, s.WriteAt(t.Context(), pattern(9, 2*blockSize), 3*blockSize, false))
	noErr(t, s.fetch(t.Context(), o, src, f, hydrationClass))
	src.flying.land(f)
	noErr(t, s.fetchRun(t.Context(), o, src, 0, 8, hydrationClass))
	if n := s.parent.bytes.Load(); n != 6*blockSize {
		t.Errorf("%d bytes fetched, 6 blocks were absent", n)
	}
}

// What opening and a first read cost does not depend on the size: it is counted, not timed.
func TestOpenCostDoesNotDependOnTheSize(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	var asked []int64
	for i, size := range []drover.Bytes{drover.GiB, 64 * drover.GiB} {
		id := drover.LayerID(fmt.Sprintf("vol_%d", i))
		h1.create(id, size)
		noErr(t, h1.open(id, 1).WriteAt(t.Context(), pattern(1, blockSize), 0, false))
		h2.clone(id+".m", h1.export(id, "h2"), "")
		c := h2.open(id+".m", 2)
		got := make([]byte, blockSize)
		noErr(t, c.ReadAt(t.Context(), got, 0))
		if !bytes.Equal(got, pattern(1, blockSize)) {
			t.Fatal("read something else")
		}
		s := must[drover.LayerStatus](t)(h2.Layer(t.Context(), id+".m"))
		asked = append(asked, int64(s.Hydration.Copied))
	}
	if asked[0] != blockSize || asked[1] != blockSize {
		t.Errorf("copied %v bytes before the first read was answered", asked)
	}
	for _, blocks := range []int64{1 << 10, 1 << 16} {
		s := simOver(t, blocks, 1)
		noErr(t, s.ReadAt(t.Context(), make([]byte, blockSize), blockSize))
		if s.parent.asked.Load() != 1 || s.parent.reads.Load() != 1 {
			t.Errorf("%d blocks: %d questions, %d reads", blocks, s.parent.asked.Load(), s.parent.reads.Load())
		}
	}
}

// Scattered data in 64 GiB: the bytes copied are the bytes allocated; holes, discards and zeroes never travel.
func TestHolesAndZeroesNeverTravel(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	ctx := t.Context()
	const size = 64 << 30
	h1.create("vol_a", size)
	c := h1.open("vol_a", 1)
	r := rand.New(rand.NewPCG(1, 2))
	want := map[int64][]byte{}
	for i := range uint64(300) {
		off := r.Int64N(size/blockSize-64) * blockSize
		p := pattern(i, int64(1+r.IntN(32))*blockSize)
		noErr(t, c.WriteAt(ctx, p, off, false))
		want[off] = p
	}
	gone := r.Int64N(size/mib-64) * mib
	noErr(t, c.WriteAt(ctx, pattern(5, 16*mib), gone, false))
	noErr(t, c.Discard(ctx, gone, 16*mib, false))
	noErr(t, c.Zero(ctx, gone+16*mib, 16*mib, false, false))
	for off := range want {
		if off >= gone-mib && off < gone+32*mib {
			delete(want, off)
		}
	}
	e := h1.export("vol_a", "h2")
	h2.clone("vol_a.m", e, "")
	noErr(t, h2.Hydrate(ctx, "vol_a.m", 0))
	s := h2.hydrated("vol_a.m")
	if s.Hydration.Copied > e.Allocated*102/100 || s.Hydration.Copied != s.Hydration.Total {
		t.Errorf("copied %d, total %d, allocated %d", s.Hydration.Copied, s.Hydration.Total, e.Allocated)
	}
	c2 := h2.open("vol_a.m", 2)
	for off, p := range want {
		got := make([]byte, len(p))
		noErr(t, c2.ReadAt(ctx, got, off))
		same := make([]byte, len(p))
		noErr(t, h1.dial("vol_a").ReadAt(ctx, same, off))
		if !bytes.Equal(got, same) {
			t.Fatalf("the data at %d is not the same", off)
		}
	}
	if _, err := os.Stat(filepath.Join(h2.layerDir("vol_a.m"), mapName)); !os.IsNotExist(err) {
		t.Errorf("the complete layer still has a map: %v", err)
	}
}

// Of a root disk only what differs from the image travels.
func TestOnlyTheDeltaOfARootDiskTravels(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	ctx := t.Context()
	image := pattern(1, 4*mib)
	for _, h := range []*testHost{h1, h2} {
		raw := filepath.Join(filepath.Dir(h.cfg.Dir), "raw")
		noErr(t, os.WriteFile(raw, image, 0o600))
		must[drover.LayerStatus](t)(h.ImportImage(ctx, "img", raw))
	}
	must[drover.LayerStatus](t)(h1.CreateLayer(ctx, drover.LayerSpec{ID: "root_1", Disk: "root_1", Size: 8 * drover.MiB, Base: "img"}))
	c := h1.open("root_1", 1)
	view := append(image, make([]byte, 4*mib)...)
	put := func(off int64, p []byte) { noErr(t, c.WriteAt(ctx, p, off, false)); copy(view[off:], p) }
	put(mib, pattern(2, 8*blockSize))
	put(6*mib, pattern(3, 8*blockSize))
	noErr(t, c.Discard(ctx, 2*mib, mib, false))
	clear(view[2*mib : 3*mib])
	h2.clone("root_1.m", h1.export("root_1", "h2"), "img")
	c2 := h2.open("root_1.m", 2)
	check := func() {
		t.Helper()
		got := make([]byte, len(view))
		noErr(t, c2.ReadAt(ctx, got, 0))
		if !bytes.Equal(got, view) {
			t.Fatal("the clone reads something else")
		}
	}
	check()
	noErr(t, h2.Hydrate(ctx, "root_1.m", 0))
	s := h2.hydrated("root_1.m")
	if s.Hydration.Copied != 16*blockSize || s.Hydration.Total != 16*blockSize {
		t.Errorf("the delta is 16 blocks: %+v", s.Hydration)
	}
	h1.halt()
	check()
	h2.halt()
	h2.start()
	c2 = h2.dial("root_1.m@2")
	check()
}

// A layer that is itself still being filled is exported, whole, to the next host.
func TestChainOfUnfinishedClones(t *testing.T) {
	ca := newCA(t)
	h1, h2, h3 := newHost(t, ca, "h1"), newHost(t, ca, "h2"), newHost(t, ca, "h3")
	ctx := t.Context()
	h1.create("vol_a", 4*drover.MiB)
	c := h1.open("vol_a", 1)
	view := make([]byte, 4*mib)
	put := func(c *nbd.Client, off int64, p []byte) { noErr(t, c.WriteAt(ctx, p, off, false)); copy(view[off:], p) }
	put(c, mib, pattern(1, mib))
	h2.clone("vol_a.2", h1.export("vol_a", "h2"), "")
	c2 := h2.open("vol_a.2", 2)
	put(c2, mib+5000, pattern(2, 70000))
	put(c2, 3*mib, pattern(3, 10000))
	h3.clone("vol_a.3", h2.export("vol_a.2", "h3"), "")
	c3 := h3.open("vol_a.3", 3)
	got := make([]byte, len(view))
	noErr(t, c3.ReadAt(ctx, got[:2*mib], 0))
	if !bytes.Equal(got[:2*mib], view[:2*mib]) {
		t.Fatal("the chain reads something else")
	}
	noErr(t, h3.Hydrate(ctx, "vol_a.3", 0))
	h3.hydrated("vol_a.3")
	h1.halt()
	h2.halt()
	noErr(t, c3.ReadAt(ctx, got, 0))
	if !bytes.Equal(got, view) {
		t.Fatal("the end of the chain holds something else")
	}
}

// Until the switch the parent may change: nothing of it is kept, and nobody but the check reads it.
func TestNothingIsKeptBeforeTheLayerIsOpened(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	ctx := t.Context()
	h1.create("vol_a", drover.MiB)
	c := h1.open("vol_a", 1)
	noErr(t, c.WriteAt(ctx, pattern(1, blockSize), 0, false))
	noErr(t, h1.Export(ctx, "vol_a", "h2"))
	e := &drover.Export{Disk: "vol_a", Layer: "vol_a", Size: drover.MiB, Host: "h1", Address: h1.cfg.Listen, Name: "vol_a"}
	h2.clone("vol_a.m", e, "")
	noErr(t, h2.CheckParent(ctx, "vol_a.m"))
	if _, err := h2.tryDial("vol_a.m"); err == nil {
		t.Error("a clone that was never opened can be read")
	}
	noErr(t, c.WriteAt(ctx, pattern(2, blockSize), 0, false))
	h1.export("vol_a", "h2")
	got := make([]byte, blockSize)
	noErr(t, h2.open("vol_a.m", 2).ReadAt(ctx, got, 0))
	if !bytes.Equal(got, pattern(2, blockSize)) {
		t.Error("the clone has what the source held before the switch")
	}
}

// Hydration goes on by itself after a restart, and fetches little twice.
func TestHydrationGoesOnAfterARestart(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	ctx := t.Context()
	h1.create("vol_a", 64*drover.MiB)
	c := h1.open("vol_a", 1)
	for off := int64(0); off < 32*mib; off += mib {
		noErr(t, c.WriteAt(ctx, pattern(uint64(off), mib), off, false))
	}
	e := h1.export("vol_a", "h2")
	h2.clone("vol_a.m", e, "")
	noErr(t, h2.Hydrate(ctx, "vol_a.m", 16*drover.MiB))
	eventually(t, func() error {
		if s := must[drover.LayerStatus](t)(h2.Layer(ctx, "vol_a.m")); s.Hydration.Copied < 4*drover.MiB {
			return fmt.Errorf("copied %d", s.Hydration.Copied)
		}
		return nil
	})
	h2.halt()
	h2.start()
	noErr(t, h2.Hydrate(ctx, "vol_a.m", 0)) // no limit any more
	s := h2.hydrated("vol_a.m")
	if s.Hydration.Total != 32*drover.MiB || s.Hydration.StartedAt.IsZero() || s.Hydration.DoneAt.IsZero() {
		t.Errorf("hydration: %+v", s.Hydration)
	}
	got := make([]byte, mib)
	for off := int64(0); off < 32*mib; off += mib {
		noErr(t, h2.dial("vol_a.m").ReadAt(ctx, got, off))
		if !bytes.Equal(got, pattern(uint64(off), mib)) {
			t.Fatalf("other data at %d", off)
		}
	}
}
