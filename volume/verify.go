package volume

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover"
)

const (
	// againstParent and againstChecksums are Verification.Against.
	againstParent    = "parent"
	againstChecksums = "checksums"
	// mostRepairs is how often a block is fetched again that is not what the parent has.
	mostRepairs = 2
	// sumsAtOnce is for how many blocks the parent is asked at a time.
	sumsAtOnce = maxExtents
)

// chunkSums knows what parts of a layer should hold. It is used by one goroutine.
type chunkSums interface {
	// chunk is how many blocks are compared at a time, maxFetch at most.
	chunk() int64
	// has tells whether the blocks [first, end), which are a chunk, are to be compared. data says that the layer has data there.
	has(first, end int64, data bool) bool
	// compare looks at a chunk that was read from the disk.
	compare(ctx context.Context, first int64, p []byte) (comparison, error)
	// resolve decides about a block that is different.
	resolve(ctx context.Context, block int64) (outcome, error)
}

// comparison is what came of a chunk: how many blocks were compared, of how many nothing is known, and which are different.
type comparison struct {
	checked, unknown int64
	different        []int64
}

// outcome is what became of a block that was different.
type outcome int

const (
	outcomeSame outcome = iota
	outcomeRepaired
	outcomeDamaged
)

// verification is the state of a comparison.
type verification struct {
	mu      sync.Mutex
	now     drover.Verification
	damaged []int64
}

func newVerification(against string) *verification {
	return &verification{now: drover.Verification{Against: against, StartedAt: time.Now().UTC()}}
}

// goOnVerifying is a comparison with the parent that takes up what an earlier process recorded of it.
func goOnVerifying(was *drover.Verification) *verification {
	v := newVerification(againstParent)
	if was != nil && was.Against == againstParent && !was.Done {
		v.now = *was
		v.now.Damaged = nil // found again, as long as it is so
	}
	return v
}

func (v *verification) update(change func(*drover.Verification)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change(&v.now)
}

// begin is called at the beginning, and when a comparison begins anew.
func (v *verification) begin(total drover.Bytes) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.now.Total, v.now.Problem, v.damaged = total, "", nil
}

func (v *verification) damage(block int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.damaged) < maxDamage && !slices.Contains(v.damaged, block) {
		v.damaged = append(v.damaged, block)
	}
}

// status returns a copy.
func (v *verification) status() *drover.Verification {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.now
	slices.Sort(v.damaged)
	now.Damaged = rangesOf(v.damaged)
	return &now
}

// end records how it went.
func (v *verification) end(err error) *drover.Verification {
	v.update(func(now *drover.Verification) {
		now.Done, now.DoneAt = true, time.Now().UTC()
		if err != nil {
			now.Problem = err.Error()
		}
	})
	return v.status()
}

// compare reads the layer from its disk, chunk by chunk, and compares it with what ref says. before is called before each chunk.
func (c *content) compare(ctx context.Context, ref chunkSums, v *verification, before func(ctx context.Context, n int64) error) error {
	disk := newDiskReader(c.data)
	buf := make([]byte, ref.chunk()*blockSize)
	err := c.eachChunk(ref, func(first, end int64) error {
		p := buf[:(end-first)*blockSize]
		if err := before(ctx, int64(len(p))); err != nil {
			return err
		}
		if err := disk.ReadAt(p, first*blockSize); err != nil {
			return ioError(c.name, "read", err)
		}
		return c.compareChunk(ctx, ref, v, first, p)
	})
	return errors.Join(err, disk.Close())
}

// eachChunk goes through the chunks that there is something to compare of.
func (c *content) eachChunk(ref chunkSums, do func(first, end int64) error) error {
	blocks := c.size / blockSize
	dataAt, dataEnd := int64(0), int64(0) // the run of data that was looked at last
	for first := int64(0); first < blocks; first += ref.chunk() {
		end := min(first+ref.chunk(), blocks)
		if dataEnd <= first {
			start, stop, err := c.data.NextData(first*blockSize, c.size)
			if err != nil {
				return ioError(c.name, "examine", err)
			}
			dataAt, dataEnd = start/blockSize, max((stop+blockSize-1)/blockSize, first+1)
		}
		if !ref.has(first, end, dataAt < end && dataAt*blockSize < c.size) {
			continue
		}
		if err := do(first, end); err != nil {
			return err
		}
	}
	return nil
}

