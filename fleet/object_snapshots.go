package fleet

import (
	"context"
	"fmt"

	"drover"
	"drover/manifest"
)

// objectSnapshots removes snapshots from an object store, by the names and forms of package manifest.
type objectSnapshots struct {
	objects drover.ObjectStore
}

var _ SnapshotStore = objectSnapshots{}

// NewSnapshotStore returns the SnapshotStore of an object store.
func NewSnapshotStore(objects drover.ObjectStore) SnapshotStore { return objectSnapshots{objects} }

// Remove removes the manifest first: from then on nothing can be made of the snapshot, and what only it needs is garbage. Everything that is kept is
// read before anything else goes, so that a manifest that cannot be read stops the removal and costs nothing.
func (s objectSnapshots) Remove(ctx context.Context, volume drover.VolumeID, snapshot drover.SnapshotID, keep []drover.SnapshotID) error {
	needed, err := s.needed(ctx, volume, keep)
	if err != nil {
		return err
	}
	if err := s.objects.Delete(ctx, manifest.ManifestName(volume, snapshot)); err != nil {
		return err
	}
	for _, kind := range []manifest.Kind{manifest.KindPage, manifest.KindChunk} {
		var gone []string
		err := s.objects.List(ctx, manifest.Prefix(volume, kind), func(name string, _ drover.Bytes) error {
			if needed.MayDelete(name) {
				gone = append(gone, name)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, name := range gone {
			if err := s.objects.Delete(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// needed reads what the snapshots that are kept need.
func (s objectSnapshots) needed(ctx context.Context, volume drover.VolumeID, keep []drover.SnapshotID) (*manifest.Needed, error) {
	needed := manifest.NewNeeded(volume, "")
	for _, id := range keep {
		b, err := s.objects.Get(ctx, manifest.ManifestName(volume, id))
		if err != nil {
			return nil, fmt.Errorf("cannot read what snapshot %q needs: %w", id, err)
		}
		m, err := manifest.Decode(b)
		if err != nil {
			return nil, fmt.Errorf("cannot read what snapshot %q needs: %w", id, err)
		}
		for _, ref := range needed.AddManifest(m) {
			b, err := s.objects.Get(ctx, manifest.PageName(volume, ref.Hash))
			if err != nil {
				return nil, fmt.Errorf("cannot read what snapshot %q needs: %w", id, err)
			}
			if manifest.Sum(b) != ref.Hash {
				return nil, drover.Errorf(drover.Internal, "page %s of snapshot %q is damaged in the object store", ref.Hash, id)
			}
			page, err := manifest.DecodePage(b)
			if err != nil {
				return nil, fmt.Errorf("cannot read what snapshot %q needs: %w", id, err)
			}
			needed.AddPage(page)
		}
	}
	return needed, nil
}
