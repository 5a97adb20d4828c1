package snapstore

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"drover"
	"drover/internal/testkit/storetest"
	"drover/manifest"
)

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantCode(t testing.TB, err error, code drover.Code) {
	t.Helper()
	if !drover.Is(err, code) {
		t.Fatalf("got %v, want code %s", err, code)
	}
}

// rig is a store with chunks that are told apart by a number.
type rig struct {
	*Store
	t       *testing.T
	objects *storetest.Memory
}

func newRig(t *testing.T) *rig {
	objects := storetest.NewMemory()
	return &rig{must[*Store](t)(New(objects, "v", must[*manifest.Codec](t)(manifest.NewCodec(1)))), t, objects}
}

func chunk(n int) []byte {
	b := make([]byte, manifest.ChunkSize)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(b[:1000])
	return b
}

// take stores a snapshot with chunks at some places.
func (r *rig) take(id drover.SnapshotID, at map[int64]int) (m *manifest.Manifest, h manifest.Hash) {
	r.t.Helper()
	pages := map[int64]map[int64]manifest.Hash{}
	for i, n := range at {
		c := chunk(n)
		h := manifest.Sum(c)
		must[int64](r.t)(r.PutChunk(r.t.Context(), nil, c, h, true))
		p := pages[i/manifest.PageChunks]
		if p == nil {
			p = map[int64]manifest.Hash{}
			pages[i/manifest.PageChunks] = p
		}
		p[i] = h
	}
	m = &manifest.Manifest{Volume: "v", Snapshot: id, Size: 12 * drover.GiB}
	for index := range int64(3) {
		if pages[index] == nil {
			continue
		}
		ref, _, err := r.PutPage(r.t.Context(), manifest.NewPage(index, pages[index]))
		if err != nil {
			r.t.Fatal(err)
		}
		m.Pages, m.Chunks = append(m.Pages, ref), m.Chunks+int64(ref.Chunks)
	}
	h, _, err := r.PutManifest(r.t.Context(), m)
	if err != nil {
		r.t.Fatal(err)
	}
	return m, h
}

func TestWhatIsReadIsVerified(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	m, h := r.take("s1", map[int64]int{0: 1, 5000: 2})
	got, _, err := r.Manifest(ctx, "s1", h)
	if err != nil || got.Chunks != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	_, _, err = r.Manifest(ctx, "s1", manifest.Hash{1})
	wantCode(t, err, drover.Internal)
	_, _, err = r.Manifest(ctx, "s2", manifest.Hash{})
	wantCode(t, err, drover.NotFound)
	p := must[*manifest.Page](t)(r.Page(ctx, m.Pages[1]))
	hash, _ := p.Chunk(5000)
	buf := make([]byte, manifest.ChunkSize)
	if err := r.Chunk(ctx, buf, hash); err != nil || !bytes.Equal(buf, chunk(2)) {
		t.Fatal(err)
	}
	// One flipped bit on the way is nothing; in the store it is damage, and so is what is gone.
	flips := 0
	r.objects.Change(func(k *storetest.Knobs) { k.Flip = func(string) bool { flips++; return flips == 1 } })
	if err := r.Chunk(ctx, buf, hash); err != nil {
		t.Error(err)
	}
	r.objects.Change(func(k *storetest.Knobs) { k.Flip = nil })
	for _, name := range []string{manifest.ChunkName("v", hash), manifest.PageName("v", m.Pages[1].Hash), manifest.ManifestName("v", "s1")} {
		r.objects.Spoil(name, func(b []byte) []byte { b[len(b)/2] ^= 4; return b })
	}
	if err := r.Chunk(ctx, buf, hash); !Damaged(err) {
		t.Error(err)
	}
	if _, err := r.Page(ctx, m.Pages[1]); !Damaged(err) {
		t.Error(err)
	}
	if _, _, err := r.Manifest(ctx, "s1", h); !Damaged(err) {
		t.Error(err)
	}
	if err := r.Chunk(ctx, buf, manifest.Hash{}); !Damaged(err) || !drover.Is(err, drover.Internal) {
		t.Error(err)
	}
	r.objects.Change(func(k *storetest.Knobs) {
		k.Fail = func(string, string) error { return drover.Errorf(drover.Unavailable, "down") }
	})
	if err := r.Chunk(ctx, buf, hash); Damaged(err) || !drover.Is(err, drover.Unavailable) {
		t.Error(err)
	}
}

