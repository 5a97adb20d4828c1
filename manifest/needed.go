package manifest

import (
	"bytes"
	"slices"
	"strings"

	"drover"
)

// Needed is what some snapshots of one volume need in the object store. Of the chunks it knows only those whose hash begins with
// some hexadecimal digits, so that a volume with very many can be gone through part by part.
type Needed struct {
	volume    drover.VolumeID
	digits    string
	snapshots map[drover.SnapshotID]bool
	pages     map[Hash]bool
	chunks    []Hash
	// sorted is how many of the chunks are sorted, each once.
	sorted int
}

// NewNeeded returns an empty set. digits is empty for all chunks.
func NewNeeded(volume drover.VolumeID, digits string) *Needed {
	return &Needed{volume: volume, digits: digits, snapshots: map[drover.SnapshotID]bool{}, pages: map[Hash]bool{}}
}

// AddManifest adds a snapshot that is kept, and returns those of its pages that are not known yet and must be given to AddPage.
func (n *Needed) AddManifest(m *Manifest) []PageRef {
	n.snapshots[m.Snapshot] = true
	var fresh []PageRef
	for _, p := range m.Pages {
		if !n.pages[p.Hash] {
			n.pages[p.Hash] = true
			fresh = append(fresh, p)
		}
	}
	return fresh
}

// AddPage adds the chunks of a page.
func (n *Needed) AddPage(p *Page) {
	for _, e := range p.entries {
		if n.digits == "" || strings.HasPrefix(e.hash.String(), n.digits) {
			n.chunks = append(n.chunks, e.hash)
		}
	}
	if len(n.chunks) > 2*n.sorted+PageChunks {
		n.compact()
	}
}

func (n *Needed) compact() {
	slices.SortFunc(n.chunks, compareHashes)
	n.chunks = slices.Compact(n.chunks)
	n.sorted = len(n.chunks)
}

func compareHashes(a, b Hash) int { return bytes.Compare(a[:], b[:]) }

// Chunks is how many different chunks are needed.
func (n *Needed) Chunks() int {
	n.compact()
	return len(n.chunks)
}

// Chunk tells whether a chunk is needed, and which of Chunks it is.
func (n *Needed) Chunk(h Hash) (int, bool) {
	if n.sorted != len(n.chunks) {
		n.compact()
	}
	return slices.BinarySearchFunc(n.chunks, h, compareHashes)
}

// Hash is that of the i-th chunk.
func (n *Needed) Hash(i int) Hash { return n.chunks[i] }

// MayDelete tells whether an object of the store is needed by none of the snapshots. It is false for all that is not of the volume, for
// names of an unknown form, and for chunks that the set does not know about.
func (n *Needed) MayDelete(object string) bool {
	name, err := ParseName(object)
	if err != nil || name.Volume != n.volume {
		return false
	}
	switch name.Kind {
	case KindManifest:
		return !n.snapshots[name.Snapshot]
	case KindPage:
		return !n.pages[name.Hash]
	case KindChunk:
		_, needed := n.Chunk(name.Hash)
		return !needed && strings.HasPrefix(name.Hash.String(), n.digits)
	}
	return false
}
