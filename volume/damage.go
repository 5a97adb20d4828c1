package volume

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"drover"
)

// maxDamage bounds how many damaged blocks of a layer are remembered; what is beyond is found again.
const maxDamage = 4096

// damage remembers the blocks of a content that do not have the checksum that they were written with.
type damage struct {
	mu     sync.Mutex
	blocks map[int64]uint32 // the sum that the block should have
}

// othersKey marks a context: what is read under it leaves this host.
type othersKey struct{}

// forOthers says who reads: another host, or a snapshot that others will be made of. Such reads are checked against the kept sums. Those
// of the guest itself are not.
func forOthers(ctx context.Context) context.Context { return context.WithValue(ctx, othersKey{}, true) }

func isForOthers(ctx context.Context) bool { return ctx.Value(othersKey{}) != nil }

// ReadChecked is ReadAt for what leaves this host: a block that does not have the checksum that it was written with is an error, which
// names disk, layer and offset.
func (c *content) ReadChecked(ctx context.Context, p []byte, off int64) error {
	return c.ReadAt(forOthers(ctx), p, off)
}

// readData reads present blocks from the data file, for others only after a look at their checksums.
func (c *content) readData(ctx context.Context, p []byte, off int64) error {
	if c.sums == nil || !isForOthers(ctx) {
		return ioError(c.name, "read", c.data.ReadAt(p, off))
	}
	first, end := blocksOf(off, int64(len(p)))
	whole := p
	if int64(len(p)) != (end-first)*blockSize {
		whole = make([]byte, (end-first)*blockSize)
	}
	if err := c.data.ReadAt(whole, first*blockSize); err != nil {
		return ioError(c.name, "read", err)
	}
	if err := c.check(whole, first); err != nil {
		return err
	}
	if len(whole) != len(p) {
		copy(p, whole[off-first*blockSize:])
	}
	return nil
}

// check compares blocks that were read with their sums. Of those that differ it reports the first and remembers all.
func (c *content) check(p []byte, first int64) (err error) {
	for b := range int64(len(p)) / blockSize {
		block := p[b*blockSize : (b+1)*blockSize]
		want := c.sums.get(first + b)
		if want == unknownSum || want == sumOf(block) {
			continue
		}
		// The guest may just have written it: looked at once more with writers kept away.
		if berr := c.recheck(block, first+b); err == nil {
			err = berr
		}
	}
	return err
}

// recheck reads a block again while nobody writes it.
func (c *content) recheck(block []byte, b int64) error {
	c.sums.lock(b, b+1)
	defer c.sums.unlock(b, b+1)
	if err := c.data.ReadAt(block, b*blockSize); err != nil {
		return ioError(c.name, "read", err)
	}
	want, got := c.sums.get(b), sumOf(block)
	if want == unknownSum || want == got {
		return nil
	}
	return c.damaged(b, want, got)
}

// damaged remembers a block that is not what was written, and makes the error that says so.
func (c *content) damaged(block int64, want, got uint32) *drover.Error {
	err := drover.Errorf(drover.Internal, "disk %s is damaged: layer %s has checksum %08x at offset %d where %08x was written",
		c.disk, c.name, got, block*blockSize, want).
		WithHint("write the block again in the guest, or restore the volume from a snapshot")
	d := &c.damage
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.blocks[block]; !known && len(d.blocks) < maxDamage {
		if d.blocks == nil {
			d.blocks = map[int64]uint32{}
		}
		d.blocks[block] = want
	}
	return err
}

// sound forgets a damaged block whose disk gives what was written after all.
func (c *content) sound(block int64) {
	d := &c.damage
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.blocks, block)
}

// damagedRanges lists what is known to be damaged and was not written since.
func (c *content) damagedRanges() []drover.ByteRange {
	d := &c.damage
	d.mu.Lock()
	defer d.mu.Unlock()
	var blocks []int64
	for b, want := range d.blocks {
		if c.sums.get(b) != want {
			delete(d.blocks, b)
			continue
		}
		blocks = append(blocks, b)
	}
	slices.Sort(blocks)
	return rangesOf(blocks)
}

// rangesOf joins sorted blocks into ranges, the first drover.MaxDamaged of them.
func rangesOf(blocks []int64) []drover.ByteRange {
	var out []drover.ByteRange
	for _, b := range blocks {
		at := drover.Bytes(b * blockSize)
		if n := len(out); n > 0 && out[n-1].Offset+out[n-1].Length == at {
			out[n-1].Length += blockSize
			continue
		}
		if len(out) == drover.MaxDamaged {
			break
		}
		out = append(out, drover.ByteRange{Offset: at, Length: blockSize})
	}
	return out
}

// describeDamage says in words what is damaged.
func describeDamage(disk drover.DiskID, layer drover.LayerID, ranges []drover.ByteRange) string {
	return fmt.Sprintf("disk %s is damaged: layer %s does not hold what was written at offset %d, and %d ranges in all",
		disk, layer, ranges[0].Offset, len(ranges))
}
