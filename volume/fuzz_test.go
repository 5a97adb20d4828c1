package volume

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"drover"
)

func FuzzMapHeader(f *testing.F) {
	good := mapHeader{blocks: 1 << 20, incarnation: "0123456789abcdef0123456789abcdef"}
	f.Add(good.encode(mapMagic))
	f.Add([]byte("DROVRMAP"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeMapHeader(b, mapMagic)
		if err == nil && !bytes.Equal(h.encode(mapMagic)[:100], b[:100]) {
			t.Errorf("header %+v was read from something else than it is written as", h)
		}
	})
}

func FuzzMapSector(f *testing.F) {
	present := newBitmap(sectorBlocks + 100)
	present.set(5, 4100)
	for s := range int64(2) {
		b := make([]byte, sectorSize)
		encodeSector(b, s, present)
		f.Add(b, s)
	}
	f.Fuzz(func(t *testing.T, b []byte, s int64) {
		if len(b) != sectorSize || s < 0 || s > 1 {
			return
		}
		got := newBitmap(sectorBlocks + 100)
		if err := decodeSector(b, s, got); err != nil {
			return
		}
		if got.count(0, got.n) != int64(popcount(got.words)) {
			t.Error("bits beyond the end were taken over")
		}
	})
}

func popcount(words []uint64) (n int64) {
	b := &bitmap{words: words, n: int64(len(words)) * 64}
	return b.count(0, b.n)
}

func FuzzMeta(f *testing.F) {
	m := &meta{Incarnation: "x", Spec: drover.LayerSpec{ID: "vol_a", Disk: "vol_a", Size: drover.MiB}, State: drover.LayerReady}
	path := filepath.Join(f.TempDir(), "meta.json")
	if err := writeMeta(path, m); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMeta(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseMeta(again); err != nil {
			t.Errorf("what was read cannot be read again: %v", err)
		}
	})
}

func FuzzFence(f *testing.F) {
	r := fenceRecord{Version: fenceVersion, Disk: "vol_a", Epoch: 7}
	r.Checksum = r.sum()
	b, err := json.Marshal(r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseFence(b); err == nil && r.sum() != r.Checksum {
			t.Error("a fence with a wrong checksum was taken")
		}
	})
}

func FuzzExportName(f *testing.F) {
	f.Add("vol_a@7")
	f.Add("vol_a")
	f.Fuzz(func(t *testing.T, name string) {
		id, epoch, _, err := parseName(name)
		if err == nil && epoch != 0 && !bytes.HasPrefix([]byte(name), []byte(id)) {
			t.Errorf("%q gave %q", name, id)
		}
	})
}

func TestBitmapAgainstASlice(t *testing.T) {
	const n = 300
	for first := int64(0); first < n; first += 7 {
		for end := first; end <= n; end += 13 {
			b := newBitmap(n)
			b.set(first, end)
			for i := range int64(n) {
				if b.get(i) != (i >= first && i < end) {
					t.Fatalf("bit %d after set(%d, %d) is %v", i, first, end, b.get(i))
				}
			}
			if b.count(0, n) != end-first || !b.all(first, end) || (first > 0 && !b.none(0, first)) {
				t.Fatalf("count, all or none is wrong for [%d, %d)", first, end)
			}
			if end > first && (b.next(0, n, true) != first || b.next(first, n, false) != end) {
				t.Fatalf("next is wrong for [%d, %d)", first, end)
			}
		}
	}
}
