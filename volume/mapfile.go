package volume

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"sync/atomic"
)

// The map on disk, version 1, little endian: a header in the first 4096 bytes, then sectors of 512 bytes. A sector holds 63 words of
// the map (4032 blocks), its own number and a CRC-32C. A disk writes a sector whole or not at all, and bits are only added,
// so whatever mix of old and new sectors a power cut leaves is a true map; a sector that fails its check is damage, and the layer is
// refused rather than read wrongly.
const (
	mapVersion     = 1
	mapHeaderSize  = 4096
	sectorSize     = 512
	sectorWords    = 63
	sectorBlocks   = sectorWords * 64
	blockSize      = 4096
	incarnationLen = 32
	// flushSectors bounds the memory that one step of a flush takes: 1 MiB.
	flushSectors = 2048
)

// mapMagic begins a map on disk.
const mapMagic = "DROVRMAP"

// crcTable is never written to.
var crcTable = crc32.MakeTable(crc32.Castagnoli)

// mapHeader describes the layer that a map belongs to. Boot is empty in the map on disk.
type mapHeader struct {
	blocks      int64
	incarnation string
	boot        string
}

// encode writes the header in the form that both kinds of map share.
func (h mapHeader) encode(magic string) []byte {
	b := make([]byte, 0, mapHeaderSize)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, mapVersion)
	b = binary.LittleEndian.AppendUint32(b, blockSize)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.blocks))
	b = append(b, fixed(h.incarnation, incarnationLen)...)
	b = append(b, fixed(h.boot, 40)...)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crcTable))
	return append(b, make([]byte, mapHeaderSize-len(b))...)
}

func fixed(s string, n int) []byte { return append([]byte(s), make([]byte, max(0, n-len(s)))...)[:n] }

