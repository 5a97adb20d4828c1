package snapstore

import (
	"context"
	"errors"

	"drover"
	"drover/manifest"
)

// tries is how often an object is fetched that turns out to be damaged or not there: a reply may have been spoilt on its way.
const tries = 3

// Store is the part of an object store that has the snapshots of one volume. Safe for concurrent use.
type Store struct {
	objects drover.ObjectStore
	volume  drover.VolumeID
	codec   *manifest.Codec
	// rewrite: what is there is written again.
	rewrite bool
}

// New returns the volume's part of the store.
func New(objects drover.ObjectStore, volume drover.VolumeID, codec *manifest.Codec) (*Store, error) {
	if objects == nil {
		return nil, drover.Errorf(drover.Precondition, "there is no object store for the snapshots of volume %s", volume).
			WithHint("object_store in the host's configuration says which one to use")
	}
	if err := manifest.CheckVolume(volume); err != nil {
		return nil, err
	}
	return &Store{objects: objects, volume: volume, codec: codec}, nil
}

// Rewriting returns the store as it is for one who does not rely on what it has: chunks and pages are stored whether they are there or not, which mends those
// that are damaged.
func (s *Store) Rewriting() *Store {
	r := *s
	r.rewrite = true
	return &r
}

// has reports whether there is an object that need not be stored.
func (s *Store) has(ctx context.Context, name string) (bool, error) {
	if s.rewrite {
		return false, nil
	}
	return s.objects.Has(ctx, name)
}

// damage marks an error that says that the store answers and what it has is wrong or missing, so that to ask again will not help.
type damage struct{ error }

func (d damage) Unwrap() error { return d.error }

// Damaged reports whether an error of this package says that what is stored is wrong or missing, and not that the store does not answer.
func Damaged(err error) bool {
	var d damage
	return errors.As(err, &d)
}

// verified gets an object and gives it to check, again if it is damaged or missing.
func (s *Store) verified(ctx context.Context, name string, check func([]byte) error) error {
	var last error
	for range tries {
		b, err := s.objects.Get(ctx, name)
		if err == nil {
			if err = check(b); err == nil {
				return nil
			}
			if drover.Is(err, drover.Precondition) {
				return err // a newer version
			}
		} else if !drover.Is(err, drover.NotFound) {
			return err
		}
		last = err
		if ctx.Err() != nil {
			return drover.Errorf(drover.Canceled, "gave up reading %s: %w", name, context.Cause(ctx))
		}
	}
	return damage{last}
}

// Manifest reads a snapshot's manifest. want is its SHA-256; the zero hash takes any. NotFound when there is none.
func (s *Store) Manifest(ctx context.Context, snapshot drover.SnapshotID, want manifest.Hash) (m *manifest.Manifest, h manifest.Hash, err error) {
	if err := manifest.CheckSnapshot(snapshot); err != nil {
		return nil, h, err
	}
	err = s.verified(ctx, manifest.ManifestName(s.volume, snapshot), func(b []byte) error {
		if h = manifest.Sum(b); want != (manifest.Hash{}) && h != want {
			return drover.Errorf(drover.Internal, "it is not the manifest that was made: its SHA-256 is %s, not %s", h, want)
		}
		if m, err = manifest.Decode(b); err != nil {
			return err
		}
		if m.Volume != s.volume || m.Snapshot != snapshot {
			return drover.Errorf(drover.Internal, "it is the manifest of snapshot %s of volume %s", m.Snapshot, m.Volume)
		}
		return nil
	})
	if err != nil {
		return nil, h, drover.Errorf(drover.CodeOf(err), "cannot read the manifest of snapshot %s of volume %s: %w", snapshot, s.volume, err)
	}
	return m, h, nil
}

// Page reads a page of a manifest.
func (s *Store) Page(ctx context.Context, ref manifest.PageRef) (p *manifest.Page, err error) {
	err = s.verified(ctx, manifest.PageName(s.volume, ref.Hash), func(b []byte) error {
		if h := manifest.Sum(b); h != ref.Hash {
			return drover.Errorf(drover.Internal, "it is damaged: its SHA-256 is %s", h)
		}
		if p, err = manifest.DecodePage(b); err != nil {
			return err
		}
		if p.Index != ref.Index || p.Len() != ref.Chunks {
			return drover.Errorf(drover.Internal, "it is page %d with %d chunks, not page %d with %d", p.Index, p.Len(), ref.Index, ref.Chunks)
		}
		return nil
	})
	if err != nil {
		return nil, s.mendable(drover.Errorf(missing(err), "cannot read page %d (%s) of a snapshot of volume %s: %w", ref.Index, ref.Hash, s.volume, err))
	}
	return p, nil
}

