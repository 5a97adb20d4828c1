package volume

import (
	"context"
	"crypto/sha256"

	"drover"
	"drover/manifest"
)

// snapshotCheck compares what a layer's disk holds with a snapshot in the object store. It is used by one goroutine.
type snapshotCheck struct {
	snapshot *snapshotParent
	c        *content
	sums     *sums
	// same: the snapshot was made of this very layer, so whatever is different is damage. Else a guest may have written since.
	same bool
	buf  []byte
}

// newSnapshotCheck prepares a comparison of what the layer holds, c, which the caller retains. It waits while the store does not answer.
func (e *env) newSnapshotCheck(ctx context.Context, l *layer, c *content, src drover.SnapshotSource) (*snapshotCheck, error) {
	p := e.newSnapshotParent(src, l.meta().Spec.Cipher, l.log)
	if p.unusable != nil {
		return nil, p.unusable
	}
	if err := p.ask(ctx, func(ctx context.Context) error { _, err := p.load(ctx); return err }); err != nil {
		return nil, err
	}
	up := l.meta().Upload
	return &snapshotCheck{snapshot: p, c: c, sums: c.sums, buf: make([]byte, manifest.ChunkSize),
		same: up != nil && up.Done && up.Snapshot == src.Snapshot && up.Volume == src.Volume}, nil
}

// holds reports whether the snapshot has anything in a run of blocks that does not cross a chunk.
func (s *snapshotCheck) holds(ctx context.Context, first int64) (bool, error) {
	_, there, err := s.snapshot.chunk(ctx, first*blockSize/manifest.ChunkSize)
	return there, err
}

// compare looks at blocks that were read from the disk, a chunk of the snapshot or the beginning of one: how many are as they should
// be, of how many that cannot be told, because a guest may have written them since, and which are different.
func (s *snapshotCheck) compare(ctx context.Context, first int64, p []byte) (checked, unknown int64, different []int64, err error) {
	n := int64(len(p)) / blockSize
	h, there, err := s.snapshot.chunk(ctx, first*blockSize/manifest.ChunkSize)
	if err != nil {
		return 0, 0, nil, err
	}
	if !there && isZero(p) || there && s.hash(p) == h {
		return n, 0, nil, nil
	}
	want := s.buf[:len(p)]
	if err := s.snapshot.read(ctx, hydrationClass, want, first*blockSize); err != nil {
		return 0, 0, nil, err
	}
	for i := range n {
		block := p[i*blockSize : (i+1)*blockSize]
		switch {
		case string(block) == string(want[i*blockSize:(i+1)*blockSize]):
			checked++
		case s.written(first+i, block):
			unknown++
		default:
			checked++
			different = append(different, first+i)
		}
	}
	return checked, unknown, different, nil
}

// hash is that of a chunk of which p is all that there is on the disk.
func (s *snapshotCheck) hash(p []byte) (out manifest.Hash) {
	h := sha256.New()
	h.Write(p)
	for left := manifest.ChunkSize - len(p); left > 0; left -= blockSize {
		h.Write(zeroBlock[:])
	}
	h.Sum(out[:0])
	return out
}

// written reports whether a block that differs from the snapshot may be so because it was written since. One that does not have the
// checksum that it was written with is damaged in any case.
func (s *snapshotCheck) written(block int64, p []byte) bool {
	if s.same {
		return false
	}
	if s.sums == nil {
		return true
	}
	sum := s.sums.get(block)
	return sum == unknownSum || sum == sumOf(p)
}

// againstSnapshot is snapshotSums of the pool's object store.
func (e *env) againstSnapshot(ctx context.Context, l *layer, c *content, src drover.SnapshotSource) (chunkSums, error) {
	if m := l.meta(); m.Spec.Base != "" || m.parent() != nil {
		return nil, drover.Errorf(drover.Precondition, "layer %s does not hold all of its disk itself now", l.id).
			WithHint("ask again when its hydration, or the snapshot that is being taken of it, is done")
	}
	check, err := e.newSnapshotCheck(ctx, l, c, src)
	if err != nil {
		return nil, err
	}
	return snapshotRef{check, ctx}, nil
}

// snapshotRef is a snapshot that a layer is compared with. ctx ends with the comparison.
type snapshotRef struct {
	check *snapshotCheck
	ctx   context.Context
}

var _ chunkSums = snapshotRef{}

func (r snapshotRef) chunk() int64 { return manifest.ChunkSize / blockSize }

// has includes what only the snapshot has: the layer may have lost it.
func (r snapshotRef) has(first, _ int64, data bool) bool {
	there, err := r.check.holds(r.ctx, first)
	return data || there || err != nil
}

func (r snapshotRef) compare(ctx context.Context, first int64, p []byte) (out comparison, err error) {
	out.checked, out.unknown, out.different, err = r.check.compare(ctx, first, p)
	return out, err
}

// resolve looks at a block once more while nobody writes it: it may have been written while the snapshot's was fetched.
func (r snapshotRef) resolve(_ context.Context, block int64) (outcome, error) {
	if r.check.same || r.check.c.sums == nil {
		return outcomeDamaged, nil
	}
	_, same, err := keptSums{c: r.check.c}.look(block)
	if err != nil || same {
		return outcomeSame, err
	}
	return outcomeDamaged, nil
}
