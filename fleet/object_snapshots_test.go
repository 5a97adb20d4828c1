package fleet

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"drover"
	"drover/manifest"
)

// memoryObjects is an object store in memory; broken names an object that cannot be read, cut after how many removals it stops answering.
type memoryObjects struct {
	mu      sync.Mutex
	objects map[string][]byte
	broken  string
	cut     int
}

func (m *memoryObjects) Put(_ context.Context, name string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.objects[name] = slices.Clone(data)
	return nil
}

func (m *memoryObjects) Get(_ context.Context, name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.objects[name]
	if !ok || name == m.broken {
		return nil, drover.Errorf(drover.NotFound, "no object %q", name)
	}
	return b, nil
}

func (m *memoryObjects) Has(_ context.Context, name string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.objects[name]
	return ok, nil
}

func (m *memoryObjects) List(_ context.Context, prefix string, fn func(string, drover.Bytes) error) error {
	m.mu.Lock()
	names := map[string]drover.Bytes{}
	for name, b := range m.objects {
		if strings.HasPrefix(name, prefix) {
			names[name] = drover.Bytes(len(b))
		}
	}
	m.mu.Unlock()
	for name, size := range names {
		if err := fn(name, size); err != nil {
			return err
		}
	}
	return nil
}

func (m *memoryObjects) Delete(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cut > 0 {
		if m.cut--; m.cut == 0 {
			return drover.Errorf(drover.Unavailable, "the store does not answer")
		}
	}
	delete(m.objects, name)
	return nil
}

// put stores a snapshot whose chunks have these contents.
func (m *memoryObjects) put(t *testing.T, v drover.VolumeID, id drover.SnapshotID, contents ...string) {
	t.Helper()
	chunks := map[int64]manifest.Hash{}
	for i, c := range contents {
		h := manifest.Sum([]byte(c))
		chunks[int64(i)] = h
		m.objects[manifest.ChunkName(v, h)] = []byte(c)
	}
	page := manifest.NewPage(0, chunks)
	encoded := page.Encode()
	ref := page.Ref(encoded)
	m.objects[manifest.PageName(v, ref.Hash)] = encoded
	mf := manifest.Manifest{Volume: v, Snapshot: id, Size: drover.GiB, Chunks: int64(len(contents)), Pages: []manifest.PageRef{ref}}
	b, err := mf.Encode()
	if err != nil {
		t.Fatal(err)
	}
	m.objects[manifest.ManifestName(v, id)] = b
}

func TestARemovalTakesWhatNoOtherSnapshotNeeds(t *testing.T) {
	const v, other = drover.VolumeID("vol_0123456789abcdef"), drover.VolumeID("vol_fedcba9876543210")
	a, b := drover.SnapshotID("vs_00000000000000aa"), drover.SnapshotID("vs_00000000000000bb")
	has := func(m *memoryObjects, v drover.VolumeID, content string) bool {
		ok, err := m.Has(t.Context(), manifest.ChunkName(v, manifest.Sum([]byte(content))))
		return ok && err == nil
	}
	fresh := func() *memoryObjects {
		m := &memoryObjects{objects: map[string][]byte{}}
		m.put(t, v, a, "shared", "only a")
		m.put(t, v, b, "shared", "only b")
		m.put(t, other, a, "shared", "only a")
		return m
	}
	m := fresh()
	store := NewSnapshotStore(m)
	for range 2 {
		if err := store.Remove(t.Context(), v, a, []drover.SnapshotID{b}); err != nil {
			t.Fatal(err)
		}
	}
	if !has(m, v, "shared") || !has(m, v, "only b") || has(m, v, "only a") || !has(m, other, "only a") {
		t.Errorf("left: %v", m.objects)
	}
	if err := store.Remove(t.Context(), v, b, nil); err != nil {
		t.Fatal(err)
	}
	if len(m.objects) != 4 {
		t.Errorf("left: %v", m.objects)
	}
	// What is kept cannot be read: nothing is removed.
	m = fresh()
	before := len(m.objects)
	m.broken = manifest.ManifestName(v, b)
	if err := NewSnapshotStore(m).Remove(t.Context(), v, a, []drover.SnapshotID{b}); err == nil || len(m.objects) != before {
		t.Errorf("%v; left: %d of %d objects", err, len(m.objects), before)
	}
	// It is cut at each removal, and goes on.
	for k := 1; ; k++ {
		m = fresh()
		m.cut = k
		store = NewSnapshotStore(m)
		err := store.Remove(t.Context(), v, a, []drover.SnapshotID{b})
		if err == nil {
			break
		}
		if err = store.Remove(t.Context(), v, a, []drover.SnapshotID{b}); err != nil || has(m, v, "only a") || !has(m, v, "shared") {
			t.Errorf("cut at %d: %v, left %v", k, err, m.objects)
		}
	}
}