func (c *content) compareChunk(ctx context.Context, ref chunkSums, v *verification, first int64, p []byte) error {
	r, err := ref.compare(ctx, first, p)
	if err != nil {
		return err
	}
	var repaired drover.Bytes
	for _, b := range r.different {
		switch what, err := ref.resolve(ctx, b); {
		case err != nil:
			return err
		case what == outcomeRepaired:
			repaired += blockSize
		case what == outcomeDamaged:
			v.damage(b)
		}
	}
	v.update(func(now *drover.Verification) {
		now.Checked += drover.Bytes(r.checked * blockSize)
		now.Unknown += drover.Bytes(r.unknown * blockSize)
		now.Repaired += repaired
	})
	return nil
}

// diskReader reads a data file past the page cache where that is possible: what is to be found out is what the disk has.
type diskReader struct {
	file   file
	direct *os.File
}

func newDiskReader(f file) *diskReader {
	d := &diskReader{file: f}
	if of, ok := f.(osFile); ok {
		// By way of the open file, whose name may have changed.
		if direct, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(of.Fd())), os.O_RDONLY|unix.O_DIRECT, 0); err == nil {
			d.direct = direct
		}
	}
	return d
}

func (d *diskReader) ReadAt(p []byte, off int64) error {
	if d.direct == nil {
		return d.file.ReadAt(p, off)
	}
	_, err := d.direct.ReadAt(p, off)
	if errors.Is(err, unix.EINVAL) {
		return d.file.ReadAt(p, off) // the disk wants another alignment than that of our blocks
	}
	return err
}

func (d *diskReader) Close() error {
	if d.direct == nil {
		return nil
	}
	return d.direct.Close()
}

// readAgain reads what a layer should hold from where it came from.
type readAgain func(ctx context.Context, p []byte, off int64) error

// keptSums compares what a content has on its disk with its own checksums.
type keptSums struct {
	c *content
	// again reads a block from where it came from, in case the disk lost it; nil when that is not known.
	again readAgain
}

var _ chunkSums = keptSums{}

func (k keptSums) chunk() int64 { return maxFetch }

func (k keptSums) has(_, _ int64, data bool) bool { return data }

func (k keptSums) compare(_ context.Context, first int64, p []byte) (r comparison, err error) {
	o := k.c.enter()
	defer o.leave()
	for b := first; len(p) > 0; b, p = b+1, p[blockSize:] {
		if o != nil && !o.present.get(b) {
			continue
		}
		switch want := k.c.sums.get(b); {
		case want != unknownSum:
			r.checked++
			if want != sumOf(p[:blockSize]) {
				r.different = append(r.different, b)
			} else {
				k.c.sound(b)
			}
		case !isZero(p[:blockSize]):
			r.unknown++
		}
	}
	return r, nil
}

func (k keptSums) resolve(ctx context.Context, block int64) (outcome, error) {
	want, same, err := k.look(block)
	if same || err != nil {
		return outcomeSame, err
	}
	p := make([]byte, blockSize)
	for range mostRepairs {
		if k.again == nil || k.again(ctx, p, block*blockSize) != nil || sumOf(p) != want {
			break // where it came from is gone, or the guest had written it
		}
		back, err := k.c.putBack(p, block, func() bool { return k.c.sums.get(block) == want })
		if err != nil {
			return outcomeSame, err
		}
		if back {
			return outcomeRepaired, nil
		}
	}
	if _, same, err = (keptSums{c: k.c}).look(block); same || err != nil {
		return outcomeSame, err
	}
	return outcomeDamaged, ctx.Err()
}

// look compares a block while nobody writes it, and remembers that it is damaged when it is.
func (k keptSums) look(block int64) (want uint32, same bool, err error) {
	k.c.sums.lock(block, block+1)
	defer k.c.sums.unlock(block, block+1)
	got, err := k.c.diskSum(block)
	if err != nil {
		return 0, false, err
	}
	if want = k.c.sums.get(block); want == unknownSum || want == got {
		return want, true, nil
	}
	if k.again == nil {
		k.c.damaged(block, want, got)
	}
	return want, false, nil
}

// diskSum is the checksum of a block as the disk has it.
func (c *content) diskSum(block int64) (uint32, error) {
	p := make([]byte, 2*blockSize)
	p = p[alignment(p):][:blockSize]
	disk := newDiskReader(c.data)
	err := errors.Join(disk.ReadAt(p, block*blockSize), disk.Close())
	return sumOf(p), ioError(c.name, "read", err)
}
