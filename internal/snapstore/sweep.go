package snapstore

import (
	"context"
	"slices"
	"strings"

	"drover"
	"drover/manifest"
)

// manyChunks is from where on the chunks of a volume are looked at in 16 parts, by the first digit of their hash: the set of them
// takes 32 bytes each.
const manyChunks = 2 << 20

// parts returns the first digits of the hashes that are looked at together.
func parts(chunks int64) []string {
	if chunks <= manyChunks {
		return []string{""}
	}
	return strings.Split("0123456789abcdef", "")
}

// Swept is what a sweep did.
type Swept struct {
	Objects int
	Bytes   drover.Bytes
}

// Sweep deletes all objects of the volume that none of the snapshots to keep needs, their manifests first. Each of keep that has a
// manifest in the store counts; one without (its upload is still to come, or failed) needs nothing. A manifest that is kept and cannot be
// read ends the sweep before anything but manifests was deleted. It may be repeated after an error or a crash at any step.
//
// No upload of the volume may run meanwhile, on any host: what it has stored so far would be deleted.
func (s *Store) Sweep(ctx context.Context, keep []drover.SnapshotID) (Swept, error) {
	var out Swept
	var manifests []*manifest.Manifest
	for _, id := range keep { // asked for by name: a list that is not complete must not cost a snapshot its chunks
		m, _, err := s.Manifest(ctx, id, manifest.Hash{})
		if drover.Is(err, drover.NotFound) {
			continue
		}
		if err != nil {
			return out, err
		}
		manifests = append(manifests, m)
	}
	var chunks int64
	for _, m := range manifests {
		chunks = max(chunks, m.Chunks)
	}
	for i, digits := range parts(chunks) {
		needed, err := s.needed(ctx, manifests, digits)
		if err != nil {
			return out, err
		}
		prefixes := []string{manifest.Prefix(s.volume, manifest.KindChunk) + digits}
		if i == 0 {
			prefixes = append([]string{manifest.Prefix(s.volume, manifest.KindManifest), manifest.Prefix(s.volume, manifest.KindPage)}, prefixes...)
		}
		for _, prefix := range prefixes {
			if err := s.deleteUnneeded(ctx, prefix, needed, &out); err != nil {
				return out, err
			}
		}
	}
	return out, nil
}

// needed collects what manifests need, of the chunks those whose hash begins with digits.
func (s *Store) needed(ctx context.Context, manifests []*manifest.Manifest, digits string) (*manifest.Needed, error) {
	n := manifest.NewNeeded(s.volume, digits)
	for _, m := range manifests {
		for _, ref := range n.AddManifest(m) {
			p, err := s.Page(ctx, ref)
			if err != nil {
				return nil, err
			}
			n.AddPage(p)
		}
	}
	return n, nil
}

// batch bounds how many names are remembered while a list is read; a store need not bear deletions meanwhile.
const batch = 10000

// deleteUnneeded deletes what begins with the prefix and is not needed.
func (s *Store) deleteUnneeded(ctx context.Context, prefix string, needed *manifest.Needed, out *Swept) error {
	for {
		var names []string
		var sizes []drover.Bytes
		err := s.objects.List(ctx, prefix, func(name string, size drover.Bytes) error {
			if needed.MayDelete(name) {
				names, sizes = append(names, name), append(sizes, size)
			}
			if len(names) == batch {
				return errEnough
			}
			return nil
		})
		if err != nil && len(names) < batch {
			return err
		}
		for i, name := range names {
			if err := s.objects.Delete(ctx, name); err != nil {
				return err
			}
			out.Objects, out.Bytes = out.Objects+1, out.Bytes+sizes[i]
		}
		if len(names) < batch {
			return nil
		}
	}
}

// Missing returns the pages of the manifest that must be made again, by index, because the store has them, or a chunk of them, not in its
// list. It is how an upload makes sure, before its manifest says so, that all is there: what was found hours ago may be gone.
func (s *Store) Missing(ctx context.Context, m *manifest.Manifest) (pages map[int64]bool, err error) {
	pages = map[int64]bool{}
	wanted := map[manifest.Hash][]int64{}
	for _, ref := range m.Pages {
		pages[ref.Index] = true
		wanted[ref.Hash] = append(wanted[ref.Hash], ref.Index)
	}
	err = s.objects.List(ctx, manifest.Prefix(s.volume, manifest.KindPage), func(name string, _ drover.Bytes) error {
		if n, err := manifest.ParseName(name); err == nil {
			for _, index := range wanted[n.Hash] {
				delete(pages, index)
			}
		}
		return nil
	})
	if err != nil || len(pages) > 0 {
		return pages, err
	}
	for _, digits := range parts(m.Chunks) {
		needed, err := s.needed(ctx, []*manifest.Manifest{m}, digits)
		if err != nil {
			return nil, err
		}
		found := make([]bool, needed.Chunks())
		err = s.objects.List(ctx, manifest.Prefix(s.volume, manifest.KindChunk)+digits, func(name string, _ drover.Bytes) error {
			if n, err := manifest.ParseName(name); err == nil {
				if i, ok := needed.Chunk(n.Hash); ok {
					found[i] = true
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if !slices.Contains(found, false) {
			continue
		}
		if err := s.pagesOf(ctx, m, needed, found, pages); err != nil {
			return nil, err
		}
	}
	return pages, nil
}

// pagesOf adds the pages in which a needed chunk is not found.
func (s *Store) pagesOf(ctx context.Context, m *manifest.Manifest, needed *manifest.Needed, found []bool, pages map[int64]bool) error {
	for _, ref := range m.Pages {
		p, err := s.Page(ctx, ref)
		if err != nil {
			return err
		}
		p.Each(func(_ int64, h manifest.Hash) bool {
			if i, ok := needed.Chunk(h); ok && !found[i] {
				pages[ref.Index] = true
			}
			return !pages[ref.Index]
		})
	}
	return nil
}

// Remover removes snapshots, of any volume.
type Remover struct {
	objects drover.ObjectStore
	codec   *manifest.Codec
}

// NewRemover returns a Remover of a store.
func NewRemover(objects drover.ObjectStore) (*Remover, error) {
	codec, err := manifest.NewCodec(1)
	if err != nil {
		return nil, err
	}
	return &Remover{objects, codec}, nil
}

// Remove removes a snapshot: its manifest, and everything of the volume that none of the snapshots to keep needs. It may be repeated, and
// goes on where it was cut. What holds for Sweep holds for it. Invalid when the snapshot is among those to keep.
func (r *Remover) Remove(ctx context.Context, volume drover.VolumeID, snapshot drover.SnapshotID, keep []drover.SnapshotID) error {
	if slices.Contains(keep, snapshot) {
		return drover.Errorf(drover.Invalid, "snapshot %s of volume %s cannot be removed and kept", snapshot, volume)
	}
	if err := manifest.CheckSnapshot(snapshot); err != nil {
		return err
	}
	s, err := New(r.objects, volume, r.codec)
	if err != nil {
		return err
	}
	// First, so that no upload compares with it any more.
	if err := r.objects.Delete(ctx, manifest.ManifestName(volume, snapshot)); err != nil {
		return err
	}
	_, err = s.Sweep(ctx, keep)
	return err
}
