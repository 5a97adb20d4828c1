package volume

import (
	"context"
	"errors"
	"io/fs"
	"time"
	"unsafe"

	"drover"
	"drover/nbd"
)

// parentSums compares what came from a parent, and was not written since, with the parent's checksums.
type parentSums struct {
	c   *content
	o   *overlay
	src *source
	// ask does what waits for the parent.
	ask func(do func() error) error
	// from is the first block of the parent's last answer.
	from int64
	sums []uint32
}

var _ chunkSums = (*parentSums)(nil)

func (s *parentSums) chunk() int64 { return maxFetch }

func (s *parentSums) has(first, end int64, _ bool) bool { return !s.o.fetched.none(first, end) }

func (s *parentSums) compare(ctx context.Context, first int64, p []byte) (r comparison, err error) {
	end := first + int64(len(p))/blockSize
	for b := s.o.fetched.next(first, end, true); b < end; b = s.o.fetched.next(b+1, end, true) {
		want, err := s.sumOf(ctx, b)
		if err != nil {
			return r, err
		}
		same := want == sumOf(p[(b-first)*blockSize:(b-first+1)*blockSize])
		switch {
		case !s.o.fetched.get(b): // the guest has written it meanwhile
		case want == unknownSum:
			s.o.fetched.clear(b, b+1)
		case same:
			r.checked++
			s.o.fetched.clear(b, b+1)
		default:
			r.checked++
			r.different = append(r.different, b)
		}
	}
	return r, nil
}

// sumOf returns the parent's checksum of a block.
func (s *parentSums) sumOf(ctx context.Context, block int64) (uint32, error) {
	if at := block - s.from; at >= 0 && at < int64(len(s.sums)) {
		return s.sums[at], nil
	}
	s.from, s.sums = block, s.sums[:0]
	n := min(sumsAtOnce, s.src.blocks-block)
	var extents []nbd.Extent
	err := s.ask(func() (err error) {
		extents, err = s.src.from.extents(ctx, hydrationClass, nbd.ContextSum, block*blockSize, n*blockSize)
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, e := range extents {
		for i := int64(0); i+blockSize <= e.Length && int64(len(s.sums)) < n; i += blockSize {
			s.sums = append(s.sums, e.Flags)
		}
	}
	if len(s.sums) == 0 {
		return 0, drover.Errorf(drover.Internal, "the parent described nothing of %s at offset %d", nbd.ContextSum, block*blockSize)
	}
	return s.sums[0], nil
}

// resolve fetches a block again, unless the guest writes it.
func (s *parentSums) resolve(ctx context.Context, block int64) (outcome, error) {
	want, err := s.sumOf(ctx, block)
	if err != nil {
		return outcomeSame, err
	}
	for range mostRepairs {
		same, err := s.repair(ctx, block, want)
		if err != nil {
			return outcomeSame, err
		}
		if same {
			s.o.fetched.clear(block, block+1)
			return outcomeRepaired, nil
		}
	}
	if !s.o.fetched.get(block) {
		return outcomeSame, nil
	}
	return outcomeDamaged, nil
}

// repair fetches a block, stores it and reads it back. Writers are kept away by the lock of the block's stripe.
func (s *parentSums) repair(ctx context.Context, block int64, want uint32) (same bool, err error) {
	p := make([]byte, 2*blockSize)
	p = p[alignment(p):][:blockSize]
	err = s.ask(func() error { return s.src.from.read(ctx, hydrationClass, p, block*blockSize) })
	if err != nil {
		return false, err
	}
	s.src.count(blockSize)
	c := s.c
	if sumOf(p) != want || c.sums == nil {
		return false, nil
	}
	c.sums.lock(block, block+1)
	defer c.sums.unlock(block, block+1)
	if !s.o.fetched.get(block) {
		return true, nil // the guest wrote it
	}
	f, ok := c.data.(rawWriter)
	if !ok {
		return false, nil
	}
	err = c.sums.writeLocked(p, block*blockSize, func() error { return f.writeAt(p, block*blockSize) })
	c.dirty.Store(true)
	if err == nil {
		err = c.data.Datasync()
	}
	disk := newDiskReader(c.data)
	if err := errors.Join(err, disk.ReadAt(p, block*blockSize), disk.Close()); err != nil {
		return false, ioError(c.name, "repair", err)
	}
	return sumOf(p) == want, nil
}

// rawWriter writes past the sums.
type rawWriter interface {
	writeAt(p []byte, off int64) error
}

// fetchedSuffix tells the map of what is to be compared with the parent from the live map.
const fetchedSuffix = ".fetched"

// openFetched gives the overlay its map of what came from the parent, which outlives the process as the live map does. A layer that
// cannot have it, as for want of memory, compares nothing with its parent.
func (l *layer) openFetched(o *overlay, head mapHeader) *liveMap {
	if l.meta().parent() == nil {
		return nil
	}
	m, found, err := openLiveMap(l.live+fetchedSuffix, head)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			l.log.Warn("what comes from the parent cannot be compared with it later", "err", err)
		}
		return nil
	}
	if !found {
		m.seal(head)
	}
	o.fetched = m.bitmap
	return m
}

// alignment is how far into p a whole block begins in memory, as reads past the page cache want it.
func alignment(p []byte) int {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	return int(-at & (blockSize - 1))
}

// verify compares what was fetched, as the disk has it now, with the checksums of the parent, and fetches again what is different. The
// parent is needed until it is done.
func (h *hydration) verify(ctx context.Context) error {
	v := h.pace.verification
	if v == nil {
		return nil
	}
	total, _, _ := h.src.progress(h.o)
	v.begin(total)
	if h.o.fetched == nil {
		v.update(func(now *drover.Verification) {
			now.Problem, now.Unknown = "it is not known what came from the parent", total
		})
		return nil
	}
	begun := time.Now()
	ref := &parentSums{c: h.c, o: h.o, src: h.src, ask: h.pace.ask}
	err := h.c.compare(ctx, ref, v, func(ctx context.Context, n int64) error {
		h.pace.touch()
		return h.yield(ctx)
	})
	if drover.Is(err, drover.Precondition) { // an older daemon
		v.update(func(now *drover.Verification) { now.Problem = err.Error() })
		return nil
	}
	if err != nil {
		return err
	}
	h.pace.compared.Store(int64(time.Since(begun)))
	v.update(func(now *drover.Verification) { now.Unknown = max(0, total-now.Checked) })
	if damaged := v.status().Damaged; len(damaged) > 0 {
		return drover.Errorf(drover.Internal, "%s, although it was fetched %d times more; the parent is kept",
			describeDamage(h.c.disk, h.c.name, damaged), mostRepairs)
	}
	return h.c.Flush(ctx)
}
