package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"drover"
	"drover/internal/durable"
)

// A gate that is held makes who comes wait, lets those out who were in, and turns everybody away once it is shut.
func TestGate(t *testing.T) {
	var g gate
	if !g.enter() || !g.tryEnter() {
		t.Fatal("an open gate lets nobody in")
	}
	g.hold()
	if g.tryEnter() {
		t.Fatal("a held gate lets somebody in")
	}
	done := make(chan struct{})
	close(done)
	if g.awaitIdle(done) {
		t.Fatal("a gate with somebody in it counts as idle")
	}
	entered := make(chan bool)
	var waiting sync.WaitGroup
	for range 8 {
		waiting.Go(func() { entered <- g.enter() })
	}
	g.leave()
	g.leave()
	if !g.awaitIdle(nil) {
		t.Fatal("an empty gate is not idle")
	}
	select {
	case <-entered:
		t.Fatal("somebody got through a held gate")
	default:
	}
	g.release()
	for range 8 {
		if !<-entered {
			t.Fatal("a gate that was released turned somebody away")
		}
		g.leave()
	}
	waiting.Wait()
	g.hold()
	waiting.Go(func() { entered <- g.enter() })
	g.shut()
	if <-entered || g.enter() || g.tryEnter() {
		t.Fatal("a shut gate lets somebody in")
	}
	waiting.Wait()
}

// A write that waits for the parent keeps a split from coming about, for less than a second, and everything goes on as before.
func TestSplitIsGivenUpWhenAWriteDoesNotEnd(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	v := newVolumeUnder(t, h1, "vol_a", mib)
	v.write(1, 0, mib)
	h2.clone("vol_a.m", h1.export("vol_a", "h2"), "")
	v.h, v.id, v.conn = h2, "vol_a.m", h2.open("vol_a.m", 2)
	h1.halt()
	var waits sync.WaitGroup
	waits.Go(func() { v.write(2, 100, 50) }) // a part of an absent block
	eventually(t, func() error {
		if s := must[drover.LayerStatus](t)(h2.Layer(t.Context(), "vol_a.m")); s.Hydration.Waiting == "" {
			return errors.New("the write does not wait yet")
		}
		return nil
	})
	_, err := h2.Split(t.Context(), "vol_a.m", "vol_a.s")
	wantCode(t, err, drover.Unavailable)
	wantCode(t, h2.Resize(t.Context(), "vol_a.m", 2*drover.MiB), drover.Unavailable)
	h2.tidy()
	h1.start()
	waits.Wait()
	moment := slices.Clone(v.model)
	v.split("vol_a.s")
	v.write(3, 5000, 50)
	v.check()
	holds(t, h2.dial("vol_a.s"), moment)
	h2.tidy()
}

// A pool of a daemon that knew no chains is taken over with everything in it, flushed or not.
func TestPoolOfVersionOneIsTakenOver(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	v := newVolumeUnder(t, h1, "vol_a", mib)
	v.write(1, 0, mib)
	h2.clone("vol_a.m", h1.export("vol_a", "h2"), "")
	v.h, v.id, v.conn = h2, "vol_a.m", h2.open("vol_a.m", 2)
	v.write(2, 0, 100000)
	h2.halt()
	path := filepath.Join(h2.cfg.Dir, "layers", "vol_a.m", metaFile)
	m := must[*meta](t)(readMeta(path, "vol_a.m"))
	m.Version = 1
	m.Checksum = must[string](t)(m.sum())
	noErr(t, durable.WriteJSON(path, m, 0o600))
	maps := filepath.Join(h2.cfg.RunDir, "maps")
	noErr(t, os.Rename(filepath.Join(maps, m.Incarnation+".map"), filepath.Join(maps, "vol_a.m.map")))
	// What the stored map says is taken away, so that only the live one can tell of the writes.
	noErr(t, os.Remove(filepath.Join(h2.cfg.Dir, "layers", "vol_a.m", mapName)))
	noErr(t, makeMap(filepath.Dir(path), m, newBitmap(mib/blockSize)))
	h2.start()
	v.conn = h2.dial("vol_a.m@2")
	v.check()
	v.split("vol_a.s")
	v.check()
	h2.tidy()
}

