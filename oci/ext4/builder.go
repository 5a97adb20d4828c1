package ext4

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Options are what a file system has beside its content.
type Options struct {
	// UUID identifies the file system; it also seeds the checksums. The same content with another UUID is another image.
	UUID [16]byte
	// Label is at most 16 bytes.
	Label string
	// MinSize is the size of the file system unless the content needs more; it is rounded up to GroupSize.
	MinSize int64
	// MaxEntries bounds the number of names that are made, those that are replaced again included; 0 means 4 million.
	MaxEntries int
}

// Result describes a finished image.
type Result struct {
	// Size is the size of the file system and of the file.
	Size int64
	// Used is what the content and the metadata take, holes included.
	Used int64
	// Inodes is the number of files and directories.
	Inodes int
}

// Builder makes one image. It writes contents as they come and the metadata at the end. Not safe for concurrent use.
type Builder struct {
	f       *os.File
	opts    Options
	seed    uint32
	root    *node
	journal []extent
	layer   int
	entries int
	// groups holds the block bitmap of each group that was reached.
	groups []*group
	// next is the first block that was never allocated. It only grows: what is freed stays free, and so the place of a file depends
	// on nothing but the input.
	next uint32
	buf  []byte
}

// group is the state of one block group.
type group struct {
	bitmap [BlockSize]byte
	used   int
	dirs   int
	inodes int
}

// extent is a run of blocks.
type extent struct {
	start uint32
	count uint32
}

// New starts an image in an empty file. The file stays the caller's: it is neither synced nor closed.
func New(f *os.File, opts Options) (*Builder, error) {
	if len(opts.Label) > 16 {
		return nil, inputErrorf("the label %q is longer than 16 bytes", opts.Label)
	}
	if opts.MinSize > MaxSize {
		return nil, inputErrorf("a size of %d bytes is more than the possible %d", opts.MinSize, int64(MaxSize))
	}
	if opts.MaxEntries == 0 {
		opts.MaxEntries = 4_000_000
	}
	b := &Builder{f: f, opts: opts, seed: crc32c(^uint32(0), opts.UUID[:]), root: newDir(Attr{Mode: 0o755}), buf: make([]byte, 1<<20)}
	b.root.links = 1
	b.layer = 1
	b.next = dataStart(0)
	var err error
	b.journal, err = b.alloc(journalBlocks)
	return b, err
}

// groupAt returns a group, making all up to it, each with its own metadata marked as used.
func (b *Builder) groupAt(n int) (*group, error) {
	if n >= maxGroups {
		return nil, inputErrorf("the content needs more than the possible %d bytes", int64(MaxSize))
	}
	for len(b.groups) <= n {
		g := &group{}
		i := len(b.groups)
		for block := uint32(i) * blocksPerGroup; block < dataStart(i); block++ {
			g.mark(block)
		}
		b.groups = append(b.groups, g)
	}
	return b.groups[n], nil
}

func (g *group) mark(block uint32) {
	bit := block % blocksPerGroup
	g.bitmap[bit/8] |= 1 << (bit % 8)
	g.used++
}

func (g *group) clear(block uint32) {
	bit := block % blocksPerGroup
	g.bitmap[bit/8] &^= 1 << (bit % 8)
	g.used--
}

// alloc takes n blocks, in as few runs as the groups' metadata allows.
func (b *Builder) alloc(n uint32) ([]extent, error) {
	var out []extent
	for n > 0 {
		i := int(b.next / blocksPerGroup)
		g, err := b.groupAt(i)
		if err != nil {
			return nil, err
		}
		start := max(b.next, dataStart(i))
		count := min(n, uint32(i+1)*blocksPerGroup-start, maxExtentLen)
		for block := start; block < start+count; block++ {
			g.mark(block)
		}
		out = append(out, extent{start, count})
		b.next = start + count
		n -= count
	}
	return out, nil
}

// release frees blocks and gives their space back to the host.
func (b *Builder) release(extents []extent) error {
	for _, e := range extents {
		g := b.groups[e.start/blocksPerGroup]
		for block := e.start; block < e.start+e.count; block++ {
			g.clear(block)
		}
		err := unix.Fallocate(int(b.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE,
			int64(e.start)*BlockSize, int64(e.count)*BlockSize)
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = b.zero(e) // slower, and the same bytes
		}
		if err != nil {
			return fmt.Errorf("cannot free %d blocks of %s: %w", e.count, b.f.Name(), err)
		}
	}
	return nil
}

func (b *Builder) zero(e extent) error {
	zeroes := make([]byte, BlockSize)
	for block := e.start; block < e.start+e.count; block++ {
		if _, err := b.f.WriteAt(zeroes, int64(block)*BlockSize); err != nil {
			return err
		}
	}
	return nil
}

// File makes a regular file of the size, reading its content. Fewer bytes than the size are an io.ErrUnexpectedEOF.
func (b *Builder) File(p string, attr Attr, size int64, content io.Reader) (err error) {
	if size < 0 || size > MaxSize {
		return inputErrorf("%q has %d bytes, %d are possible", p, size, int64(MaxSize))
	}
	extents, err := b.alloc(uint32((size + BlockSize - 1) / BlockSize))
	if err != nil {
		return fmt.Errorf("%q: %w", p, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.release(extents))
		}
	}()
	left := size
	for _, e := range extents {
		n := min(left, int64(e.count)*BlockSize)
		if err := b.fill(int64(e.start)*BlockSize, n, content); err != nil {
			return fmt.Errorf("%q: %w", p, err)
		}
		left -= n
	}
	return b.put(p, &node{attr: attr, kind: typeReg, size: size, extents: extents})
}

// fill copies n bytes to the offset; blocks of zeroes stay holes.
func (b *Builder) fill(off, n int64, r io.Reader) error {
	for n > 0 {
		part := b.buf[:min(n, int64(len(b.buf)))]
		if _, err := io.ReadFull(r, part); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if err := b.writeSparse(part, off); err != nil {
			return err
		}
		off += int64(len(part))
		n -= int64(len(part))
	}
	return nil
}

// writeSparse writes the runs of blocks that are not zeroes.
func (b *Builder) writeSparse(p []byte, off int64) error {
	start := 0
	flush := func(end int) error {
		if end <= start {
			return nil
		}
		_, err := b.f.WriteAt(p[start:end], off+int64(start))
		return err
	}
	for at := 0; at < len(p); at += BlockSize {
		end := min(at+BlockSize, len(p))
		if !isZero(p[at:end]) {
			continue
		}
		if err := flush(at); err != nil {
			return err
		}
		start = end
	}
	return flush(len(p))
}

func isZero(p []byte) bool { return !slices.ContainsFunc(p, func(c byte) bool { return c != 0 }) }

// writeBlock writes one block of metadata.
func (b *Builder) writeBlock(block uint32, p []byte) error {
	_, err := b.f.WriteAt(p, int64(block)*BlockSize)
	return err
}

// usedBlocks counts what is allocated in the groups that were reached.
func (b *Builder) usedBlocks() int64 {
	n := int64(0)
	for _, g := range b.groups {
		n += int64(g.used)
	}
	return n
}
