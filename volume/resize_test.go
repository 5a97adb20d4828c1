package volume

import (
	"slices"
	"testing"

	"drover"
)

// grow makes the volume larger and connects again, as a client of NBD has to.
func (v *volumeUnder) grow(size int64) {
	v.t.Helper()
	noErr(v.t, v.h.Resize(v.t.Context(), v.id, drover.Bytes(size)))
	v.conn = v.h.dial(exportName(v.id, 1))
	if v.conn.Size() != size {
		v.t.Fatalf("the export has %d bytes, not %d", v.conn.Size(), size)
	}
	v.model = append(v.model, make([]byte, size-int64(len(v.model)))...)
}

func TestResizeUnderAWriter(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	v := newVolumeUnder(t, h, "vol_a", 2*mib)
	v.write(1, 0, 2*mib)
	stop := v.scribble(1)
	noErr(t, h.Resize(t.Context(), "vol_a", 3*drover.MiB)) // the old connection goes on
	stop()
	v.check()
	v.grow(3 * mib)
	v.write(2, 2*mib-50, 1000)
	v.split("vol_a.s")
	moment := slices.Clone(v.model)
	v.write(3, mib, 5000)
	stop = v.scribble(9)
	noErr(t, h.Resize(t.Context(), "vol_a", 5*drover.MiB)) // larger than its base now
	stop()
	v.grow(5 * mib)
	v.check()
	v.write(4, 3*mib-9, 2*mib)
	noErr(t, h.Resize(t.Context(), "vol_a", 5*drover.MiB))
	wantCode(t, h.Resize(t.Context(), "vol_a", 4*drover.MiB), drover.Invalid)
	wantCode(t, h.Resize(t.Context(), "vol_a", 5*drover.MiB+1), drover.Invalid)
	wantCode(t, h.Resize(t.Context(), "vol_a.s", 9*drover.MiB), drover.Precondition)
	wantCode(t, h.Resize(t.Context(), "vol_x", 9*drover.MiB), drover.NotFound)
	must[drover.LayerStatus](t)(h.CreateLayer(t.Context(), drover.LayerSpec{ID: "vol_a", Disk: "vol_a", Size: 2 * drover.MiB})) // asked again
	must[drover.LayerStatus](t)(h.CreateLayer(t.Context(), drover.LayerSpec{ID: "vol_a", Disk: "vol_a", Size: 5 * drover.MiB}))
	h.tidy()
	h.halt()
	h.start()
	v.conn = h.dial("vol_a@1")
	v.check()
	holds(t, h.dial("vol_a.s"), moment)
	noErr(t, h.Delete(t.Context(), "vol_a.s")) // a base that is smaller is taken in
	h.gone("vol_a.s")
	h.emptied()
	v.check()
	v.write(5, 4*mib, mib)
	h.halt()
	h.start()
	v.conn = h.dial("vol_a@1")
	v.check()
	h.tidy()
}

// A layer that is larger than its parent while it is filled.
func TestResizeOfALayerThatHydrates(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	v := newVolumeUnder(t, h1, "vol_a", 4*mib)
	v.write(1, mib, 3*mib)
	h2.clone("vol_a", h1.export("vol_a", "h2"), "")
	a := must[drover.Attachment](t)(h2.Open(t.Context(), "vol_a", 1))
	v.h, v.conn = h2, h2.dial(a.Export)
	v.write(2, 2*mib, 50000)
	noErr(t, h2.Hydrate(t.Context(), "vol_a", drover.MiB))
	v.grow(6 * mib)
	v.check()
	v.write(3, 4*mib-500, mib)
	h2.halt()
	h2.start()
	v.conn = h2.dial("vol_a@1")
	noErr(t, h2.Hydrate(t.Context(), "vol_a", 0))
	s := h2.hydrated("vol_a")
	h1.halt()
	v.check()
	if s.Size != 6*drover.MiB || s.Hydration.Copied > 3*drover.MiB+drover.MiB/5 {
		t.Errorf("after the hydration: %+v %+v", s, s.Hydration)
	}
	h2.tidy()
}

// Whoever serves a connection whose client can be told is called with the new size.
func TestResizeTellsConnections(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	h.create("vol_a", drover.MiB)
	p := must[*pool](t)(openPool(mustConfig(t, h), dialTLS(h.cfg.TLSDir, true)))
	defer func() { noErr(t, p.close()) }()
	must[drover.Attachment](t)(p.open(t.Context(), "vol_a", 1))
	l := must[*layer](t)(p.find("vol_a"))
	s := must[*session](t)(l.connect(1, "", nil))
	told := int64(0)
	s.onResize(func(size int64) { told = size })
	noErr(t, p.resize(t.Context(), "vol_a", 2*drover.MiB))
	if told != 2*mib {
		t.Errorf("told of %d bytes", told)
	}
	noErr(t, s.WriteAt(t.Context(), pattern(1, blockSize), 2*mib-blockSize, false))
	s.Close()
}

// mustConfig ends the host's daemon and returns the config of its pool.
func mustConfig(t *testing.T, h *testHost) Config {
	h.halt()
	return must[Config](t)(h.cfg.withDefaults())
}