// decodeMapHeader is the reverse of encode.
func decodeMapHeader(b []byte, magic string) (mapHeader, error) {
	const sum = 8 + 4 + 4 + 8 + incarnationLen + 40
	switch {
	case len(b) < mapHeaderSize:
		return mapHeader{}, fmt.Errorf("the map's header has %d bytes where %d are expected", len(b), mapHeaderSize)
	case string(b[:8]) != magic:
		return mapHeader{}, fmt.Errorf("the map's header does not begin with %q", magic)
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != mapVersion {
		return mapHeader{}, fmt.Errorf("the map has version %d; this program knows version %d", v, mapVersion)
	}
	if got, want := crc32.Checksum(b[:sum], crcTable), binary.LittleEndian.Uint32(b[sum:]); got != want {
		return mapHeader{}, fmt.Errorf("the map's header is damaged: checksum %08x where %08x is expected", got, want)
	}
	if s := binary.LittleEndian.Uint32(b[12:]); s != blockSize {
		return mapHeader{}, fmt.Errorf("the map has blocks of %d bytes; this program knows %d", s, blockSize)
	}
	return mapHeader{
		blocks:      int64(binary.LittleEndian.Uint64(b[16:])),
		incarnation: string(bytes.TrimRight(b[24:24+incarnationLen], "\x00")),
		boot:        string(bytes.TrimRight(b[24+incarnationLen:sum], "\x00")),
	}, nil
}

func sectorsFor(blocks int64) int64 { return (blocks + sectorBlocks - 1) / sectorBlocks }

func mapFileSize(blocks int64) int64 { return mapHeaderSize + sectorsFor(blocks)*sectorSize }

// encodeSector writes sector s of the present blocks to out.
func encodeSector(out []byte, s int64, present *bitmap) {
	first := s * sectorWords
	for i := range int64(sectorWords) {
		var w uint64
		if first+i < int64(len(present.words)) {
			w = loadWord(present, first+i)
		}
		binary.LittleEndian.PutUint64(out[i*8:], w)
	}
	binary.LittleEndian.PutUint32(out[504:], uint32(s))
	binary.LittleEndian.PutUint32(out[508:], crc32.Checksum(out[:508], crcTable))
}

// decodeSector adds the blocks of sector s to present.
func decodeSector(in []byte, s int64, present *bitmap) error {
	if n := binary.LittleEndian.Uint32(in[504:]); n != uint32(s) {
		return fmt.Errorf("sector %d of the map is damaged: it says it is sector %d", s, n)
	}
	if got, want := crc32.Checksum(in[:508], crcTable), binary.LittleEndian.Uint32(in[508:]); got != want {
		return fmt.Errorf("sector %d of the map is damaged: checksum %08x where %08x is expected", s, got, want)
	}
	first := s * sectorWords
	for i := range int64(sectorWords) {
		w := binary.LittleEndian.Uint64(in[i*8:])
		if first+i < int64(len(present.words)) {
			present.words[first+i] |= w & mask(first+i, 0, present.n)
		}
	}
	return nil
}

// mapFile is the map on disk of one layer. Calls of store are kept apart by the caller.
type mapFile struct {
	f      file
	blocks int64
	// dirty has the sectors whose blocks may have become present since they were last stored.
	dirty *bitmap
	// unsynced: a process before this one may have stored something and been killed before it was synced.
	unsynced atomic.Bool
}

func newMapFile(f file, blocks int64) *mapFile {
	m := &mapFile{f: f, blocks: blocks, dirty: newBitmap(sectorsFor(blocks))}
	m.unsynced.Store(true)
	return m
}

// format writes an empty map.
func (m *mapFile) format(h mapHeader) error { return m.formatWith(h, newBitmap(m.blocks)) }

// formatWith writes a map with some blocks present. Every sector is written, so that storing later needs no new space.
func (m *mapFile) formatWith(h mapHeader, present *bitmap) error {
	if err := m.f.WriteAt(h.encode(mapMagic), 0); err != nil {
		return err
	}
	m.dirty.set(0, m.dirty.n)
	if err := m.store(m.collect(nil, 0, m.dirty.n, present)); err != nil {
		return err
	}
	return m.f.Datasync()
}

// load reads the map and checks that it is the one of the layer.
func (m *mapFile) load(incarnation string) (*bitmap, error) {
	head := make([]byte, mapHeaderSize)
	if err := m.f.ReadAt(head, 0); err != nil {
		return nil, err
	}
	h, err := decodeMapHeader(head, mapMagic)
	if err != nil {
		return nil, err
	}
	if h.blocks != m.blocks || h.incarnation != incarnation {
		return nil, fmt.Errorf("the map is that of another layer (%d blocks, incarnation %s; expected %d, %s)",
			h.blocks, h.incarnation, m.blocks, incarnation)
	}
	present := newBitmap(m.blocks)
	buf := make([]byte, 256*sectorSize)
	for s := int64(0); s < m.dirty.n; s += 256 {
		part := buf[:min(256, m.dirty.n-s)*sectorSize]
		if err := m.f.ReadAt(part, mapHeaderSize+s*sectorSize); err != nil {
			return nil, err
		}
		for i := int64(0); i*sectorSize < int64(len(part)); i++ {
			if err := decodeSector(part[i*sectorSize:], s+i, present); err != nil {
				return nil, err
			}
		}
	}
	return present, nil
}

// sectorRun is a run of encoded sectors.
type sectorRun struct {
	first int64
	data  []byte
}

// collect takes the dirty sectors of [first, end) as they are now.
func (m *mapFile) collect(runs []sectorRun, first, end int64, present *bitmap) []sectorRun {
	for s := m.dirty.next(first, end, true); s < end; s = m.dirty.next(s+1, end, true) {
		if !m.dirty.take(s) {
			continue
		}
		if n := len(runs); n == 0 || runs[n-1].first+int64(len(runs[n-1].data)/sectorSize) != s {
			runs = append(runs, sectorRun{first: s})
		}
		r := &runs[len(runs)-1]
		at := len(r.data)
		r.data = slices.Grow(r.data, sectorSize)[:at+sectorSize]
		encodeSector(r.data[at:], s, present)
	}
	return runs
}

// store writes what was collected. It does not sync.
func (m *mapFile) store(runs []sectorRun) error {
	for _, r := range runs {
		if err := m.f.WriteAt(r.data, mapHeaderSize+r.first*sectorSize); err != nil {
			return err
		}
	}
	return nil
}
