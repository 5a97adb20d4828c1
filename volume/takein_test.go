package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"drover"
)

// gone waits until a layer that was given up is taken in.
func (h *testHost) gone(ids ...drover.LayerID) {
	h.tb.Helper()
	eventually(h.tb, func() error {
		for _, l := range must[[]drover.LayerStatus](h.tb)(h.Layers(h.tb.Context())) {
			if slices.Contains(ids, l.ID) {
				return fmt.Errorf("still here: %+v", l)
			}
		}
		return nil
	})
}

// emptied waits until nothing is in the trash.
func (h *testHost) emptied() {
	h.tb.Helper()
	eventually(h.tb, func() error {
		if entries := must[[]os.DirEntry](h.tb)(os.ReadDir(filepath.Join(h.cfg.Dir, "trash"))); len(entries) > 0 {
			return fmt.Errorf("the trash holds %v", entries)
		}
		return nil
	})
}

// After its frozen layers are given up a volume is one plain file again, with everything that was written meanwhile.
func TestTakeInUnderAWriter(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	ctx := t.Context()
	v := newVolumeUnder(t, h, "vol_a", 6*mib)
	v.write(1, 0, 4*mib)
	for i := range 3 {
		v.split(drover.LayerID(fmt.Sprintf("vol_a.s%d", i)))
		v.write(uint64(10+i), int64(i)*mib+500, mib)
		v.discard(int64(i)*mib, 10*blockSize+7)
	}
	stop := v.scribble(500)
	for _, i := range []int{1, 0, 2} { // one in the middle, then the lowest, then the one under the writer
		noErr(t, h.Delete(ctx, drover.LayerID(fmt.Sprintf("vol_a.s%d", i))))
		noErr(t, h.Delete(ctx, drover.LayerID(fmt.Sprintf("vol_a.s%d", i))))
	}
	h.gone("vol_a.s0", "vol_a.s1", "vol_a.s2")
	stop()
	v.check()
	s := must[drover.LayerStatus](t)(h.Layer(ctx, "vol_a"))
	if s.Base != "" || s.Writer != 1 {
		t.Errorf("the layer after the take-in: %+v", s)
	}
	m := must[*meta](t)(readMeta(filepath.Join(h.cfg.Dir, "layers", "vol_a", metaFile), "vol_a"))
	if m.Mapped || m.Spec.Base != "" {
		t.Errorf("the layer is not plain again: %+v", m)
	}
	h.emptied()
	h.tidy()
	must[drover.LayerStatus](t)(h.CreateLayer(ctx, drover.LayerSpec{ID: "vol_a", Disk: "vol_a", Size: 6 * drover.MiB})) // asked again
	h.halt()
	h.start()
	v.conn = h.dial("vol_a@1")
	v.check()
	h.tidy()
}

// A frozen layer that is kept has its content through the take-in of those under and over it.
func TestTakeInLeavesOtherFrozenLayersAlone(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	path := filepath.Join(h.cfg.Dir, "image")
	image := pattern(9, 2*mib)
	noErr(t, os.WriteFile(path, image, 0o600))
	must[drover.LayerStatus](t)(h.ImportImage(t.Context(), "image", path))
	must[drover.LayerStatus](t)(h.CreateLayer(t.Context(), drover.LayerSpec{ID: "root_1", Disk: "root_1", Size: 4 * drover.MiB, Base: "image"}))
	v := &volumeUnder{t: t, h: h, id: "root_1", conn: h.open("root_1", 1), model: append(slices.Clone(image), make([]byte, 2*mib)...)}
	var moments [4][]byte
	for i := range moments {
		v.write(uint64(i), int64(i)*700000, 600000)
		v.discard(int64(i)*900000+3, 300000)
		moments[i] = slices.Clone(v.model)
		v.split(drover.LayerID(fmt.Sprintf("root_1.s%d", i)))
	}
	v.write(77, 3*mib, 100000)
	noErr(t, h.Delete(t.Context(), "root_1.s0"))
	noErr(t, h.Delete(t.Context(), "root_1.s2"))
	h.gone("root_1.s0", "root_1.s2")
	h.emptied()
	for range 2 {
		v.check()
		holds(t, h.dial("root_1.s1"), moments[1])
		holds(t, h.dial("root_1.s3"), moments[3])
		h.tidy()
		h.halt()
		h.start()
		v.conn = h.dial("root_1@1")
	}
	if s := must[drover.LayerStatus](t)(h.Layer(t.Context(), "root_1.s1")); s.Base != "image" {
		t.Errorf("the lowest frozen layer: %+v", s)
	}
	wantCode(t, h.Delete(t.Context(), "image"), drover.Precondition)
}

