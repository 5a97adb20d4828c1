package ext4

import (
	"encoding/binary"
	"fmt"
	"time"
)

// lostFound is where e2fsck puts what it finds; it wants blocks beforehand.
const (
	lostFound       = "lost+found"
	lostFoundBlocks = 4
)

func (n *node) minBlocks() int {
	if n.ino == firstFreeIno {
		return lostFoundBlocks
	}
	return 1
}

// Finish writes the metadata and gives the file its size. The Builder must not be used afterwards.
func (b *Builder) Finish() (Result, error) {
	if err := b.ensureLostFound(); err != nil {
		return Result{}, err
	}
	inodes := b.number()
	images, err := b.layOut(inodes)
	if err != nil {
		return Result{}, err
	}
	groups, err := b.grow(len(images))
	if err != nil {
		return Result{}, err
	}
	// The size first: writing past it would be refused by a file system without room for it.
	if err := b.f.Truncate(int64(groups) * GroupSize); err != nil {
		return Result{}, err
	}
	if err := b.writeInodes(images); err != nil {
		return Result{}, err
	}
	if err := b.writeJournal(); err != nil {
		return Result{}, err
	}
	if err := b.writeGroups(); err != nil {
		return Result{}, err
	}
	return Result{Size: int64(groups) * GroupSize, Used: b.usedBlocks() * BlockSize, Inodes: len(inodes)}, nil
}

func (b *Builder) ensureLostFound() error {
	if d := b.root.children[lostFound]; d != nil {
		if !d.node.isDir() {
			return inputErrorf("/%s is not a directory", lostFound)
		}
		return nil
	}
	return b.Dir(lostFound, Attr{Mode: 0o700, MTime: time.Unix(0, 0)})
}

// numbered is a node with the directory that it was found in first.
type numbered struct {
	node   *node
	parent *node
}

// number gives every node its inode number: the root, lost+found, then breadth first, names in byte order.
func (b *Builder) number() []numbered {
	b.root.ino = rootIno
	first := b.root.children[lostFound].node
	first.ino = firstFreeIno
	out := []numbered{{b.root, b.root}, {first, b.root}}
	next := uint32(firstFreeIno + 1)
	for at := 0; at < len(out); at++ {
		dir := out[at].node
		for _, name := range dir.sortedNames() {
			n := dir.children[name].node
			if n.ino != 0 {
				continue // a hard link, or lost+found
			}
			n.ino = next
			next++
			out = append(out, numbered{n, dir})
		}
	}
	return out
}

// layOut makes the inodes in the order of their numbers, from number 1 on.
func (b *Builder) layOut(list []numbered) ([]*inodeImage, error) {
	images := make([]*inodeImage, firstFreeIno-1, firstFreeIno+len(list))
	for i := range images {
		images[i] = &inodeImage{ino: uint32(i + 1)} // reserved
	}
	for _, n := range list {
		img, err := b.image(n.node, n.parent.ino)
		if err != nil {
			return nil, fmt.Errorf("inode %d: %w", n.node.ino, err)
		}
		if n.node.ino == rootIno {
			images[rootIno-1] = img
		} else {
			images = append(images, img)
		}
		g, err := b.groupAt(int((img.ino - 1) / inodesPerGroup))
		if err != nil {
			return nil, err
		}
		if n.node.isDir() {
			g.dirs++
		}
	}
	j := &inodeImage{ino: journalIno, mode: typeReg | 0o600, attr: Attr{MTime: time.Unix(0, 0)}, links: 1, size: journalBlocks * BlockSize}
	images[journalIno-1] = j
	return images, b.putExtents(j, b.journal)
}

