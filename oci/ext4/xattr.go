package ext4

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
)

// xattr is one extended attribute in its on-disk form.
type xattr struct {
	index byte
	name  string
	value []byte
}

const (
	xattrMagic = 0xEA020000
	// xattrInline is the room in an inode after the fixed fields and the magic number.
	xattrInline = inodeSize - 128 - extraIsize - 4
	// xattrBlock is the room in a block of its own, after the header.
	xattrBlock       = BlockSize - xattrBlockHeader
	xattrBlockHeader = 32
	xattrEntry       = 16
)

// xattrs translates the attributes of a file. Names of a kind that Linux does not know (macOS archives have some) are left
// out: no Linux file system could hold them.
func (n *node) xattrs() ([]xattr, error) {
	var out []xattr
	for name, value := range n.attr.Xattrs {
		x := xattr{value: []byte(value)}
		prefix, rest, _ := strings.Cut(name, ".")
		switch {
		case name == "system.posix_acl_access", name == "system.posix_acl_default":
			acl, err := diskACL([]byte(value))
			if err != nil {
				return nil, err
			}
			x.index, x.value = 2, acl
			if name == "system.posix_acl_default" {
				x.index = 3
			}
		case prefix == "user":
			x.index, x.name = 1, rest
		case prefix == "trusted":
			x.index, x.name = 4, rest
		case prefix == "security":
			x.index, x.name = 6, rest
		default:
			continue
		}
		if len(x.name) > maxNameLen {
			return nil, inputErrorf("the name of the extended attribute %.40q… has more than %d bytes", name, maxNameLen)
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b xattr) int {
		return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(len(a.name), len(b.name)), cmp.Compare(a.name, b.name))
	})
	if xattrSize(out) > xattrBlock {
		return nil, inputErrorf("extended attributes of %d bytes, %d are possible", xattrSize(out), xattrBlock)
	}
	return out, nil
}

func align4(n int) int { return (n + 3) &^ 3 }

// xattrSize is the room that the entries, their values and the end mark take.
func xattrSize(list []xattr) int {
	n := 4
	for _, x := range list {
		n += xattrEntry + align4(len(x.name)) + align4(len(x.value))
	}
	return n
}

// putXattrs writes entries from the start of p and values from its end. Offsets of values count from base bytes before p.
// It returns the hash over all entries.
func putXattrs(p []byte, base int, list []xattr) uint32 {
	at, end := 0, len(p)
	total := uint32(0)
	for _, x := range list {
		end -= align4(len(x.value))
		copy(p[end:], x.value)
		e := p[at:]
		e[0], e[1] = byte(len(x.name)), x.index
		if len(x.value) > 0 {
			binary.LittleEndian.PutUint16(e[2:], uint16(base+end))
		}
		binary.LittleEndian.PutUint32(e[8:], uint32(len(x.value)))
		hash := x.hash()
		binary.LittleEndian.PutUint32(e[12:], hash)
		copy(e[xattrEntry:], x.name)
		total = total<<16 ^ total>>16 ^ hash
		at += xattrEntry + align4(len(x.name))
	}
	return total
}

// hash is the kernel's ext4_xattr_hash_entry.
func (x xattr) hash() uint32 {
	h := uint32(0)
	for i := range len(x.name) {
		h = h<<5 ^ h>>27 ^ uint32(x.name[i])
	}
	padded := make([]byte, align4(len(x.value)))
	copy(padded, x.value)
	for i := 0; i < len(padded); i += 4 {
		h = h<<16 ^ h>>16 ^ binary.LittleEndian.Uint32(padded[i:])
	}
	return h
}

// xattrBlockBytes makes the block for attributes that do not fit into the inode.
func (b *Builder) xattrBlockBytes(block uint32, list []xattr) []byte {
	p := make([]byte, BlockSize)
	binary.LittleEndian.PutUint32(p, xattrMagic)
	binary.LittleEndian.PutUint32(p[4:], 1) // references
	binary.LittleEndian.PutUint32(p[8:], 1) // blocks
	binary.LittleEndian.PutUint32(p[12:], putXattrs(p[xattrBlockHeader:], xattrBlockHeader, list))
	var nr [8]byte
	binary.LittleEndian.PutUint64(nr[:], uint64(block))
	binary.LittleEndian.PutUint32(p[16:], crc32c(crc32c(b.seed, nr[:]), p))
	return p
}

// diskACL turns a POSIX ACL as programs see it (version 2, 8 bytes an entry) into the form on disk (version 1, where only
// entries that name a user or a group have an ID).
func diskACL(p []byte) ([]byte, error) {
	if len(p) < 4 || (len(p)-4)%8 != 0 || binary.LittleEndian.Uint32(p) != 2 {
		return nil, inputErrorf("a POSIX ACL of %d bytes is not in the known form", len(p))
	}
	out := binary.LittleEndian.AppendUint32(nil, 1)
	for e := p[4:]; len(e) > 0; e = e[8:] {
		out = append(out, e[:4]...)
		if tag := binary.LittleEndian.Uint16(e); tag == 0x02 || tag == 0x08 { // ACL_USER, ACL_GROUP
			out = append(out, e[4:8]...)
		}
	}
	return out, nil
}
