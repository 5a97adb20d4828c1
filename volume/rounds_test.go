package volume

import (
	"errors"
	"fmt"
	"testing"

	"drover"
)

// round splits the volume, and lets another host copy what changed since the round before. It returns what came over the network.
func (v *volumeUnder) round(to *testHost, n int, base drover.LayerID) drover.LayerStatus {
	v.t.Helper()
	name := func(n int) drover.LayerID { return drover.LayerID(fmt.Sprintf("%s.m.r%d", diskOf(v.id), n)) }
	s := v.split(name(n))
	noErr(v.t, v.h.Export(v.t.Context(), s.ID, to.id))
	e := drover.Export{Disk: s.Disk, Layer: s.ID, Size: s.Size, Host: v.h.id, Address: v.h.cfg.Listen, Name: string(s.ID), Allocated: s.Own, Cipher: s.Cipher}
	if n > 1 {
		e.Since, base = name(n-1), name(n-1)
	}
	to.clone(s.ID, &e, base)
	noErr(v.t, to.Hydrate(v.t.Context(), s.ID, 0))
	copied := to.hydrated(s.ID)
	must[drover.LayerStatus](v.t)(to.Freeze(v.t.Context(), s.ID))
	return copied
}

// Rounds copy what changed since the one before, and what is opened over the last of them is what the guest wrote.
func TestRoundsCopyWhatChanged(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	v := newVolumeUnder(t, h1, "vol_a", 8*mib)
	v.write(1, 0, 6*mib)
	if s := v.round(h2, 1, ""); int64(s.Hydration.Copied) != 6*mib {
		t.Errorf("the first round copied %d bytes", s.Hydration.Copied)
	}
	v.write(2, mib, 64<<10)
	v.discard(2*mib, mib)
	v.split("vol_a.snap") // a snapshot in between
	v.write(3, 7*mib, 4096)
	if s := v.round(h2, 2, ""); s.Hydration.Copied != 64<<10+4096 {
		t.Errorf("the second round copied %d bytes", s.Hydration.Copied)
	}
	v.write(4, 5*mib, 8192)
	if s := must[drover.LayerStatus](t)(h1.Layer(t.Context(), "vol_a")); s.Own < 8192 || s.Own > 64<<10 {
		t.Errorf("the layer says that %d bytes were written since", s.Own)
	}
	e := h1.export("vol_a", "h2")
	e.Since = "vol_a.m.r2"
	h2.clone("vol_a.m", e, "vol_a.m.r2")
	noErr(t, h2.CheckParent(t.Context(), "vol_a.m"))
	v.h, v.id, v.conn = h2, "vol_a.m", h2.open("vol_a.m", 2)
	v.check()
	v.write(5, 3*mib, 4096)
	noErr(t, h2.Hydrate(t.Context(), "vol_a.m", 0))
	if s := h2.hydrated("vol_a.m"); s.Hydration.Copied != 8192 || s.Hydration.Verified != 8192 {
		t.Errorf("after the switch %d bytes were copied, %d compared", s.Hydration.Copied, s.Hydration.Verified)
	}
	for _, h := range []*testHost{h1, h2} {
		for _, id := range []drover.LayerID{"vol_a.m.r1", "vol_a.m.r2"} {
			if h == h1 {
				noErr(t, h.Unexport(t.Context(), id, "h2"))
			}
			noErr(t, h.Delete(t.Context(), id))
		}
	}
	eventually(t, func() error {
		if n := len(must[[]drover.LayerStatus](t)(h2.Layers(t.Context()))); n != 1 {
			return errors.New("the rounds are not taken in yet")
		}
		return nil
	})
	v.check()
	h1.halt() // the source is needed no more
	v.check()
}

// A reader that names a layer that is not there is told of everything.
func TestSinceALayerThatIsGoneIsEverything(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	v := newVolumeUnder(t, h1, "vol_a", 2*mib)
	v.write(1, 0, mib)
	v.round(h2, 1, "")
	v.write(2, 0, 4096)
	e := h1.export("vol_a", "h2")
	e.Since = "vol_a.m.r7"
	h2.clone("vol_a.m", e, "vol_a.m.r1")
	v.h, v.id, v.conn = h2, "vol_a.m", h2.open("vol_a.m", 2)
	v.check()
	noErr(t, h2.Hydrate(t.Context(), "vol_a.m", 0))
	h2.hydrated("vol_a.m")
	v.check()
}
