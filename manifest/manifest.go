package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"time"

	"drover"
)

// Version is the version of manifests that this program reads and writes.
const Version = 1

const (
	// ChunkSize is what a snapshot is cut into.
	ChunkSize = 1 << 20
	// PageChunks is how many chunks a page lists: 4 GiB of the disk.
	PageChunks = 4096
	// MaxSize bounds a snapshot: the largest disk there is.
	MaxSize = drover.Bytes(16 << 40)
	// maxPages bounds a manifest's list.
	maxPages = int64(MaxSize) / ChunkSize / PageChunks
	// MaxEncoded bounds an encoded manifest.
	MaxEncoded = 1 << 20
)

// Manifest describes one snapshot.
type Manifest struct {
	Version  int               `json:"version"`
	Volume   drover.VolumeID   `json:"volume"`
	Snapshot drover.SnapshotID `json:"snapshot"`
	// Parent is the snapshot of the same volume that this one was compared with when it was made; empty for none. It is there to be
	// read by people: nothing of the parent is needed.
	Parent drover.SnapshotID `json:"parent,omitempty"`
	Size   drover.Bytes      `json:"size"`
	// Chunks counts the chunks that hold something.
	Chunks int64 `json:"chunks"`
	// Cipher is how the content is encrypted; nil for not at all.
	Cipher *drover.Cipher `json:"cipher,omitempty"`
	// BegunAt is when the upload was asked for.
	BegunAt time.Time `json:"begun_at,omitzero"`
	// Pages lists the pages with a chunk in them, by index.
	Pages []PageRef `json:"pages,omitempty"`
	// Checksum is the CRC-32C of the JSON with an empty checksum.
	Checksum string `json:"checksum"`
}

// PageRef names one page of a manifest.
type PageRef struct {
	Index  int64 `json:"index"`
	Chunks int   `json:"chunks"`
	Hash   Hash  `json:"hash"`
}

// Data is how much the snapshot holds, in whole chunks.
func (m *Manifest) Data() drover.Bytes { return drover.Bytes(m.Chunks) * ChunkSize }

// Page returns the reference of a page; false if there is nothing in it.
func (m *Manifest) Page(index int64) (PageRef, bool) {
	low, high := 0, len(m.Pages)
	for low < high {
		if mid := (low + high) / 2; m.Pages[mid].Index < index {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low < len(m.Pages) && m.Pages[low].Index == index {
		return m.Pages[low], true
	}
	return PageRef{}, false
}

// Encode returns the one form of a manifest, which must be right but for version and checksum.
func (m *Manifest) Encode() ([]byte, error) {
	c := *m
	c.Version = Version
	if err := c.check(); err != nil {
		return nil, err
	}
	return c.encode()
}

func (m *Manifest) encode() ([]byte, error) {
	c := *m
	c.Checksum = ""
	b, err := json.Marshal(c)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot encode the manifest of snapshot %s: %w", m.Snapshot, err)
	}
	c.Checksum = fmt.Sprintf("%08x", crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	if b, err = json.Marshal(c); err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot encode the manifest of snapshot %s: %w", m.Snapshot, err)
	}
	return append(b, '\n'), nil
}

// Decode reads what Encode wrote. Internal for a damaged one, Precondition for one of a newer version.
func Decode(b []byte) (*Manifest, error) {
	if len(b) > MaxEncoded {
		return nil, damaged("it has %d bytes, more than any", len(b))
	}
	var version struct{ Version int }
	if err := json.Unmarshal(b, &version); err != nil {
		return nil, damaged("%w", err)
	}
	if version.Version > Version {
		return nil, drover.Errorf(drover.Precondition, "the manifest has version %d; this program knows version %d", version.Version, Version).
			WithHint("update Drover on this host")
	}
	m := &Manifest{}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, damaged("%w", err)
	}
	if err := m.check(); err != nil {
		return nil, damaged("%w", err)
	}
	again, err := m.encode()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, b) {
		return nil, damaged("its checksum or its form is wrong")
	}
	return m, nil
}

func damaged(format string, args ...any) error {
	return drover.Errorf(drover.Internal, "the manifest is damaged: "+format, args...)
}

// check finds what cannot be.
func (m *Manifest) check() error {
	if m.Version != Version {
		return drover.Errorf(drover.Invalid, "unknown version %d", m.Version)
	}
	if err := CheckVolume(m.Volume); err != nil {
		return err
	}
	if err := CheckSnapshot(m.Snapshot); err != nil {
		return err
	}
	if m.Size <= 0 || m.Size > MaxSize || m.Size%512 != 0 {
		return drover.Errorf(drover.Invalid, "%d bytes is no size of a disk", m.Size)
	}
	if int64(len(m.Pages)) > maxPages {
		return drover.Errorf(drover.Invalid, "%d pages are more than any disk has", len(m.Pages))
	}
	last, chunks := int64(-1), int64(0)
	for _, p := range m.Pages {
		if p.Index <= last || p.Index >= Pages(m.Size) {
			return drover.Errorf(drover.Invalid, "page %d is out of order or beyond the end", p.Index)
		}
		if most := ChunksOf(m.Size, p.Index); p.Chunks <= 0 || int64(p.Chunks) > most {
			return drover.Errorf(drover.Invalid, "page %d has %d chunks of %d", p.Index, p.Chunks, most)
		}
		last, chunks = p.Index, chunks+int64(p.Chunks)
	}
	if chunks != m.Chunks {
		return drover.Errorf(drover.Invalid, "%d chunks are said to be there, the pages have %d", m.Chunks, chunks)
	}
	return nil
}

// Pages is how many pages a disk of a size may have.
func Pages(size drover.Bytes) int64 {
	const page = ChunkSize * PageChunks
	return (int64(size) + page - 1) / page
}

// ChunksOf is how many chunks of a disk of a size lie in a page.
func ChunksOf(size drover.Bytes, index int64) int64 {
	all := (int64(size) + ChunkSize - 1) / ChunkSize
	return max(0, min(PageChunks, all-index*PageChunks))
}
