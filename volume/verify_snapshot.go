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
	sums     *sums
	// same: the snapshot was made of this very layer, so whatever is different is damage. Else a guest may have written since.
	same bool
	buf  []byte
}

// newSnapshotCheck prepares a comparison. It waits while the store does not answer.
func (e *env) newSnapshotCheck(ctx context.Context, l *layer, src drover.SnapshotSource) (*snapshotCheck, error) {
	p := e.newSnapshotParent(src, l.meta().Spec.Cipher, l.log)
	if p.unusable != nil {
		return nil, p.unusable
	}
	if err := p.ask(ctx, func(ctx context.Context) error { _, err := p.load(ctx); return err }); err != nil {
		return nil, err
	}
	up := l.meta().Upload
	return &snapshotCheck{snapshot: p, sums: l.content().sums, buf: make([]byte, manifest.ChunkSize),
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
