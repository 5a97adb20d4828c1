package manifest

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drover"
)

var update = flag.Bool("update", false, "write the golden files anew")

// hash makes a hash that is easy to recognise.
func hash(n byte) (h Hash) {
	h[0], h[31] = n, n
	return h
}

// example is a manifest with its pages.
func example() (*Manifest, []*Page) {
	pages := []*Page{
		NewPage(0, map[int64]Hash{0: hash(1), 7: hash(2), 4095: hash(3)}),
		NewPage(2, map[int64]Hash{2 * PageChunks: hash(1), 2*PageChunks + 1: hash(0xab)}),
	}
	m := &Manifest{Volume: "vol_0123456789abcdef", Snapshot: "vs_0123456789abcdef", Parent: "vs_fedcba9876543210", Size: 9 * drover.GiB, Chunks: 5,
		Cipher:  &drover.Cipher{Algorithm: drover.CipherAES256XTS, SectorSize: 512, Key: "key_0123456789abcdef"},
		BegunAt: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	for _, p := range pages {
		m.Pages = append(m.Pages, p.Ref(p.Encode()))
	}
	return m, pages
}

// golden compares with a file of testdata. What was stored once must be readable for ever.
func golden(t *testing.T, name string, got []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s has another form than what is stored already:\n%q\nwant\n%q", name, got, want)
	}
	return want
}

func TestStoredFormsStayReadable(t *testing.T) {
	m, pages := example()
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(golden(t, "manifest.json", b))
	if err != nil {
		t.Fatal(err)
	}
	m.Version, m.Checksum = Version, got.Checksum
	if diff := cmp.Diff(m, got); diff != "" {
		t.Error(diff)
	}
	for i, name := range []string{"page-0", "page-2"} {
		p, err := DecodePage(golden(t, name, pages[i].Encode()))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(pages[i], p, cmp.AllowUnexported(Page{}, entry{})); diff != "" {
			t.Error(diff)
		}
	}
}

