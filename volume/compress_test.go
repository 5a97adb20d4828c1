package volume

import (
	"bytes"
	"testing"

	"drover"
)

// hydrateText fills a clone on h2 with 8 MiB that compress well.
func hydrateText(t *testing.T, h1, h2 *testHost) *drover.Hydration {
	t.Helper()
	h1.create("vol_a", 8*drover.MiB)
	c := h1.open("vol_a", 1)
	want := bytes.Repeat([]byte("what compresses well; "), 8<<20/22)
	noErr(t, c.WriteAt(t.Context(), want, 0, false))
	h2.clone("vol_a.m1", h1.export("vol_a", "h2"), "")
	c2 := h2.open("vol_a.m1", 2)
	noErr(t, h2.Hydrate(t.Context(), "vol_a.m1", 0))
	s := h2.hydrated("vol_a.m1")
	got := make([]byte, len(want))
	noErr(t, c2.ReadAt(t.Context(), got, 0))
	if !bytes.Equal(got, want) {
		t.Error("the hydrated layer reads something else")
	}
	return s.Hydration
}

func TestHydrationCountsWhatCrossedTheWire(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	s := hydrateText(t, h1, h2)
	if s.Wire == 0 || s.Wire >= s.Copied { // the first reply at least is compressed, whatever the link
		t.Errorf("%d bytes on the wire for %d copied", s.Wire, s.Copied)
	}
	h2.halt()
	h2.start()
	if again := must[drover.LayerStatus](t)(h2.Layer(t.Context(), "vol_a.m1")).Hydration; again.Wire != s.Wire {
		t.Errorf("%d bytes on the wire after a restart, %d before", again.Wire, s.Wire)
	}
}

func TestUncompressedHydrationTakesEveryByte(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), prepareHost(t, ca, "h2")
	h2.cfg.Uncompressed = true
	h2.start()
	t.Cleanup(h2.halt)
	if s := hydrateText(t, h1, h2); s.Wire != s.Copied || s.Copied == 0 {
		t.Errorf("%d bytes on the wire for %d copied", s.Wire, s.Copied)
	}
}
