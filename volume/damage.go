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

// whoKey marks a context: who reads under it, when it is no guest.
type whoKey struct{}

type who int

const (
	guestReader who = iota
	// othersReader is another host, or a snapshot that others will be made of: it says nothing of what the guest will want next.
	othersReader
	// copyReader moves blocks to another file of this layer with the sums that they should have, and so takes what is damaged along.
	copyReader
)

func readerOf(ctx context.Context) who {
	r, _ := ctx.Value(whoKey{}).(who)
	return r
}

// ReadForOthers is ReadAt for what leaves this host.
func (c *content) ReadForOthers(ctx context.Context, p []byte, off int64) error {
	return c.ReadAt(context.WithValue(ctx, whoKey{}, othersReader), p, off)
}

// readToCopy is ReadAt without a look at checksums.
func (c *content) readToCopy(ctx context.Context, p []byte, off int64) error {
	return c.ReadAt(context.WithValue(ctx, whoKey{}, copyReader), p, off)
}

// readData reads present blocks from the data file. One that does not have the checksum that it was written with is an error, which names
// disk, layer and offset.
func (c *content) readData(ctx context.Context, p []byte, off int64) error {
	if err := c.data.ReadAt(p, off); err != nil || c.sums == nil || readerOf(ctx) == copyReader {
		return ioError(c.name, "read", err)
	}
	return c.checkRead(p, off)
}

// checkRead compares what was read with the sums that are known. The blocks that p begins and ends within are read once more as a whole.
func (c *content) checkRead(p []byte, off int64) error {
	if c.sums == nil {
		return nil
	}
	if head := -off & (blockSize - 1); head != 0 {
		n := min(head, int64(len(p)))
		if err := c.checkEdge(p[:n], off); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	whole := len(p) / blockSize * blockSize
	if err := c.check(p[:whole], off/blockSize); err != nil || whole == len(p) {
		return err
	}
	return c.checkEdge(p[whole:], off+int64(whole))
}

// edgeBlocks has buffers for the blocks at the edges of reads.
var edgeBlocks = sync.Pool{New: func() any { return new([blockSize]byte) }}

// checkEdge looks at the block that p is a part of, and makes p that part of what was looked at.
func (c *content) checkEdge(p []byte, off int64) error {
	if c.sums.get(off/blockSize) == unknownSum {
		return nil
	}
	block, _ := edgeBlocks.Get().(*[blockSize]byte)
	defer edgeBlocks.Put(block)
	if err := c.data.ReadAt(block[:], off/blockSize*blockSize); err != nil {
		return ioError(c.name, "read", err)
	}
	if err := c.check(block[:], off/blockSize); err != nil {
		return err
	}
	copy(p, block[off%blockSize:])
	return nil
}

// checkWrite looks at the blocks that a write covers in part only: what it leaves of a damaged one would count as good from then on, since the
// sum of a block that was written in part is made of what the disk has. A disk with sectors of 4 KiB gives the same error when it cannot read
// the one that a part of is to be written.
func (c *content) checkWrite(off, n int64) error {
	if !c.checksWrite(off, n) {
		return nil
	}
	end := off + n
	if off%blockSize != 0 {
		if err := c.checkEdge(nil, off); err != nil || end <= (off/blockSize+1)*blockSize {
			return err
		}
	}
	if end%blockSize == 0 {
		return nil
	}
	return c.checkEdge(nil, end)
}

// checksWrite reports whether checkWrite reads, and so may wait.
func (c *content) checksWrite(off, n int64) bool { return c.sums != nil && (off|n)%blockSize != 0 }

// check compares blocks that were read with their sums. Of those that differ it reports the first and remembers all.
func (c *content) check(p []byte, first int64) (err error) {
	var sums [lookedUp]uint32
	for len(p) > 0 {
		want := sums[:min(len(p)/blockSize, len(sums))]
		c.sums.known(first, want)
		for i, sum := range want {
			block := p[i*blockSize : (i+1)*blockSize]
			if sum == unknownSum || sum == sumOf(block) {
				continue
			}
			// The guest may just have written it: looked at once more with writers kept away.
			if berr := c.recheck(block, first+int64(i)); err == nil {
				err = berr
			}
		}
		p, first = p[len(want)*blockSize:], first+int64(len(want))
	}
	return err
}

// lookedUp is how many sums are looked up together.
const lookedUp = 16

// soundVec reports whether what was read into the buffers has the sums that are known. If not so, or if the buffers do not hold whole
// blocks, ReadAt has to tell: the buffers may be a guest's memory, which changes under the eye of whoever looks.
func (c *content) soundVec(iov [][]byte, off int64) bool {
	if c.sums == nil {
		return true
	}
	n := vecLen(iov)
	if (off|n)%blockSize != 0 {
		return false
	}
	var sums [lookedUp]uint32
	skip := 0 // of the first buffer
	for first, left := off/blockSize, n/blockSize; left > 0; {
		want := sums[:min(left, lookedUp)]
		c.sums.known(first, want)
		for _, sum := range want {
			var got uint32
			if got, iov, skip = sumOfVec(iov, skip); sum != unknownSum && sum != got {
				return false
			}
		}
		first, left = first+int64(len(want)), left-int64(len(want))
	}
	return true
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
