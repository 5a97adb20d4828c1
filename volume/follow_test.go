package volume

import (
	"fmt"
	"slices"
	"testing"

	"drover"
)

// TestAFollowerGetsInEachStepOnlyWhatChanged follows a volume from host to host in steps, each a change to the one before, while layers are
// split off for snapshots in between, blocks are discarded and the volume grows. What was promoted from the last whole step holds what the volume
// held then.
func TestAFollowerGetsInEachStepOnlyWhatChanged(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	v := newVolumeUnder(t, h1, "vol", 16*mib)
	v.write(1, 0, 8*mib)
	var moment []byte
	source := func(n int) drover.LayerID { return drover.LayerID(fmt.Sprintf("vol.r%d", n)) }
	copied := func(n int) drover.LayerID { return drover.LayerID(fmt.Sprintf("vol.t%d", n)) }
	step := func(n int) drover.Bytes {
		t.Helper()
		v.split(source(n))
		moment = slices.Clone(v.model)
		e := h1.export(source(n), "h2")
		base := drover.LayerID("")
		if n > 1 {
			base = copied(n - 1)
			e.Since = source(n - 1)
		}
		v.write(uint64(100+n), 9*mib, 3*blockSize) // what comes after the moment is not in the step
		h2.clone(copied(n), e, base)
		noErr(t, h2.Hydrate(t.Context(), copied(n), 0))
		s := h2.hydrated(copied(n))
		must[drover.LayerStatus](t)(h2.Freeze(t.Context(), copied(n)))
		noErr(t, h1.Unexport(t.Context(), source(n), "h2"))
		if n > 1 {
			noErr(t, h2.Delete(t.Context(), copied(n-1)))
			noErr(t, h1.Delete(t.Context(), source(n-1)))
		}
		holds(t, h2.dial(string(copied(n))), moment)
		return s.Hydration.Copied
	}
	if got := step(1); got != 8*drover.MiB {
		t.Errorf("the first step copied %d bytes", got)
	}
	v.write(2, 3*mib, 4*blockSize)
	if got := step(2); got > 20*blockSize {
		t.Errorf("the second step copied %d bytes", got)
	}
	v.write(3, mib, 2*blockSize)
	v.split("vol.snapshot") // stays under the volume, over what the follower has
	v.discard(4*mib, 6*blockSize)
	v.write(4, 5*mib, 2*blockSize)
	if got := step(3); got > 20*blockSize {
		t.Errorf("the third step copied %d bytes", got)
	}
	noErr(t, h1.Delete(t.Context(), "vol.snapshot"))
	noErr(t, h1.Resize(t.Context(), "vol", 20*drover.MiB))
	v.conn = h1.dial("vol@1")
	v.model = append(v.model, make([]byte, 4*mib)...)
	v.write(5, 17*mib, blockSize)
	if got := step(4); got > 20*blockSize {
		t.Errorf("the fourth step copied %d bytes", got)
	}
	v.write(6, 2*mib, blockSize)

	// A step that is not whole is given up; the last whole one becomes the volume.
	v.split(source(5))
	e := h1.export(source(5), "h2")
	e.Since = source(4)
	h2.clone(copied(5), e, copied(4))
	h1.halt()
	noErr(t, h2.Delete(t.Context(), copied(5)))
	must[drover.LayerStatus](t)(h2.CreateLayer(t.Context(), drover.LayerSpec{ID: "vol.p", Disk: "vol", Size: 20 * drover.MiB, Base: copied(4), Cipher: e.Cipher}))
	noErr(t, h2.Delete(t.Context(), copied(4)))
	holds(t, h2.open("vol.p", 2), moment)
}