// grow decides the number of groups: the wished size, room for a quarter more than is used and 64 MiB at least, and for the inodes.
func (b *Builder) grow(inodes int) (int, error) {
	used := b.usedBlocks()
	blocks := max((b.opts.MinSize+BlockSize-1)/BlockSize, used+max(used/4, (64<<20)/BlockSize))
	groups := int((blocks + blocksPerGroup - 1) / blocksPerGroup)
	groups = max(groups, (inodes+inodes/8)/inodesPerGroup+1)
	_, err := b.groupAt(groups - 1)
	return len(b.groups), err
}

// writeInodes writes the used part of each group's table; the rest are holes, which read as free inodes.
func (b *Builder) writeInodes(images []*inodeImage) error {
	for i, g := range b.groups {
		if i*inodesPerGroup >= len(images) {
			break
		}
		part := images[i*inodesPerGroup : min((i+1)*inodesPerGroup, len(images))]
		g.inodes = len(part)
		p := make([]byte, 0, len(part)*inodeSize)
		for _, img := range part {
			p = append(p, img.bytes(b.seed)...)
		}
		if err := b.writeSparse(p, int64(inodeTableAt(i))*BlockSize); err != nil {
			return err
		}
	}
	return nil
}

// writeJournal writes the superblock of an empty journal (JBD2, version 2, big-endian).
func (b *Builder) writeJournal() error {
	p := make([]byte, BlockSize)
	be := binary.BigEndian
	be.PutUint32(p[0x00:], 0xC03B3998)
	be.PutUint32(p[0x04:], 4) // superblock, version 2
	be.PutUint32(p[0x0C:], BlockSize)
	be.PutUint32(p[0x10:], journalBlocks)
	be.PutUint32(p[0x14:], 1) // first block of the log
	be.PutUint32(p[0x18:], 1) // first sequence number
	be.PutUint32(p[0x40:], 1) // users
	return b.writeBlock(b.journal[0].start, p)
}

// writeGroups writes bitmaps, descriptors and superblocks with their copies.
func (b *Builder) writeGroups() error {
	descBlocks := (len(b.groups) + descsPerBlock - 1) / descsPerBlock
	// The room for descriptors that are not needed becomes free space.
	for i, g := range b.groups {
		if !hasSuper(i) {
			continue
		}
		start := uint32(i)*blocksPerGroup + 1
		for block := start + uint32(descBlocks); block < start+maxDescBlocks; block++ {
			g.clear(block)
		}
	}
	table := make([]byte, descBlocks*BlockSize)
	for i, g := range b.groups {
		inodeBitmap := make([]byte, BlockSize)
		for bit := range BlockSize * 8 {
			if bit < g.inodes || bit >= inodesPerGroup { // what is past the last inode counts as used
				inodeBitmap[bit/8] |= 1 << (bit % 8)
			}
		}
		if err := b.writeBlock(blockBitmapAt(i), g.bitmap[:]); err != nil {
			return err
		}
		if err := b.writeBlock(inodeBitmapAt(i), inodeBitmap); err != nil {
			return err
		}
		copy(table[i*descSize:], b.desc(i, inodeBitmap))
	}
	for i := range b.groups {
		if !hasSuper(i) {
			continue
		}
		p := make([]byte, BlockSize)
		if i == 0 {
			copy(p[1024:], b.super(0))
		} else {
			copy(p, b.super(i))
		}
		if _, err := b.f.WriteAt(append(p, table...), int64(i)*GroupSize); err != nil {
			return err
		}
	}
	return nil
}

