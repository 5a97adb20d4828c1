package volume

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"drover"
	"drover/internal/testkit/storetest"
	"drover/manifest"
)

// A comparison with a snapshot tells damage from what was written since, and what is whole from both.
func TestComparisonWithASnapshot(t *testing.T) {
	store := storetest.NewMemory()
	h := prepareHost(t, newCA(t), "h1")
	h.cfg.Objects = store
	h.start()
	v := newVolumeUnder(t, h, "vol_a", 4*mib-2*blockSize)
	v.write(1, 0, mib-blockSize)
	v.write(2, 3*mib, mib-2*blockSize)
	v.split("vol_a.s")
	src := *sourceOf(h.uploadDone("vol_a.s", "vs_1"))
	h.halt()

	cfg := must[Config](t)(h.cfg.withDefaults())
	p := must[*pool](t)(openPool(cfg, dialTLS(cfg.TLSDir, false)))
	defer func() { noErr(t, p.close()) }()
	frozen := must[*layer](t)(p.find("vol_a.s"))
	check := must[*snapshotCheck](t)(p.newSnapshotCheck(t.Context(), frozen, frozen.content(), src))
	compare := func(data []byte, checked, unknown int64, different ...int64) {
		t.Helper()
		var sum [2]int64
		var diff []int64
		for off := 0; off < len(data); off += manifest.ChunkSize {
			c, u, d, err := check.compare(t.Context(), int64(off)/blockSize, data[off:min(len(data), off+manifest.ChunkSize)])
			noErr(t, err)
			sum[0], sum[1], diff = sum[0]+c, sum[1]+u, append(diff, d...)
		}
		if sum != [2]int64{checked, unknown} || !slices.Equal(diff, different) {
			t.Errorf("%d blocks were compared, %d not, %v are different", sum[0], sum[1], diff)
		}
	}
	// Only what the two have is looked at, and what is looked at is all that there was to do.
	now := newVerification("vs_1")
	noErr(t, frozen.content().compareAll(t.Context(), snapshotRef{check, t.Context()}, nil, now))
	if got := now.status(); got.Checked != 2*drover.MiB-2*blockSize || got.Total != got.Checked {
		t.Errorf("%+v", got)
	}
	const all = 4*256 - 2
	compare(v.model, all, 0)
	bad := bytes.Clone(v.model)
	bad[5*blockSize+9] ^= 1
	bad[2*mib] = 1 // where the snapshot has nothing
	bad[len(bad)-1] ^= 1
	compare(bad, all, 0, 5, 512, all-1)

	// Of another layer that is different where its guest wrote.
	must[*layer](t)(p.createLayer(t.Context(), drover.LayerSpec{ID: "vol_r", Disk: "vol_r", Size: src.Size, Snapshot: &src}))
	restored := must[*layer](t)(p.find("vol_r"))
	c := restored.content()
	noErr(t, c.WriteAt(context.Background(), pattern(7, blockSize), 5*blockSize, false))
	check = must[*snapshotCheck](t)(p.newSnapshotCheck(t.Context(), restored, restored.content(), src))
	data := bytes.Clone(v.model)
	copy(data[5*blockSize:], pattern(7, blockSize))
	compare(data, all-1, 1)
	data[5*blockSize]++
	compare(data, all, 0, 5)
	if there, err := check.holds(t.Context(), 512); there || err != nil {
		t.Error(there, err)
	}
}