// An unwanted layer waits under the one that is still hydrated, and goes when that is done.
func TestTakeInWaitsForHydration(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	v := newVolumeUnder(t, h1, "vol_a", 4*mib)
	v.write(1, 0, 4*mib)
	h2.clone("vol_a.m", h1.export("vol_a", "h2"), "")
	v.h, v.id, v.conn = h2, "vol_a.m", h2.open("vol_a.m", 2)
	v.split("vol_a.s")
	v.write(2, mib, mib)
	noErr(t, h2.Delete(t.Context(), "vol_a.s"))
	s := must[drover.LayerStatus](t)(h2.Layer(t.Context(), "vol_a.s"))
	if !s.Unwanted {
		t.Errorf("the unwanted layer: %+v", s)
	}
	wantCode(t, h2.Export(t.Context(), "vol_a.s", "h1"), drover.Precondition)
	noErr(t, h2.Hydrate(t.Context(), "vol_a.m", 0))
	h2.gone("vol_a.s")
	if s := must[drover.LayerStatus](t)(h2.Layer(t.Context(), "vol_a.m")); s.Hydration == nil || !s.Hydration.Done {
		t.Errorf("the layer forgot its hydration: %+v", s)
	}
	h1.halt()
	v.check()
	h2.emptied()
	h2.tidy()
}

// Who deletes a layer deletes what is unwanted under it, and what is wanted under it stays.
func TestDeleteOverFrozenLayers(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	ctx := t.Context()
	v := newVolumeUnder(t, h1, "vol_a", 2*mib)
	v.write(1, 0, 2*mib)
	h2.clone("vol_a.m", h1.export("vol_a", "h2"), "") // never hydrated, so what is split off it is not taken in
	v.h, v.id, v.conn = h2, "vol_a.m", h2.open("vol_a.m", 2)
	moment := slices.Clone(v.model)
	v.split("vol_a.s1")
	v.write(2, mib, 100)
	v.split("vol_a.s2")
	v.write(3, 5, 100)
	v.split("vol_a.s3")
	noErr(t, h2.Delete(ctx, "vol_a.s2"))
	noErr(t, h2.Delete(ctx, "vol_a.s3"))
	wantCode(t, h2.Delete(ctx, "vol_a.m"), drover.Precondition)
	noErr(t, h2.Close(ctx, "vol_a.m"))
	noErr(t, h2.Delete(ctx, "vol_a.m"))
	h2.gone("vol_a.m", "vol_a.s2", "vol_a.s3")
	holds(t, h2.dial("vol_a.s1"), moment)
	noErr(t, h2.Export(ctx, "vol_a.s1", "h1"))
	err := h2.Delete(ctx, "vol_a.s1")
	wantCode(t, err, drover.Precondition)
	if !strings.Contains(err.Error(), "h1") {
		t.Errorf("the refusal does not name the holder: %v", err)
	}
	noErr(t, h2.Unexport(ctx, "vol_a.s1", "h1"))
	noErr(t, h2.Delete(ctx, "vol_a.s1"))
	if all := must[[]drover.LayerStatus](t)(h2.Layers(ctx)); len(all) != 0 {
		t.Errorf("left: %+v", all)
	}
	h2.tidy()
}

// A frozen layer under layers of other disks is nobody's to take in.
func TestDeleteOfASharedBaseIsRefused(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	ctx := t.Context()
	v := newVolumeUnder(t, h, "vol_a", mib)
	v.write(1, 0, mib)
	v.split("vol_a.s")
	must[drover.LayerStatus](t)(h.CreateLayer(ctx, drover.LayerSpec{ID: "vol_b", Disk: "vol_b", Size: drover.MiB, Base: "vol_a.s"}))
	wantCode(t, h.Delete(ctx, "vol_a.s"), drover.Precondition)
	noErr(t, h.Close(ctx, "vol_a"))
	noErr(t, h.Delete(ctx, "vol_a"))
	wantCode(t, h.Delete(ctx, "vol_a.s"), drover.Precondition)
	holds(t, h.open("vol_b", 1), v.model)
	_, err := h.CreateLayer(ctx, drover.LayerSpec{ID: "vol_c", Disk: "vol_c", Size: drover.MiB, Base: "vol_b"})
	wantCode(t, err, drover.Precondition) // not frozen
}

// Splits while the layer takes its base in: the take-in begins again below the new frozen layer.
func TestSplitDuringATakeIn(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	v := newVolumeUnder(t, h, "vol_a", 8*mib)
	v.write(1, 0, 8*mib)
	moments := map[drover.LayerID][]byte{}
	for i := range 12 {
		id := drover.LayerID(fmt.Sprintf("vol_a.s%d", i))
		moments[id] = slices.Clone(v.model)
		v.split(id)
		v.write(uint64(i), int64(i%4)*2*mib, mib)
		if i%3 != 0 {
			noErr(t, h.Delete(ctx, id))
			delete(moments, id)
		}
	}
	eventually(t, func() error {
		if all := must[[]drover.LayerStatus](t)(h.Layers(ctx)); len(all) != 1+len(moments) {
			return errors.New("not all is taken in")
		}
		return nil
	})
	v.check()
	for id, m := range moments {
		holds(t, h.dial(string(id)), m)
	}
	h.emptied()
	h.tidy()
}