// A base is kept for a layer that cannot be used now.
func TestBaseOfARefusedLayerIsKept(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	v := newVolumeUnder(t, h, "vol_a", mib)
	v.write(1, 0, mib)
	v.split("vol_a.s")
	h.halt()
	m := must[*meta](t)(readMeta(filepath.Join(h.cfg.Dir, "layers", "vol_a", metaFile), "vol_a"))
	path := filepath.Join(h.cfg.Dir, "layers", "vol_a", fileName(mapName, m.Files))
	good := must[[]byte](t)(os.ReadFile(path))
	noErr(t, os.Truncate(path, 100))
	h.start()
	wantCode(t, h.Delete(t.Context(), "vol_a.s"), drover.Precondition)
	h.halt()
	noErr(t, os.WriteFile(path, good, 0o600))
	h.start()
	v.conn = h.dial("vol_a@1")
	v.check()
	h.tidy()
}

// A take-in that is not finished hides what it has copied when the record of another layer cannot be read, and touches no file.
func TestAbsorbedLayerIsRefusedWhenItsTakerIsUnknown(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	v := newVolumeUnder(t, h, "vol_a", mib)
	v.write(1, 0, mib)
	v.split("vol_a.s")
	h.halt()
	change := func(id drover.LayerID, change func(*meta)) {
		path := filepath.Join(h.cfg.Dir, "layers", string(id), metaFile)
		m := must[*meta](t)(readMeta(path, id))
		change(m)
		noErr(t, writeMeta(path, m))
	}
	change("vol_a.s", func(m *meta) { m.Unwanted, m.Absorbed = true, true })
	path := filepath.Join(h.cfg.Dir, "layers", "vol_a", metaFile)
	record := must[[]byte](t)(os.ReadFile(path))
	noErr(t, os.WriteFile(path, record[:50], 0o600))
	h.start()
	s := must[[]drover.LayerStatus](t)(h.Layers(t.Context()))
	if len(s) != 2 || s[0].Trouble == "" || s[1].Trouble == "" {
		t.Errorf("served, or gone: %+v", s)
	}
	h.halt()
	noErr(t, os.WriteFile(path, record, 0o600))
	h.start()
	h.gone("vol_a.s")
	v.conn = h.dial("vol_a@1")
	v.check()
	h.emptied()
	h.tidy()
}

// Connections that are made while the valve is closed wait like the others, and go on like them.
func TestValveOpensForEverybody(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	h.halt()
	p := must[*pool](t)(openPool(must[Config](t)(h.cfg.withDefaults()), dialTLS(h.cfg.TLSDir, true)))
	defer func() { noErr(t, p.close()) }()
	l := must[*layer](t)(p.createLayer(t.Context(), drover.LayerSpec{ID: "vol_a", Disk: "vol_a", Size: drover.MiB}))
	must[drover.Attachment](t)(p.open(t.Context(), "vol_a", 1))
	old := must[*session](t)(l.connect(0, "", nil))
	open := must[func()](t)(l.closeValve(t.Context(), true))
	fresh := must[*session](t)(l.connect(1, "", nil)) // while the valve is closed
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	results := make(chan error, 2)
	go func() { results <- old.ReadAt(ctx, make([]byte, 10), 0) }()
	go func() { results <- fresh.WriteAt(ctx, make([]byte, 10), 0, false) }()
	if ok, err := old.TryReadAt(make([]byte, 10), 0); ok || err != nil {
		t.Errorf("a read went through a closed valve: %v, %v", ok, err)
	}
	open()
	noErr(t, <-results)
	noErr(t, <-results)
	old.Close()
	fresh.Close()
}
