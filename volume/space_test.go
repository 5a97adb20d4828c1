package volume

import (
	"bytes"
	"errors"
	"path/filepath"
	"syscall"
	"testing"

	"drover"
)

// smallDisk mounts a file system of a few MiB. Mounting needs root.
func smallDisk(t *testing.T, options string) string {
	t.Helper()
	dir := shortDir(t)
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options)
	if errors.Is(err, syscall.EPERM) {
		t.Skip("mounting a small file system needs root")
	}
	noErr(t, err)
	t.Cleanup(func() { noErr(t, syscall.Unmount(dir, 0)) })
	return dir
}

// A full disk is an error of the write that needed space, and of nothing else.
func TestFullDiskFailsWritesAndHarmsNobody(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), prepareHost(t, ca, "h2")
	h2.cfg.Dir = filepath.Join(smallDisk(t, "size=6m"), "pool")
	h2.start()
	t.Cleanup(func() { h2.halt() })
	ctx := t.Context()
	h1.create("vol_a", 16*drover.MiB)
	c := h1.open("vol_a", 1)
	for off := int64(0); off < 4*mib; off += mib {
		noErr(t, c.WriteAt(ctx, pattern(uint64(off), mib), off, false))
	}
	h2.create("vol_b", 16*drover.MiB)
	b := h2.open("vol_b", 1)
	noErr(t, b.WriteAt(ctx, pattern(77, mib), 0, true))
	h2.clone("vol_a.m", h1.export("vol_a", "h2"), "")
	a := h2.open("vol_a.m", 2)

	var full error
	for off := int64(2 * mib); off < 16*mib && full == nil; off += mib {
		full = b.WriteAt(ctx, pattern(1, mib), off, false)
	}
	wantCode(t, full, drover.Exhausted)
	wantCode(t, a.WriteAt(ctx, pattern(1, mib), 8*mib, false), drover.Exhausted)

	// Reads of what is not here yet go on without being kept; nothing reads as zeroes.
	got := make([]byte, mib)
	for off := int64(0); off < 4*mib; off += mib {
		noErr(t, a.ReadAt(ctx, got, off))
		if !bytes.Equal(got, pattern(uint64(off), mib)) {
			t.Fatalf("other data at %d", off)
		}
	}
	noErr(t, h2.Hydrate(ctx, "vol_a.m", 0))
	noErr(t, h2.Close(ctx, "vol_a.m")) // a full disk can be left: layers are closed, frozen and fenced as ever
	noErr(t, h2.Fence(ctx, "vol_c", 3))
	a = h2.open("vol_a.m", 3)
	must[drover.LayerStatus](t)(h2.Freeze(ctx, "vol_b"))
	noErr(t, h2.Thaw(ctx, "vol_b"))
	b = h2.open("vol_b", 2)
	eventually(t, func() error {
		s := must[drover.LayerStatus](t)(h2.Layer(ctx, "vol_a.m"))
		if s.Hydration.Waiting == "" {
			return errors.New("the status does not say that the disk is full")
		}
		return nil
	})
	noErr(t, b.ReadAt(ctx, got, 0))
	if !bytes.Equal(got, pattern(77, mib)) {
		t.Error("another layer was harmed")
	}
	// Room is made, and everything goes on by itself.
	noErr(t, b.Discard(ctx, 2*mib, 14*mib, false))
	noErr(t, b.Flush(ctx))
	h2.hydrated("vol_a.m")
	for off := int64(0); off < 4*mib; off += mib {
		noErr(t, a.ReadAt(ctx, got, off))
		if !bytes.Equal(got, pattern(uint64(off), mib)) {
			t.Fatalf("other data at %d", off)
		}
	}
}

// A layer that cannot be made leaves nothing behind.
func TestFullDiskMakesNoHalfLayer(t *testing.T) {
	h := prepareHost(t, newCA(t), "h1")
	h.cfg.Dir = filepath.Join(smallDisk(t, "size=1m"), "pool")
	h.start()
	t.Cleanup(func() { h.halt() })
	_, err := h.CreateLayer(t.Context(), drover.LayerSpec{ID: "vol_a", Disk: "vol_a", Size: 64 * drover.GiB,
		Parent: &drover.Export{Layer: "p", Size: 64 * drover.GiB, Host: "h2", Address: "127.0.0.1:1", Name: "p"}})
	wantCode(t, err, drover.Exhausted)
	if all := must[[]drover.LayerStatus](t)(h.Layers(t.Context())); len(all) != 0 {
		t.Errorf("layers: %+v", all)
	}
	h.create("vol_a", drover.MiB)
}

// A split or a growth that finds no room has not happened, and a take-in waits for room; the guest goes on.
func TestFullDiskAndChains(t *testing.T) {
	h := prepareHost(t, newCA(t), "h1")
	h.cfg.Dir = filepath.Join(smallDisk(t, "size=8m"), "pool")
	h.cfg.Floor = 1 // records find no room either
	h.start()
	t.Cleanup(func() { h.halt() })
	v := newVolumeUnder(t, h, "vol_a", 64*mib)
	v.write(1, 0, 2*mib)
	v.split("vol_a.s1")
	moment := bytes.Clone(v.model)
	var full error
	for off := int64(3 * mib); full == nil; off += blockSize {
		p := pattern(uint64(off), blockSize)
		if full = v.conn.WriteAt(t.Context(), p, off, false); full == nil {
			copy(v.model[off:], p)
		}
	}
	wantCode(t, full, drover.Exhausted)
	_, err := h.Split(t.Context(), "vol_a", "vol_a.s2")
	wantCode(t, err, drover.Exhausted)
	wantCode(t, h.Resize(t.Context(), "vol_a", 4*drover.GiB), drover.Exhausted)
	v.check()
	holds(t, h.dial("vol_a.s1"), moment)
	h.tidy()
	noErr(t, h.Delete(t.Context(), "vol_a.s1"))
	eventually(t, func() error {
		if m := must[*meta](t)(readMeta(filepath.Join(h.cfg.Dir, "layers", "vol_a.s1", metaFile), "vol_a.s1")); !m.Absorbed {
			return errors.New("the take-in was not tried yet")
		}
		return nil
	})
	v.discard(3*mib, 61*mib)
	noErr(t, v.conn.Flush(t.Context()))
	h.gone("vol_a.s1")
	v.check()
	h.emptied()
	h.tidy()
}