// Chunk reads a chunk into p, which has manifest.ChunkSize bytes.
func (s *Store) Chunk(ctx context.Context, p []byte, h manifest.Hash) error {
	err := s.verified(ctx, manifest.ChunkName(s.volume, h), func(b []byte) error { return s.codec.Decode(p, b, h) })
	if err != nil {
		return s.mendable(drover.Errorf(missing(err), "cannot read a chunk of volume %s: %w", s.volume, err))
	}
	return nil
}

// mendable adds what can be done about an object that is damaged.
func (s *Store) mendable(err *drover.Error) error {
	if !Damaged(err) {
		return err
	}
	return err.WithHint("as far as the volume still holds it, this stores it again, for older snapshots too: drover volume snapshot create %s --full", s.volume)
}

// missing is the code for an object that must be there.
func missing(err error) drover.Code {
	if drover.Is(err, drover.NotFound) {
		return drover.Internal
	}
	return drover.CodeOf(err)
}

// PutChunk stores a chunk unless it is there, and returns how many bytes that took. buf is used for its stored form.
func (s *Store) PutChunk(ctx context.Context, buf, chunk []byte, h manifest.Hash, pack bool) (int64, error) {
	name := manifest.ChunkName(s.volume, h)
	if there, err := s.has(ctx, name); err != nil || there {
		return 0, err
	}
	return s.SendChunk(ctx, buf, chunk, h, pack)
}

// SendChunk stores a chunk, whatever is there.
func (s *Store) SendChunk(ctx context.Context, buf, chunk []byte, h manifest.Hash, pack bool) (int64, error) {
	stored := s.codec.Encode(buf[:0], chunk, pack)
	return int64(len(stored)), s.objects.Put(ctx, manifest.ChunkName(s.volume, h), stored)
}

// PutPage stores a page unless it is there.
func (s *Store) PutPage(ctx context.Context, p *manifest.Page) (ref manifest.PageRef, sent int64, err error) {
	b := p.Encode()
	ref = p.Ref(b)
	name := manifest.PageName(s.volume, ref.Hash)
	if there, err := s.has(ctx, name); err != nil || there {
		return ref, 0, err
	}
	return ref, int64(len(b)), s.objects.Put(ctx, name, b)
}

// PutManifest stores a manifest. The snapshot is there from then on, so everything else must be.
func (s *Store) PutManifest(ctx context.Context, m *manifest.Manifest) (manifest.Hash, int64, error) {
	b, err := m.Encode()
	if err != nil {
		return manifest.Hash{}, 0, err
	}
	return manifest.Sum(b), int64(len(b)), s.objects.Put(ctx, manifest.ManifestName(s.volume, m.Snapshot), b)
}

// Newest returns the manifest that was begun last, without that of one snapshot; nil if there is none that can be used. One that is
// damaged counts as none.
func (s *Store) Newest(ctx context.Context, without drover.SnapshotID) (*manifest.Manifest, error) {
	ids, err := s.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	var newest *manifest.Manifest
	for _, id := range ids {
		if id == without {
			continue
		}
		m, _, err := s.Manifest(ctx, id, manifest.Hash{})
		switch {
		case drover.Is(err, drover.Precondition), err != nil && Damaged(err):
			continue
		case err != nil:
			return nil, err
		}
		if newest == nil || m.BegunAt.After(newest.BegunAt) {
			newest = m
		}
	}
	return newest, nil
}

// maxSnapshots bounds how many manifests of one volume are looked at.
const maxSnapshots = 10000

var errEnough = errors.New("there are too many")

// Snapshots lists the snapshots that have a manifest in the store.
func (s *Store) Snapshots(ctx context.Context) ([]drover.SnapshotID, error) {
	var ids []drover.SnapshotID
	err := s.objects.List(ctx, manifest.Prefix(s.volume, manifest.KindManifest), func(name string, _ drover.Bytes) error {
		if n, err := manifest.ParseName(name); err == nil {
			ids = append(ids, n.Snapshot)
		}
		if len(ids) > maxSnapshots {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil, drover.Errorf(drover.Exhausted, "volume %s has more than %d snapshots in the object store", s.volume, maxSnapshots)
	}
	return ids, err
}
