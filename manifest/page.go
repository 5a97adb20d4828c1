package manifest

import (
	"cmp"
	"encoding/binary"
	"slices"

	"drover"
)

// The form of a page: a head of 16 bytes (magic with the version, index, number of entries) and an entry of 34 bytes per chunk (its place
// in the page, its hash), by place; big-endian. Its checksum is its name.
const (
	pageMagic = "DRVPAGE\x01"
	headSize  = len(pageMagic) + 8
	entrySize = 2 + len(Hash{})
	// MaxPageEncoded bounds an encoded page.
	MaxPageEncoded = headSize + PageChunks*entrySize
)

// Page lists the chunks of one part of a snapshot.
type Page struct {
	Index   int64
	entries []entry
}

type entry struct {
	slot uint16
	hash Hash
}

// NewPage makes a page of chunks by their index on the disk. All must lie in the page.
func NewPage(index int64, chunks map[int64]Hash) *Page {
	p := &Page{Index: index, entries: make([]entry, 0, len(chunks))}
	for i, h := range chunks {
		p.entries = append(p.entries, entry{uint16(i - index*PageChunks), h})
	}
	slices.SortFunc(p.entries, func(a, b entry) int { return cmp.Compare(a.slot, b.slot) })
	return p
}

// Len is how many chunks the page has.
func (p *Page) Len() int { return len(p.entries) }

// Chunk returns the hash of a chunk by its index on the disk; false if it holds only zeroes.
func (p *Page) Chunk(i int64) (Hash, bool) {
	slot := i - p.Index*PageChunks
	if slot < 0 || slot >= PageChunks {
		return Hash{}, false
	}
	at, ok := slices.BinarySearchFunc(p.entries, uint16(slot), func(e entry, s uint16) int { return cmp.Compare(e.slot, s) })
	if !ok {
		return Hash{}, false
	}
	return p.entries[at].hash, true
}

// Each calls fn for each chunk, with its index on the disk, in order, until fn returns false.
func (p *Page) Each(fn func(i int64, h Hash) bool) {
	for _, e := range p.entries {
		if !fn(p.Index*PageChunks+int64(e.slot), e.hash) {
			return
		}
	}
}

// Encode returns the one form of the page.
func (p *Page) Encode() []byte {
	b := make([]byte, 0, headSize+len(p.entries)*entrySize)
	b = append(b, pageMagic...)
	b = binary.BigEndian.AppendUint32(b, uint32(p.Index))
	b = binary.BigEndian.AppendUint32(b, uint32(len(p.entries)))
	for _, e := range p.entries {
		b = binary.BigEndian.AppendUint16(b, e.slot)
		b = append(b, e.hash[:]...)
	}
	return b
}

// Ref is how a manifest names the page, given its encoded form.
func (p *Page) Ref(encoded []byte) PageRef {
	return PageRef{Index: p.Index, Chunks: len(p.entries), Hash: Sum(encoded)}
}

// DecodePage reads what Encode wrote. The hash of b is the caller's to check, against the manifest.
func DecodePage(b []byte) (*Page, error) {
	if len(b) < headSize || len(b) > MaxPageEncoded || string(b[:len(pageMagic)]) != pageMagic {
		return nil, drover.Errorf(drover.Internal, "this is no page of a snapshot that this program knows (%d bytes)", len(b))
	}
	index := int64(binary.BigEndian.Uint32(b[len(pageMagic):]))
	n := int64(binary.BigEndian.Uint32(b[len(pageMagic)+4:]))
	b = b[headSize:]
	if index >= maxPages || n > PageChunks || int64(len(b)) != n*int64(entrySize) {
		return nil, drover.Errorf(drover.Internal, "a page of a snapshot is damaged: index %d, %d chunks in %d bytes", index, n, len(b))
	}
	p := &Page{Index: index, entries: make([]entry, n)}
	for i := range p.entries {
		e := b[i*entrySize:]
		p.entries[i].slot = binary.BigEndian.Uint16(e)
		copy(p.entries[i].hash[:], e[2:])
		if p.entries[i].slot >= PageChunks || i > 0 && p.entries[i].slot <= p.entries[i-1].slot {
			return nil, drover.Errorf(drover.Internal, "a page of a snapshot is damaged: entry %d is out of order", i)
		}
	}
	return p, nil
}
