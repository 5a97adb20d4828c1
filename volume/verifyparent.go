package volume

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
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

// compare looks at what was fetched: at the checksum that was stored with it, so that no disk is read.
func (s *parentSums) compare(ctx context.Context, v *verification, before func(context.Context) error) error {
	fetched, p := s.o.fetched, make([]byte, blockSize)
	var compared int64
	for b := fetched.next(0, fetched.n, true); b < fetched.n; b = fetched.next(b+1, fetched.n, true) {
		if compared%sumsAtOnce == 0 {
			if err := before(ctx); err != nil {
				return err
			}
		}
		compared++
		want, err := s.sumOf(ctx, b)
		if err != nil {
			return err
		}
		got := s.c.sums.get(b)
		if got == unknownSum {
			if err := s.c.data.ReadAt(p, b*blockSize); err != nil {
				return ioError(s.c.name, "read", err)
			}
			got = sumOf(p)
		}
		if err := s.judge(ctx, v, b, want, got); err != nil {
			return err
		}
	}
	return nil
}

// judge takes the two checksums of a block.
func (s *parentSums) judge(ctx context.Context, v *verification, b int64, want, got uint32) error {
	if !s.o.fetched.get(b) { // the guest has written it meanwhile
		return nil
	}
	what := outcomeSame
	if want != unknownSum && want != got {
		var err error
		if what, err = s.resolve(ctx, b, want); err != nil {
			return err
		}
	}
	if what == outcomeDamaged {
		v.damage(b)
		return nil
	}
	s.o.fetched.clear(b, b+1)
	v.update(func(now *drover.Verification) {
		if want != unknownSum {
			now.Checked += blockSize
		}
		if what == outcomeRepaired {
			now.Repaired += blockSize
		}
	})
	return nil
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
func (s *parentSums) resolve(ctx context.Context, block int64, want uint32) (outcome, error) {
	p := make([]byte, blockSize)
	for range mostRepairs {
		err := s.ask(func() error { return s.src.from.read(ctx, hydrationClass, p, block*blockSize) })
		if err != nil {
			return outcomeSame, err
		}
		s.src.count(blockSize)
		if sumOf(p) != want {
			continue
		}
		same, err := s.c.putBack(p, block, func() bool { return s.o.fetched.get(block) })
		if err != nil {
			return outcomeSame, err
		}
		if same {
			return outcomeRepaired, nil
		}
	}
	if !s.o.fetched.get(block) {
		return outcomeSame, nil
	}
	return outcomeDamaged, nil
}

// putBack stores a block that is known to be right and reads it back, while writers are kept away by the lock of the block's stripe.
// still says whether nobody has written it; if somebody has, that is right as it is.
func (c *content) putBack(p []byte, block int64, still func() bool) (same bool, err error) {
	f, ok := c.data.(rawWriter)
	if !ok || c.sums == nil {
		return false, nil
	}
	c.sums.lock(block, block+1)
	defer c.sums.unlock(block, block+1)
	if !still() {
		return true, nil
	}
	want := sumOf(p)
	err = c.sums.writeLocked(p, block*blockSize, func() error { return f.writeAt(p, block*blockSize) })
	c.dirty.Store(true)
	if o := c.enter(); o != nil {
		o.touch(block, block+1)
		o.leave()
	}
	if err == nil {
		err = c.data.Datasync()
	}
	if err != nil {
		return false, ioError(c.name, "repair", err)
	}
	got, err := c.diskSum(block)
	return got == want, err
}

// rawWriter writes past the sums.
type rawWriter interface {
	writeAt(p []byte, off int64) error
}

// fetchedSuffix tells the map of what is to be compared with the parent from the live map.
const fetchedSuffix = ".fetched"

// openFetched gives the overlay its map of what came from the parent, which outlives the process as the live map does. A layer that
// cannot have it, as for want of memory, compares nothing with its parent.
func (e *env) openFetched(o *overlay, rec *meta, head mapHeader, log *slog.Logger) *liveMap {
	if rec.parent() == nil {
		return nil
	}
	m, found, err := openLiveMap(e.livePath(rec)+fetchedSuffix, head)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			log.Warn("what comes from the parent cannot be compared with it later", "err", err)
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

// verify compares the checksums of what was fetched with those of the parent, and fetches again what is different. The hydration
// is not done before; that the disk has it, too, is looked at afterwards, while there is time.
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
	err := ref.compare(ctx, v, func(ctx context.Context) error {
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
			describeDamage(h.c.disk, drover.LayerID(h.c.name.String()), damaged), mostRepairs)
	}
	return h.c.Flush(ctx)
}
