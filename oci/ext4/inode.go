package ext4

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// Inode flags.
const inodeExtents = 0x80000

// inodeImage is one inode ready to be written.
type inodeImage struct {
	ino    uint32
	mode   uint16
	attr   Attr
	links  int
	size   int64
	flags  uint32
	blocks int64 // data and metadata, in blocks
	iblock [60]byte
	xattrs []xattr
	acl    uint32 // the block with extended attributes, 0 for none
}

// bytes is the form on disk, with its checksum (over the inode's number, its generation, which is 0 here, and its bytes).
func (i *inodeImage) bytes(seed uint32) []byte {
	p := make([]byte, inodeSize)
	le := binary.LittleEndian
	le.PutUint16(p[0x00:], i.mode)
	le.PutUint16(p[0x02:], uint16(i.attr.UID))
	le.PutUint32(p[0x04:], uint32(i.size))
	sec, extra := diskTime(i.attr.MTime)
	for _, at := range []int{0x08, 0x0C, 0x10, 0x90} { // access, change, modification, creation
		le.PutUint32(p[at:], sec)
	}
	for _, at := range []int{0x84, 0x88, 0x8C, 0x94} {
		le.PutUint32(p[at:], extra)
	}
	le.PutUint16(p[0x18:], uint16(i.attr.GID))
	le.PutUint16(p[0x1A:], uint16(i.links))
	sectors := uint64(i.blocks) * (BlockSize / 512)
	le.PutUint32(p[0x1C:], uint32(sectors))
	le.PutUint32(p[0x20:], i.flags)
	copy(p[0x28:], i.iblock[:])
	le.PutUint32(p[0x68:], i.acl)
	le.PutUint32(p[0x6C:], uint32(i.size>>32))
	le.PutUint16(p[0x74:], uint16(sectors>>32))
	le.PutUint16(p[0x78:], uint16(i.attr.UID>>16))
	le.PutUint16(p[0x7A:], uint16(i.attr.GID>>16))
	le.PutUint16(p[0x80:], extraIsize)
	if i.acl == 0 && len(i.xattrs) > 0 {
		le.PutUint32(p[128+extraIsize:], xattrMagic)
		putXattrs(p[128+extraIsize+4:], 0, i.xattrs)
	}
	sum := crc32c(inodeSeed(seed, i.ino), p)
	le.PutUint16(p[0x7C:], uint16(sum))
	le.PutUint16(p[0x82:], uint16(sum>>16))
	return p
}

// inodeSeed starts the checksum of an inode and of what belongs to it.
func inodeSeed(seed, ino uint32) uint32 {
	var id [8]byte // number, generation 0
	binary.LittleEndian.PutUint32(id[:], ino)
	return crc32c(seed, id[:])
}

// diskTime is the 34-bit seconds and 30-bit nanoseconds form. Times that it cannot hold become the nearest that it can.
func diskTime(t time.Time) (sec, extra uint32) {
	const first, last = math.MinInt32, 3<<32 + math.MaxInt32
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	s := min(max(t.Unix(), first), last)
	epoch := (s - int64(int32(s))) >> 32
	return uint32(s), uint32(epoch)&3 | uint32(t.Nanosecond())<<2
}

// putExtents fills the inode's block map. More extents than fit go into leaf blocks of their own.
func (b *Builder) putExtents(i *inodeImage, extents []extent) error {
	i.flags |= inodeExtents
	for _, e := range extents {
		i.blocks += int64(e.count)
	}
	if len(extents) <= inlineExtents {
		putExtentNode(i.iblock[:], extents, 0, inlineExtents)
		return nil
	}
	leaves := (len(extents) + leafExtents - 1) / leafExtents
	if leaves > inlineExtents {
		return inputErrorf("the file is in %d pieces, %d are possible", len(extents), inlineExtents*leafExtents)
	}
	putExtentHeader(i.iblock[:], leaves, inlineExtents, 1)
	logical := uint32(0)
	for n := range leaves {
		at, err := b.alloc(1)
		if err != nil {
			return err
		}
		part := extents[n*leafExtents : min((n+1)*leafExtents, len(extents))]
		idx := i.iblock[12+12*n:]
		binary.LittleEndian.PutUint32(idx, logical)
		binary.LittleEndian.PutUint32(idx[4:], at[0].start)
		p := make([]byte, BlockSize)
		logical = putExtentNode(p, part, logical, leafExtents)
		tail := 12 + 12*leafExtents
		binary.LittleEndian.PutUint32(p[tail:], crc32c(inodeSeed(b.seed, i.ino), p[:tail]))
		if err := b.writeBlock(at[0].start, p); err != nil {
			return err
		}
		i.blocks++
	}
	return nil
}

func putExtentHeader(p []byte, entries, room, depth int) {
	binary.LittleEndian.PutUint16(p, 0xF30A)
	binary.LittleEndian.PutUint16(p[2:], uint16(entries))
	binary.LittleEndian.PutUint16(p[4:], uint16(room))
	binary.LittleEndian.PutUint16(p[6:], uint16(depth))
}

// putExtentNode writes a leaf of the extent tree and returns the logical block after it.
func putExtentNode(p []byte, extents []extent, logical uint32, room int) uint32 {
	putExtentHeader(p, len(extents), room, 0)
	for n, e := range extents {
		at := p[12+12*n:]
		binary.LittleEndian.PutUint32(at, logical)
		binary.LittleEndian.PutUint16(at[4:], uint16(e.count))
		binary.LittleEndian.PutUint32(at[8:], e.start)
		logical += e.count
	}
	return logical
}

