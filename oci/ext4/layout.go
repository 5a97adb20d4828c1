package ext4

import "hash/crc32"

// FormatVersion names the bytes that a Builder makes of its input.
const FormatVersion = "1"

// The fixed geometry. Group metadata is at places that do not depend on the size of the file system, so that data can be
// written before the size is known.
const (
	// BlockSize is the size of a block in bytes.
	BlockSize = 4096
	// GroupSize is the unit in which a file system grows, in bytes.
	GroupSize = blocksPerGroup * BlockSize
	// MaxSize is the largest file system that a Builder makes, in bytes.
	MaxSize = maxGroups * GroupSize

	blocksPerGroup   = 8 * BlockSize // as many as one bitmap block has bits
	inodesPerGroup   = 8192          // one per 16 KiB, as mkfs does
	inodeSize        = 256
	inodeTableBlocks = inodesPerGroup * inodeSize / BlockSize
	descSize         = 32
	descsPerBlock    = BlockSize / descSize
	// maxDescBlocks is the room kept for group descriptors before the metadata of a group; what is not needed is free space.
	maxDescBlocks = 16
	maxGroups     = maxDescBlocks * descsPerBlock
	// journalBlocks is small on purpose: every journal block that a guest writes becomes part of its root disk's layer, which
	// has to be copied when the machine moves.
	journalBlocks = 4096

	rootIno      = 2
	journalIno   = 8
	firstFreeIno = 11

	maxExtentLen  = 32768
	inlineExtents = 4
	leafExtents   = (BlockSize - 12) / 12
	maxNameLen    = 255
	maxLinks      = 65000
	// dirTail is the room of the checksum at the end of a directory block.
	dirTail    = 12
	extraIsize = 32
)

// Feature flags (superblock, s_feature_*).
const (
	compatHasJournal = 0x4
	compatExtAttr    = 0x8
	compatDirIndex   = 0x20

	incompatFiletype = 0x2
	incompatExtents  = 0x40
	incompatFlexBG   = 0x200

	roCompatSparseSuper  = 0x1
	roCompatLargeFile    = 0x2
	roCompatDirNlink     = 0x20
	roCompatExtraIsize   = 0x40
	roCompatMetadataCsum = 0x400
)

// File types in i_mode.
const (
	typeFIFO    = 0x1000
	typeChar    = 0x2000
	typeDir     = 0x4000
	typeBlock   = 0x6000
	typeReg     = 0x8000
	typeSymlink = 0xA000
	typeMask    = 0xF000
)

// hasSuper reports whether a group starts with a copy of the superblock and the descriptors (sparse_super: 0, 1 and the
// powers of 3, 5 and 7).
func hasSuper(group int) bool {
	if group <= 1 {
		return true
	}
	for _, base := range []int{3, 5, 7} {
		n := base
		for n < group {
			n *= base
		}
		if n == group {
			return true
		}
	}
	return false
}

// metaStart is the first block of a group's own metadata: block bitmap, inode bitmap, inode table.
func metaStart(group int) uint32 {
	start := uint32(group) * blocksPerGroup
	if hasSuper(group) {
		start += 1 + maxDescBlocks
	}
	return start
}

func blockBitmapAt(group int) uint32 { return metaStart(group) }
func inodeBitmapAt(group int) uint32 { return metaStart(group) + 1 }
func inodeTableAt(group int) uint32  { return metaStart(group) + 2 }
func dataStart(group int) uint32     { return metaStart(group) + 2 + inodeTableBlocks }

// castagnoli returns the table of crc32c; the package hash/crc32 makes it once and uses the CPU's instruction.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// crc32c continues a checksum the way the kernel does: without the inversions of hash/crc32.
func crc32c(seed uint32, p []byte) uint32 { return ^crc32.Update(^seed, castagnoli(), p) }