func TestRemoveLeavesWhatOthersNeed(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	r.take("s1", map[int64]int{0: 1, 1: 2, 9000: 3})
	r.take("s2", map[int64]int{0: 1, 1: 4, 9000: 3})
	r.take("s3", map[int64]int{3: 2, 9000: 5})
	if err := r.objects.Put(ctx, "volumes/v/notes", nil); err != nil {
		t.Fatal(err)
	}
	if err := r.objects.Put(ctx, "volumes/w/manifests/s1", nil); err != nil {
		t.Fatal(err)
	}
	remover := must[*Remover](t)(NewRemover(r.objects))
	wantCode(t, remover.Remove(ctx, "v", "s1", []drover.SnapshotID{"s1"}), drover.Invalid)
	// Cut anywhere, it ends the same when it is repeated.
	for n := 0; ; n++ {
		left := n
		r.objects.Change(func(k *storetest.Knobs) {
			k.Fail = func(op, _ string) error {
				if left--; left < 0 && op == "delete" {
					return drover.Errorf(drover.Unavailable, "down")
				}
				return nil
			}
		})
		if err := remover.Remove(ctx, "v", "s1", []drover.SnapshotID{"s2", "s3", "coming"}); err == nil {
			break
		} else {
			wantCode(t, err, drover.Unavailable)
		}
		if n == 100 {
			t.Fatal("it has no end")
		}
	}
	r.objects.Change(func(k *storetest.Knobs) { *k = storetest.Knobs{} })
	for _, id := range []drover.SnapshotID{"s2", "s3"} {
		m, _, err := r.Manifest(ctx, id, manifest.Hash{})
		if err != nil {
			t.Fatal(err)
		}
		if missing := must[map[int64]bool](t)(r.Missing(ctx, m)); len(missing) != 0 {
			t.Errorf("%s misses %v", id, missing)
		}
	}
	kinds := map[string]int{}
	for _, name := range r.objects.Names() {
		kinds[strings.Split(name, "/")[2]]++
	}
	// Chunks 1, 4, 3 of s2, 2, 5 of s3; two pages each.
	if kinds["chunks"] != 5 || kinds["pages"] != 4 || kinds["manifests"] != 3 || kinds["notes"] != 1 {
		t.Errorf("what is left is %v", kinds)
	}
	// A manifest that is kept and cannot be read keeps everything.
	r.objects.Spoil(manifest.ManifestName("v", "s2"), func(b []byte) []byte { b[9] ^= 1; return b })
	before := len(r.objects.Names())
	if err := remover.Remove(ctx, "v", "s9", []drover.SnapshotID{"s2", "s3"}); !drover.Is(err, drover.Internal) || len(r.objects.Names()) != before {
		t.Errorf("%v, %d objects of %d are left", err, len(r.objects.Names()), before)
	}
}

func TestMissingFindsWhatIsGone(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	m, _ := r.take("s1", map[int64]int{0: 1, 4096: 2, 9000: 3})
	p := must[*manifest.Page](t)(r.Page(ctx, m.Pages[1]))
	h, _ := p.Chunk(4096)
	if err := r.objects.Delete(ctx, manifest.ChunkName("v", h)); err != nil {
		t.Fatal(err)
	}
	if missing := must[map[int64]bool](t)(r.Missing(ctx, m)); len(missing) != 1 || !missing[1] {
		t.Errorf("missing are %v", missing)
	}
	if err := r.objects.Delete(ctx, manifest.PageName("v", m.Pages[2].Hash)); err != nil {
		t.Fatal(err)
	}
	if missing := must[map[int64]bool](t)(r.Missing(ctx, m)); len(missing) != 1 || !missing[2] {
		t.Errorf("missing are %v", missing)
	}
}

func TestNewestIsTheOneBegunLast(t *testing.T) {
	r := newRig(t)
	if m := must[*manifest.Manifest](t)(r.Newest(t.Context(), "")); m != nil {
		t.Errorf("of nothing it is %+v", m)
	}
	for i, id := range []drover.SnapshotID{"b", "c", "a"} {
		m, _ := r.take(id, map[int64]int{0: i})
		m.BegunAt = m.BegunAt.AddDate(1, i%2, i)
		if _, _, err := r.PutManifest(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	if m := must[*manifest.Manifest](t)(r.Newest(t.Context(), "")); m.Snapshot != "c" {
		t.Errorf("it is %s", m.Snapshot)
	}
	if m := must[*manifest.Manifest](t)(r.Newest(t.Context(), "c")); m.Snapshot != "a" {
		t.Errorf("without c it is %s", m.Snapshot)
	}
	r.objects.Spoil(manifest.ManifestName("v", "c"), func(b []byte) []byte { return b[1:] })
	if m := must[*manifest.Manifest](t)(r.Newest(t.Context(), "")); m.Snapshot != "a" {
		t.Errorf("with c damaged it is %s", m.Snapshot)
	}
}
