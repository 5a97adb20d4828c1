package volume

import (
	"context"
	"testing"

	"drover"
)

// A small request of a guest to a present block must not allocate: neither in the server nor in the layer, whether the layer is a
// complete one or has a map.
func TestSmallRequestsToALayerDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Log("under the race detector pools drop things at random: checked without it")
		return
	}
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	h1.create("vol_a", 8*drover.MiB)
	whole := h1.open("vol_a", 1)
	noErr(t, whole.WriteAt(t.Context(), pattern(1, mib), 0, false))
	checkAllocs(t, "a complete layer", whole)
	export := h1.export("vol_a", "h2")
	h2.clone("vol_a.m1", export, "")
	clone := h2.open("vol_a.m1", 2)
	noErr(t, clone.WriteAt(t.Context(), pattern(2, mib), 0, false))
	checkAllocs(t, "a clone", clone)
}

func checkAllocs(t *testing.T, what string, c interface {
	ReadAt(ctx context.Context, p []byte, off int64) error
	WriteAt(ctx context.Context, p []byte, off int64, fua bool) error
}) {
	t.Helper()
	p := pattern(3, blockSize)
	for name, do := range map[string]func() error{
		"read":  func() error { return c.ReadAt(t.Context(), p, 8*blockSize) },
		"write": func() error { return c.WriteAt(t.Context(), p, 8*blockSize, false) },
	} {
		var failed error
		allocs := testing.AllocsPerRun(2000, func() {
			if err := do(); err != nil {
				failed = err
			}
		})
		noErr(t, failed)
		if allocs >= 1 {
			t.Errorf("a %s of 4 KiB makes %v allocations in %s", name, allocs, what)
		}
	}
}
