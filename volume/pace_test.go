package volume

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drover"
)

func TestLimitHoldsAndChangesWhileSomebodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(drover.MiB)
		begun := time.Now()
		for range 16 {
			noErr(t, b.take(t.Context(), mib/4))
		}
		if took := time.Since(begun); took < 3900*time.Millisecond || took > 4100*time.Millisecond {
			t.Errorf("4 MiB at 1 MiB/s took %v", took)
		}
		b.set(1) // a million bytes would take eleven days
		ended := make(chan error)
		go func() { ended <- b.take(t.Context(), mib) }()
		synctest.Wait()
		b.set(0)
		noErr(t, <-ended)
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("the new limit counted after %v", took)
		}
	})
}

func TestTunerFindsTheKnee(t *testing.T) {
	for _, test := range []struct{ knee, least, most int }{{12, 10, 14}, {4, 2, 6}, {100, 16, 16}} {
		u := tuner{window: startWindow}
		rate := func() float64 { return float64(min(u.window, test.knee)) }
		for range 300 {
			u.next(rate())
		}
		for range 200 { // it stays there, but for single tries
			if u.next(rate()); u.before == 0 && (u.window < test.least || u.window > test.most) {
				t.Errorf("knee at %d: %d requests in flight", test.knee, u.window)
			}
		}
	}
}

// cloneWithData makes vol_a on h1 with some MiB of data and a clone of it on h2.
func cloneWithData(t *testing.T, h1, h2 *testHost, size int64) []byte {
	t.Helper()
	data := pattern(uint64(size), size)
	h1.create("vol_a", drover.Bytes(size))
	c := h1.open("vol_a", 1)
	for off := int64(0); off < size; off += mib {
		noErr(t, c.WriteAt(t.Context(), data[off:min(off+mib, size)], off, false))
	}
	h2.clone("vol_a.m", h1.export("vol_a", "h2"), "")
	return data
}

func (h *testHost) hydration(id drover.LayerID) *drover.Hydration {
	h.tb.Helper()
	return must[drover.LayerStatus](h.tb)(h.Layer(h.tb.Context(), id)).Hydration
}

func TestPausedHydrationStandsUntilItIsResumed(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	ctx := t.Context()
	noErr(t, h2.Settings(ctx, drover.StorageSettings{StallAfter: drover.Duration(time.Nanosecond)}))
	cloneWithData(t, h1, h2, 4*mib)
	noErr(t, h2.PauseHydration(ctx, "vol_a.m", true))
	noErr(t, h2.Hydrate(ctx, "vol_a.m", 0))
	noErr(t, h2.open("vol_a.m", 2).ReadAt(ctx, make([]byte, blockSize), 0)) // the guest's own reads go on
	h2.halt()
	h2.start()
	if s := h2.hydration("vol_a.m"); !s.Paused || s.Done || s.Stalled || s.Copied >= 4*drover.MiB {
		t.Errorf("paused: %+v", s)
	}
	noErr(t, h2.PauseHydration(ctx, "vol_a.m", false))
	if s := h2.hydrated("vol_a.m"); s.Hydration.Paused {
		t.Errorf("resumed and done: %+v", s.Hydration)
	}
}