func TestPagesAnswerForTheirChunks(t *testing.T) {
	m, pages := example()
	for i, want := range map[int64]byte{0: 1, 1: 0, 7: 2, 4095: 3, 4096: 0, -1: 0, 1 << 40: 0} {
		h, ok := pages[0].Chunk(i)
		if ok != (want != 0) || ok && h != hash(want) {
			t.Errorf("chunk %d is %v, %v", i, h, ok)
		}
	}
	if _, ok := m.Page(1); ok {
		t.Error("there is a page 1")
	}
	if ref, ok := m.Page(2); !ok || ref != m.Pages[1] {
		t.Errorf("page 2 is %v, %v", ref, ok)
	}
	var all []int64
	pages[1].Each(func(i int64, _ Hash) bool { all = append(all, i); return true })
	if diff := cmp.Diff([]int64{2 * PageChunks, 2*PageChunks + 1}, all); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsWrongIsRefused(t *testing.T) {
	good, _ := example()
	for name, spoil := range map[string]func(*Manifest){
		"no volume":            func(m *Manifest) { m.Volume = "" },
		"volume with a path":   func(m *Manifest) { m.Volume = "../x" },
		"no snapshot":          func(m *Manifest) { m.Snapshot = "" },
		"size zero":            func(m *Manifest) { m.Size = 0 },
		"size too large":       func(m *Manifest) { m.Size = MaxSize + 512 },
		"odd size":             func(m *Manifest) { m.Size = drover.GiB + 1 },
		"too small for a page": func(m *Manifest) { m.Size = 8 * drover.GiB },
		"sum of chunks":        func(m *Manifest) { m.Chunks++ },
		"pages out of order":   func(m *Manifest) { m.Pages = []PageRef{m.Pages[1], m.Pages[0]} },
		"page twice":           func(m *Manifest) { m.Pages[1] = m.Pages[0] },
		"empty page":           func(m *Manifest) { m.Pages[0].Chunks, m.Chunks = 0, 2 },
		"too full a page":      func(m *Manifest) { m.Pages[0].Chunks, m.Chunks = PageChunks+1, PageChunks+3 },
	} {
		m, _ := example()
		spoil(m)
		if _, err := m.Encode(); !drover.Is(err, drover.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b, err := good.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for i := range b { // any byte
		c := bytes.Clone(b)
		c[i] ^= 0x20
		if _, err := Decode(c); err == nil {
			t.Errorf("byte %d of the manifest may be anything", i)
		}
	}
	_, err = Decode([]byte(strings.Replace(string(b), `"version":1`, `"version":2`, 1)))
	if !drover.Is(err, drover.Precondition) {
		t.Errorf("a newer version: %v", err)
	}
	if _, err := Decode(make([]byte, MaxEncoded+1)); !drover.Is(err, drover.Internal) {
		t.Errorf("a huge one: %v", err)
	}
}

func TestTheLargestDiskFits(t *testing.T) {
	m := &Manifest{Volume: "vol_0123456789abcdef", Snapshot: "vs_0123456789abcdef", Size: MaxSize}
	for i := range maxPages {
		m.Pages = append(m.Pages, PageRef{Index: i, Chunks: PageChunks, Hash: Sum([]byte{byte(i), byte(i >> 8)})})
		m.Chunks += PageChunks
	}
	b, err := m.Encode()
	if err != nil || len(b) > MaxEncoded {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if _, err := Decode(b); err != nil {
		t.Fatal(err)
	}
}

func TestNamesComeApart(t *testing.T) {
	for s, want := range map[string]Name{
		ManifestName("vol_1", "vs_2"):  {Volume: "vol_1", Kind: KindManifest, Snapshot: "vs_2"},
		PageName("vol_1", hash(7)):     {Volume: "vol_1", Kind: KindPage, Hash: hash(7)},
		ChunkName("vol_1", hash(0xff)): {Volume: "vol_1", Kind: KindChunk, Hash: hash(0xff)},
	} {
		if got, err := ParseName(s); err != nil || got != want {
			t.Errorf("%s is %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "volumes", "volumes/v/chunks", "volumes/v/chunks/ab", "other/v/manifests/x", "volumes/../manifests/x",
		"volumes/v/things/x", "volumes/v/manifests/x/y", "volumes/v/manifests/", "volumes/v/chunks/" + strings.Repeat("A", 64)} {
		if n, err := ParseName(s); !drover.Is(err, drover.Invalid) || n != (Name{}) {
			t.Errorf("%q is %+v, %v", s, n, err)
		}
	}
}

// Whatever is kept, all that it needs stays and nothing else; also when the chunks are gone through part by part.
func TestWhatAKeptSnapshotNeedsIsNeverDeleted(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for round := range 50 {
		var manifests []*Manifest
		pages := map[Hash]*Page{}
		objects := map[string]bool{}
		needs := map[drover.SnapshotID]map[string]bool{}
		for s := range 1 + r.IntN(6) {
			m := &Manifest{Volume: "v", Snapshot: drover.SnapshotID([]byte{'s', byte('0' + s)}), Size: 16 * drover.GiB}
			mine := map[string]bool{ManifestName("v", m.Snapshot): true}
			for index := range int64(4) {
				chunks := map[int64]Hash{}
				for range r.IntN(5) {
					chunks[index*PageChunks+r.Int64N(8)] = Sum([]byte{byte(r.IntN(30))})
				}
				if len(chunks) == 0 {
					continue
				}
				p := NewPage(index, chunks)
				ref := p.Ref(p.Encode())
				pages[ref.Hash] = p
				m.Pages, m.Chunks = append(m.Pages, ref), m.Chunks+int64(ref.Chunks)
				mine[PageName("v", ref.Hash)] = true
				for _, h := range chunks {
					mine[ChunkName("v", h)] = true
				}
			}
			manifests, needs[m.Snapshot] = append(manifests, m), mine
			for o := range mine {
				objects[o] = true
			}
		}
		kept := map[string]bool{}
		digits := []string{""}
		if round%2 == 0 {
			digits = strings.Split("0123456789abcdef", "")
		}
		var parts []*Needed
		for range digits {
			parts = append(parts, NewNeeded("v", digits[len(parts)]))
		}
		for _, m := range manifests {
			if r.IntN(2) == 0 {
				continue
			}
			for o := range needs[m.Snapshot] {
				kept[o] = true
			}
			for _, n := range parts {
				for _, ref := range n.AddManifest(m) {
					n.AddPage(pages[ref.Hash])
				}
			}
		}
		for o := range objects {
			may := false
			for _, n := range parts {
				may = may || n.MayDelete(o)
			}
			if may == kept[o] {
				t.Fatalf("round %d: %s may be deleted: %v, is needed: %v", round, o, may, kept[o])
			}
		}
		for _, o := range []string{"volumes/w/manifests/s9", "volumes/v/notes", "x"} {
			if parts[0].MayDelete(o) {
				t.Fatalf("%s is not ours to delete", o)
			}
		}
	}
}
