package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"drover"
	"drover/internal/fault"
	"drover/nbd"
)

// lossy makes a clone on h2 of four blocks of data, of which the last came before the source died.
func lossy(t *testing.T, h1, h2 *testHost) *nbd.Client {
	t.Helper()
	h1.create("vol_a", drover.MiB)
	w := h1.open("vol_a", 1)
	noErr(t, w.WriteAt(t.Context(), pattern(1, 3*blockSize), 0, false))
	noErr(t, w.WriteAt(t.Context(), pattern(2, blockSize), byteOf(200), false))
	h2.clone("vol_a.m", h1.export("vol_a", "h2"), "")
	c := h2.open("vol_a.m", 2)
	noErr(t, h2.Hydrate(t.Context(), "vol_a.m", 1)) // one byte a second: it will not get far
	noErr(t, h2.PauseHydration(t.Context(), "vol_a.m", true))
	noErr(t, c.ReadAt(t.Context(), make([]byte, blockSize), byteOf(200)))
	h1.halt()
	return c
}

func byteOf(block int64) int64 { return block * blockSize }

func blocksAt(first, n int64) drover.ByteRange {
	return drover.ByteRange{Offset: drover.Bytes(first * blockSize), Length: drover.Bytes(n * blockSize)}
}

// wantHoles expects a layer to be done but for some ranges, which are told as damaged, too.
func wantHoles(t *testing.T, s drover.LayerStatus, want ...drover.ByteRange) {
	t.Helper()
	var sum drover.Bytes
	for _, r := range want {
		sum += r.Length
	}
	h := s.Hydration
	if h == nil || !h.Done || h.Lost != sum || !slices.Equal(h.Holes, want) {
		t.Fatalf("the copy is %+v, want the holes %v", h, want)
	}
	if v := s.Verification; len(want) > 0 && (v == nil || !v.Done || !slices.Equal(v.Damaged, want)) {
		t.Errorf("verified: %+v", v)
	}
}

// blockHolds expects blocks to read as something, or, without that, to be an error.
func blockHolds(t *testing.T, c *nbd.Client, block int64, want []byte) {
	t.Helper()
	got := make([]byte, blockSize)
	switch err := c.ReadAt(t.Context(), got, byteOf(block)); {
	case want == nil && !drover.Is(err, drover.Internal):
		t.Errorf("block %d: %v, want EIO", block, err)
	case want != nil && err != nil:
		t.Errorf("block %d: %v", block, err)
	case want != nil && !bytes.Equal(got, want):
		t.Errorf("block %d holds something else", block)
	}
}

// A source that is lost is given up: what had not come reads as an error until it is written, and nothing else is lost.
func TestWhatIsWrittenOffIsNeverReadAsZeroes(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	c := lossy(t, h1, h2)
	waits := make(chan error, 1)
	go func() { waits <- c.ReadAt(context.WithoutCancel(t.Context()), make([]byte, blockSize), 0) }()
	for range 2 {
		wantHoles(t, must[drover.LayerStatus](t)(h2.WriteOff(t.Context(), "vol_a.m")), blocksAt(0, 3))
	}
	if err := <-waits; !drover.Is(err, drover.Internal) {
		t.Errorf("the read that waited got %v", err)
	}
	blockHolds(t, c, 2, nil)
	blockHolds(t, c, 200, pattern(2, blockSize))
	blockHolds(t, c, 5, make([]byte, blockSize))
	if err := c.WriteAt(t.Context(), []byte("a part"), 5, false); err == nil {
		t.Error("a part of a hole was written")
	}
	noErr(t, c.WriteAt(t.Context(), pattern(3, blockSize), byteOf(1), true))
	want := []drover.ByteRange{blocksAt(0, 1), blocksAt(2, 1)}
	wantHoles(t, must[drover.LayerStatus](t)(h2.Layer(t.Context(), "vol_a.m")), want...)
	_, err := h2.Split(t.Context(), "vol_a.m", "vol_a.s")
	wantCode(t, err, drover.Precondition)

	h2.halt()
	h2.start()
	c = h2.open("vol_a.m", 3)
	wantHoles(t, must[drover.LayerStatus](t)(h2.Layer(t.Context(), "vol_a.m")), want...)
	blockHolds(t, c, 0, nil)
	blockHolds(t, c, 1, pattern(3, blockSize))
	blockHolds(t, c, 5, make([]byte, blockSize))
	// The source is back: nothing comes from it any more.
	h1.start()
	blockHolds(t, c, 2, nil)
	// It can be grown, which is beyond the source, and moved on, with the holes.
	noErr(t, h2.Resize(t.Context(), "vol_a.m", 2*drover.MiB))
	blockHolds(t, c, 2, nil)
	must[drover.LayerStatus](t)(h2.Freeze(t.Context(), "vol_a.m"))
	noErr(t, h2.Thaw(t.Context(), "vol_a.m"))
	c = h2.open("vol_a.m", 4)
	blockHolds(t, c, 400, make([]byte, blockSize))

	noErr(t, c.WriteAt(t.Context(), pattern(4, blockSize), 0, false))
	noErr(t, c.WriteAt(t.Context(), pattern(4, blockSize), byteOf(2), true))
	eventually(t, func() error {
		_, err := h2.Split(t.Context(), "vol_a.m", "vol_a.s")
		return err
	})
	wantHoles(t, must[drover.LayerStatus](t)(h2.Layer(t.Context(), "vol_a.m")))
	blockHolds(t, c, 2, pattern(4, blockSize))
}