// desc makes a group's descriptor.
func (b *Builder) desc(i int, inodeBitmap []byte) []byte {
	const inodeTableZeroed = 0x4 // holes read as zeroes: the guest need not write them
	g := b.groups[i]
	p := make([]byte, descSize)
	le := binary.LittleEndian
	le.PutUint32(p[0x00:], blockBitmapAt(i))
	le.PutUint32(p[0x04:], inodeBitmapAt(i))
	le.PutUint32(p[0x08:], inodeTableAt(i))
	le.PutUint16(p[0x0C:], uint16(blocksPerGroup-g.used))
	le.PutUint16(p[0x0E:], uint16(inodesPerGroup-g.inodes))
	le.PutUint16(p[0x10:], uint16(g.dirs))
	le.PutUint16(p[0x12:], inodeTableZeroed)
	le.PutUint16(p[0x18:], uint16(crc32c(b.seed, g.bitmap[:])))
	le.PutUint16(p[0x1A:], uint16(crc32c(b.seed, inodeBitmap[:inodesPerGroup/8])))
	le.PutUint16(p[0x1C:], uint16(inodesPerGroup-g.inodes))
	var nr [4]byte
	le.PutUint32(nr[:], uint32(i))
	le.PutUint16(p[0x1E:], uint16(crc32c(crc32c(b.seed, nr[:]), p)))
	return p
}

// super makes the superblock, or the copy of it in a group. Its times are 0: they must not depend on when it was made.
func (b *Builder) super(group int) []byte {
	free, freeInodes := int64(0), 0
	for _, g := range b.groups {
		free += int64(blocksPerGroup - g.used)
		freeInodes += inodesPerGroup - g.inodes
	}
	p := make([]byte, 1024)
	le := binary.LittleEndian
	le.PutUint32(p[0x00:], uint32(len(b.groups)*inodesPerGroup))
	le.PutUint32(p[0x04:], uint32(len(b.groups)*blocksPerGroup))
	le.PutUint32(p[0x0C:], uint32(free))
	le.PutUint32(p[0x10:], uint32(freeInodes))
	le.PutUint32(p[0x18:], 2) // block size: 1024 << 2
	le.PutUint32(p[0x1C:], 2)
	le.PutUint32(p[0x20:], blocksPerGroup)
	le.PutUint32(p[0x24:], blocksPerGroup)
	le.PutUint32(p[0x28:], inodesPerGroup)
	le.PutUint16(p[0x36:], 0xFFFF) // no check after a number of mounts
	le.PutUint16(p[0x38:], 0xEF53)
	le.PutUint16(p[0x3A:], 1) // clean
	le.PutUint16(p[0x3C:], 2) // on errors: read-only
	le.PutUint32(p[0x4C:], 1) // revision: dynamic
	le.PutUint32(p[0x54:], firstFreeIno)
	le.PutUint16(p[0x58:], inodeSize)
	le.PutUint16(p[0x5A:], uint16(group))
	le.PutUint32(p[0x5C:], compatHasJournal|compatExtAttr|compatDirIndex)
	le.PutUint32(p[0x60:], incompatFiletype|incompatExtents|incompatFlexBG)
	le.PutUint32(p[0x64:], roCompatSparseSuper|roCompatLargeFile|roCompatDirNlink|roCompatExtraIsize|roCompatMetadataCsum)
	copy(p[0x68:], b.opts.UUID[:])
	copy(p[0x78:0x88], b.opts.Label)
	le.PutUint32(p[0xE0:], journalIno)
	copy(p[0xEC:], b.opts.UUID[:]) // seed of directory hashes
	p[0xFC] = 1                    // half MD4
	p[0xFD] = 1                    // a copy of the journal's block map follows
	le.PutUint32(p[0x100:], 0x0C)  // mount options: user_xattr, acl
	j := &inodeImage{}
	putExtentNode(j.iblock[:], b.journal, 0, inlineExtents)
	copy(p[0x10C:], j.iblock[:])
	le.PutUint32(p[0x10C+16*4:], journalBlocks*BlockSize)
	le.PutUint16(p[0x15C:], extraIsize)
	le.PutUint16(p[0x15E:], extraIsize)
	le.PutUint32(p[0x160:], 1) // directory hashes of signed characters
	p[0x174] = 4               // 16 groups are one flexible group
	p[0x175] = 1               // checksums: crc32c
	le.PutUint32(p[0x3FC:], crc32c(^uint32(0), p[:0x3FC]))
	return p
}