// image lays out one node: it allocates and writes what the node needs beside its inode.
func (b *Builder) image(n *node, parent uint32) (*inodeImage, error) {
	i := &inodeImage{ino: n.ino, mode: n.kind | n.attr.Mode&0o7777, attr: n.attr, links: n.links, size: n.size}
	var err error
	switch n.kind {
	case typeDir:
		err = b.putDir(i, n, parent)
	case typeReg:
		err = b.putExtents(i, n.extents)
	case typeSymlink:
		err = b.putSymlink(i, n.target)
	case typeChar, typeBlock:
		putDevice(i, n.device)
	}
	if err != nil {
		return nil, err
	}
	if i.xattrs, err = n.xattrs(); err != nil {
		return nil, err
	}
	if len(i.xattrs) > 0 && xattrSize(i.xattrs) > xattrInline {
		at, err := b.alloc(1)
		if err != nil {
			return nil, err
		}
		i.acl = at[0].start
		i.blocks++
		if err := b.writeBlock(i.acl, b.xattrBlockBytes(i.acl, i.xattrs)); err != nil {
			return nil, err
		}
	}
	return i, nil
}

// putSymlink keeps a short target in the inode, a long one in a block.
func (b *Builder) putSymlink(i *inodeImage, target string) error {
	if len(target) < len(i.iblock) {
		copy(i.iblock[:], target)
		return nil
	}
	at, err := b.alloc(1)
	if err != nil {
		return err
	}
	if err := b.writeBlock(at[0].start, append([]byte(target), make([]byte, BlockSize-len(target))...)); err != nil {
		return err
	}
	return b.putExtents(i, at)
}

// putDevice uses the old 16-bit form where the number fits, the new 32-bit form elsewhere, as the kernel does.
func putDevice(i *inodeImage, device uint64) {
	major, minor := uint32(device>>32), uint32(device)
	if major < 256 && minor < 256 {
		binary.LittleEndian.PutUint32(i.iblock[:], major<<8|minor)
		return
	}
	binary.LittleEndian.PutUint32(i.iblock[4:], minor&0xff|major<<8|minor&^0xff<<12)
}

// direntType is the file type in a directory entry.
func direntType(kind uint16) byte {
	switch kind {
	case typeReg:
		return 1
	case typeDir:
		return 2
	case typeChar:
		return 3
	case typeBlock:
		return 4
	case typeFIFO:
		return 5
	default:
		return 7 // symbolic link
	}
}

// putDir writes a directory's blocks: linear, names in byte order, each block with a checksum in its tail.
func (b *Builder) putDir(i *inodeImage, n *node, parent uint32) error {
	w := dirWriter{}
	w.add(n.ino, ".", 2)
	w.add(parent, "..", 2)
	subdirs := 0
	for _, name := range n.sortedNames() {
		child := n.children[name].node
		if child.isDir() {
			subdirs++
		}
		w.add(child.ino, name, direntType(child.kind))
	}
	w.end()
	for len(w.blocks) < n.minBlocks() {
		w.empty()
	}
	i.links = 2 + subdirs
	if i.links >= maxLinks {
		i.links = 1 // dir_nlink: too many to count
	}
	i.size = int64(len(w.blocks)) * BlockSize
	extents, err := b.alloc(uint32(len(w.blocks)))
	if err != nil {
		return err
	}
	next := 0
	for _, e := range extents {
		for block := e.start; block < e.start+e.count; block++ {
			p := w.blocks[next]
			next++
			tail := p[BlockSize-dirTail:]
			binary.LittleEndian.PutUint16(tail[4:], dirTail)
			tail[7] = 0xDE
			binary.LittleEndian.PutUint32(tail[8:], crc32c(inodeSeed(b.seed, n.ino), p[:BlockSize-dirTail]))
			if err := b.writeBlock(block, p); err != nil {
				return fmt.Errorf("directory %d: %w", n.ino, err)
			}
		}
	}
	return b.putExtents(i, extents)
}

// dirWriter packs directory entries into blocks.
type dirWriter struct {
	blocks [][]byte
	at     int // in the last block
	last   int // where its last entry starts
}

const dirRoom = BlockSize - dirTail

func (w *dirWriter) add(ino uint32, name string, kind byte) {
	need := 8 + align4(len(name))
	if len(w.blocks) == 0 || w.at+need > dirRoom {
		w.end()
		w.blocks = append(w.blocks, make([]byte, BlockSize))
		w.at = 0
	}
	e := w.blocks[len(w.blocks)-1][w.at:]
	binary.LittleEndian.PutUint32(e, ino)
	binary.LittleEndian.PutUint16(e[4:], uint16(need))
	e[6], e[7] = byte(len(name)), kind
	copy(e[8:], name)
	w.last = w.at
	w.at += need
}

// end stretches the last entry to the end of the block.
func (w *dirWriter) end() {
	if len(w.blocks) > 0 {
		binary.LittleEndian.PutUint16(w.blocks[len(w.blocks)-1][w.last+4:], uint16(dirRoom-w.last))
	}
}

// empty appends a block without entries.
func (w *dirWriter) empty() {
	p := make([]byte, BlockSize)
	binary.LittleEndian.PutUint16(p[4:], dirRoom)
	w.blocks = append(w.blocks, p)
}