func TestHostLimitHoldsAllHydrationsAndIsDurable(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	ctx := t.Context()
	wantCode(t, h2.Settings(ctx, drover.StorageSettings{HydrationLimit: -1}), drover.Invalid)
	wantCode(t, h2.Settings(ctx, drover.StorageSettings{StallAfter: -1}), drover.Invalid)
	noErr(t, h2.Settings(ctx, drover.StorageSettings{HydrationLimit: 1, StallAfter: drover.Duration(time.Nanosecond)}))
	h2.halt()
	h2.start()
	cloneWithData(t, h1, h2, 4*mib)
	noErr(t, h2.Hydrate(ctx, "vol_a.m", 0))
	eventually(t, func() error {
		if s := h2.hydration("vol_a.m"); !s.TotalKnown || s.Done || s.Stalled { // it waits for its limit, which is no trouble
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	noErr(t, h2.Settings(ctx, drover.StorageSettings{}))
	h2.hydrated("vol_a.m")
	noErr(t, os.WriteFile(filepath.Join(h2.cfg.Dir, settingsFile), []byte("{damaged"), 0o600))
	h2.halt()
	h2.cfg.Log = nil
	h2.start() // with the defaults
}

// A parent that is gone makes a condition after a while, with its cause, and not before; it clears by itself.
func TestStalledHydrationSaysWhyAndRecovers(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	ctx := t.Context()
	noErr(t, h2.Settings(ctx, drover.StorageSettings{StallAfter: drover.Duration(20 * time.Millisecond)}))
	data := cloneWithData(t, h1, h2, 4*mib)
	h1.halt()
	noErr(t, h2.Hydrate(ctx, "vol_a.m", 0))
	eventually(t, func() error {
		if s := h2.hydration("vol_a.m"); !s.Stalled || !strings.Contains(s.Waiting, "parent vol_a at host h1") {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	h1.start()
	if s := h2.hydrated("vol_a.m"); s.Hydration.Stalled || s.Hydration.Waiting != "" || s.Hydration.Copied != drover.Bytes(len(data)) {
		t.Errorf("%+v", s.Hydration)
	}
}

func FuzzSettings(f *testing.F) {
	r := settingsRecord{Version: settingsVersion, Settings: drover.StorageSettings{HydrationLimit: 5}}
	r.Checksum, _ = r.sum()
	f.Add(fmt.Appendf(nil, `{"version":1,"settings":{"hydration_limit":5},"checksum":%q}`, r.Checksum))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseSettings(b); err == nil && (s.HydrationLimit < 0 || s.StallAfter < 0) {
			t.Errorf("settings that make no sense are taken: %+v", s)
		}
	})
}

// A guest that waits for a flush is at work, however long that takes, and so is one that is about to come: what a copy stores meanwhile would be waited for, too.
func TestTheCopyKeepsOutOfTheWayOfAFlush(t *testing.T) {
	s := simOver(t, 8, 3)
	o := s.over.Load()
	h := &hydration{c: s.content, o: o}
	disk := &stuckDisk{file: s.content.data, waits: make(chan struct{}), goes: make(chan struct{})}
	s.content.data = disk
	ended := make(chan error, 1)
	go func() { ended <- s.flushGuest(t.Context()) }()
	<-disk.waits
	o.guest.last.Store(0) // it began long ago
	if m := h.manner(); m.largest != modestFetch || m.workers != modestWorkers {
		t.Errorf("beside a guest that waits for a flush: %+v", m)
	}
	close(disk.goes)
	noErr(t, <-ended)
	o.guest.last.Store(0)
	if m := h.manner(); m.largest != maxFetch {
		t.Errorf("after the flush: %+v", m)
	}
	o.expected.Store(true)
	if m := h.manner(); m.largest != modestFetch {
		t.Errorf("before a guest comes: %+v", m)
	}
}

// stuckDisk makes its first sync wait.
type stuckDisk struct {
	file
	once        sync.Once
	waits, goes chan struct{}
}

func (d *stuckDisk) Datasync() error {
	d.once.Do(func() {
		close(d.waits)
		<-d.goes
	})
	return d.file.Datasync()
}

// A guest's reads slow the copy down, its writes only bound what a request may take: one that writes all day gets its data.
func TestTheCopyRestsForReadsOnly(t *testing.T) {
	s := simOver(t, 8, 3)
	o := s.over.Load()
	h := &hydration{c: s.content, o: o}
	if m := h.manner(); m.rests || m.workers != maxWindow || m.largest != maxFetch {
		t.Errorf("beside a guest that does nothing: %+v", m)
	}
	for range 3 { // the machine may be too busy to look within the time
		noErr(t, s.WriteAt(t.Context(), pattern(1, blockSize), blockSize, false))
		if m := h.manner(); m.rests || m.largest < modestFetch {
			t.Errorf("beside a guest that writes: %+v", m)
		}
	}
	rested := false
	for range 100 {
		noErr(t, s.ReadAt(t.Context(), make([]byte, blockSize), blockSize))
		m := h.manner()
		rested = rested || m.rests && m.largest == politeFetch && m.workers == politeWorkers
	}
	if !rested {
		t.Error("the copy never rested beside a guest that reads")
	}
}