// Of a root disk all counts as lost that may have been the source's, when nobody knows what it had; what is known to be the image's is not.
func TestWhatIsTheImagesIsNotWrittenOff(t *testing.T) {
	for _, asked := range []bool{true, false} {
		t.Run(fmt.Sprintf("asked=%v", asked), func(t *testing.T) {
			ca := newCA(t)
			h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
			for _, h := range []*testHost{h1, h2} {
				importRaw(t, h, "img", pattern(7, mib))
			}
			must[drover.LayerStatus](t)(h1.CreateLayer(t.Context(), drover.LayerSpec{ID: "root_m", Disk: "root_m", Size: drover.MiB, Base: "img"}))
			noErr(t, h1.open("root_m", 1).WriteAt(t.Context(), pattern(1, blockSize), 0, false))
			h2.clone("root_m.m", h1.export("root_m", "h2"), "img")
			c := h2.open("root_m.m", 2)
			if asked {
				blockHolds(t, c, 9, pattern(7, mib)[byteOf(9):byteOf(10)])
			}
			h1.halt()
			s := must[drover.LayerStatus](t)(h2.WriteOff(t.Context(), "root_m.m"))
			if asked {
				wantHoles(t, s, blocksAt(0, 1))
				blockHolds(t, c, 10, pattern(7, mib)[byteOf(10):byteOf(11)])
			} else {
				wantHoles(t, s, blocksAt(0, 256))
				blockHolds(t, c, 10, nil)
			}
		})
	}
}

// Wherever the daemon is killed while something is written off, and the power is cut, the same order again leads to the same holes.
func TestAKillWhileSomethingIsWrittenOff(t *testing.T) {
	for _, point := range []string{"volume.write-off.flushed", "volume.write-off.recorded"} {
		for _, power := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s power=%v", point, power), func(t *testing.T) {
				ca := newCA(t)
				h1 := newHost(t, ca, "h1")
				p := newProcessHost(t, prepareHost(t, ca, "h2"))
				p.start()
				c := lossy(t, h1, p.testHost)
				noErr(t, c.WriteAt(t.Context(), pattern(3, blockSize), byteOf(1), true))
				noErr(t, fault.Arm(p.faults, point, "process"))
				if _, err := p.WriteOff(t.Context(), "vol_a.m"); err == nil {
					t.Fatal("it was not killed")
				}
				if power {
					p.powerCut()
				} else {
					p.kill()
				}
				p.start()
				c = p.open("vol_a.m", 3)
				wantHoles(t, must[drover.LayerStatus](t)(p.WriteOff(t.Context(), "vol_a.m")), blocksAt(0, 1), blocksAt(2, 1))
				blockHolds(t, c, 0, nil)
				blockHolds(t, c, 1, pattern(3, blockSize))
				blockHolds(t, c, 200, pattern(2, blockSize))
				if point == "volume.write-off.recorded" {
					blockHolds(t, c, 5, make([]byte, blockSize))
				}
				noErr(t, errors.Join(p.Close(t.Context(), "vol_a.m"), p.Delete(t.Context(), "vol_a.m")))
			})
		}
	}
}

func importRaw(t *testing.T, h *testHost, id drover.LayerID, data []byte) {
	t.Helper()
	raw := filepath.Join(filepath.Dir(h.cfg.Dir), "raw.img")
	noErr(t, os.WriteFile(raw, data, 0o600))
	must[drover.LayerStatus](t)(h.ImportImage(t.Context(), id, raw))
}
