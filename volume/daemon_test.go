package volume

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"drover"
)

const mib = int64(drover.MiB)

// pattern returns n bytes that are not zeroes and that differ by seed.
func pattern(seed uint64, n int64) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), 1})
	r.Read(p)
	for i := 0; i < len(p); i += blockSize {
		p[i] |= 1
	}
	return p
}

func TestWhatIsWrittenIsReadAfterReopening(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	h.create("vol_a", 8*drover.MiB)
	c := h.open("vol_a", 3)
	want := pattern(1, 70000)
	noErr(t, c.WriteAt(t.Context(), want, 4090, true))
	noErr(t, h.Close(t.Context(), "vol_a"))
	if _, err := h.tryDial("vol_a@3"); err == nil {
		t.Fatal("a closed layer can be opened for writing by its export name")
	}
	ro := h.dial("vol_a")
	got := make([]byte, len(want))
	noErr(t, ro.ReadAt(t.Context(), got, 4090))
	if !bytes.Equal(got, want) {
		t.Fatal("read something else than was written")
	}
	if !ro.ReadOnly() {
		t.Error("LAYER is not read-only")
	}
}

func TestCloneReadsThroughAndHydrates(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	h1.create("vol_a", 64*drover.MiB)
	c := h1.open("vol_a", 1)
	data := pattern(2, 5*mib)
	noErr(t, c.WriteAt(t.Context(), data, 10*mib+512, false))
	e := h1.export("vol_a", "h2")
	h2.clone("vol_a.m1", e, "")
	noErr(t, h2.CheckParent(t.Context(), "vol_a.m1"))
	c2 := h2.open("vol_a.m1", 2)
	got := make([]byte, len(data))
	noErr(t, c2.ReadAt(t.Context(), got, 10*mib+512))
	if !bytes.Equal(got, data) {
		t.Fatal("the clone reads something else")
	}
	noErr(t, h2.Hydrate(t.Context(), "vol_a.m1", 0))
	s := h2.hydrated("vol_a.m1")
	if limit := e.Allocated * 102 / 100; s.Hydration.Copied > limit || !s.Hydration.TotalKnown {
		t.Errorf("copied %d of %d allocated; hydration %+v", s.Hydration.Copied, e.Allocated, s.Hydration)
	}
	h1.halt()
	noErr(t, c2.ReadAt(t.Context(), got, 10*mib+512))
	if !bytes.Equal(got, data) {
		t.Fatal("the hydrated layer reads something else")
	}
}
