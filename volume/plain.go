package volume

import (
	"context"
	"sync"
)

// plain is a content as a guest of this host sees it: with the layer's key it decrypts what it reads and encrypts what it writes;
// without one it is the content itself. What lies below, and whatever else uses the content (hydration, exports, uploads), knows
// ciphertext only. Holes, discards and zeroes stay what they are: a sector of zeroes on the disk is a sector of zeroes.
//
// A request that does not begin and end at a sector is served, too: NBD allows it, and tools of others make use of it. The sectors
// at its edges are read, changed and written again. Guests never send one.
//
// A reader that reads a sector while it is written may get a part of each, as from any disk, and where the two parts meet within 16 bytes
// these decrypt to neither.
type plain struct {
	*content
	key   *diskKey
	edges *sync.RWMutex
}

// plain returns the session's view of a content that its layer has now. The whole of a write, the reading of its edges included, must see
// one and the same content.
func (s *session) plain(c *content) plain {
	return plain{content: c, key: s.key, edges: &s.layer.edges}
}

// cryptPiece is how much is encrypted at a time: little enough to stay in the CPU's cache. It is a multiple of blockSize.
const cryptPiece = 256 << 10

// scratch has buffers of cryptPiece bytes for ciphertext that is written. The caller's own buffer is never changed: a guest may read it
// while it is written.
var scratch = sync.Pool{New: func() any { return new([cryptPiece]byte) }}

func sectorAligned(off, n int64) bool { return (off|n)%cipherSector == 0 }

// sectorsOf returns the whole sectors that a range touches.
func sectorsOf(off, n int64) (start, length int64) {
	start = off / cipherSector * cipherSector
	return start, (off+n+cipherSector-1)/cipherSector*cipherSector - start
}

// ReadAt reads and decrypts. For the time between the two the caller's buffer holds ciphertext: where that is a guest's own memory it sees nothing that it may
// not know, and nothing that it may rely on before the request has ended.
func (v plain) ReadAt(ctx context.Context, p []byte, off int64) error {
	if v.key == nil {
		return v.content.ReadAt(ctx, p, off)
	}
	if sectorAligned(off, int64(len(p))) {
		err := v.content.ReadAt(ctx, p, off)
		if err == nil {
			v.key.decrypt(p, off)
		}
		return err
	}
	start, n := sectorsOf(off, int64(len(p)))
	buf := make([]byte, n)
	if err := v.content.ReadAt(ctx, buf, start); err != nil {
		return err
	}
	v.key.decrypt(buf, start)
	copy(p, buf[off-start:])
	return nil
}

// WriteAt encrypts and writes.
func (v plain) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	if v.key == nil {
		return v.content.WriteAt(ctx, p, off, fua)
	}
	if !sectorAligned(off, int64(len(p))) {
		return v.writeUnaligned(ctx, p, off, fua)
	}
	v.edges.RLock()
	defer v.edges.RUnlock()
	return v.writeSectors(ctx, p, off, fua)
}

// writeSectors writes piece by piece; with fua the last one makes all of them durable. Pieces end at blocks, so that no block is
// fetched from a parent because a piece covers a part of it only.
func (v plain) writeSectors(ctx context.Context, p []byte, off int64, fua bool) error {
	buf, _ := scratch.Get().(*[cryptPiece]byte)
	defer scratch.Put(buf)
	for len(p) > 0 {
		n := min(int64(len(p)), cryptPiece-off%blockSize)
		v.key.encrypt(buf[:n], p[:n], off)
		if err := v.content.WriteAt(ctx, buf[:n], off, fua && n == int64(len(p))); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// writeUnaligned writes a range with a part of a sector at an edge. It excludes all other writes meanwhile, since it writes back what it has
// read. The edges are read once before that: what has to come from a parent is waited for without keeping others waiting.
func (v plain) writeUnaligned(ctx context.Context, p []byte, off int64, fua bool) error {
	start, n := sectorsOf(off, int64(len(p)))
	buf := make([]byte, n)
	if err := v.readEdges(ctx, buf, start); err != nil {
		return err
	}
	v.edges.Lock()
	defer v.edges.Unlock()
	if err := v.readEdges(ctx, buf, start); err != nil {
		return err
	}
	copy(buf[off-start:], p)
	return v.writeSectors(ctx, buf, start, fua)
}

// readEdges reads the first and the last sector of a range into their places.
func (v plain) readEdges(ctx context.Context, buf []byte, start int64) error {
	last := int64(len(buf)) - cipherSector
	if err := v.ReadAt(ctx, buf[:cipherSector], start); err != nil || last == 0 {
		return err
	}
	return v.ReadAt(ctx, buf[last:], start+last)
}

// Discard makes a hole of every whole sector of the range, and zeroes of the rest.
func (v plain) Discard(ctx context.Context, off, n int64, fua bool) error {
	return v.clear(ctx, off, n, fua, v.content.Discard)
}

// Zero is the same, and keeps the space if it is told to.
func (v plain) Zero(ctx context.Context, off, n int64, keep, fua bool) error {
	return v.clear(ctx, off, n, fua, func(ctx context.Context, off, n int64, fua bool) error {
		return v.content.Zero(ctx, off, n, keep, fua)
	})
}

func (v plain) clear(ctx context.Context, off, n int64, fua bool, do func(ctx context.Context, off, n int64, fua bool) error) error {
	if v.key == nil {
		return do(ctx, off, n, fua)
	}
	// Whole sectors are those of [first, end).
	first, end := (off+cipherSector-1)/cipherSector*cipherSector, (off+n)/cipherSector*cipherSector
	if first >= end {
		if sectorAligned(off, n) {
			return nil // nothing at all
		}
		return v.writeUnaligned(ctx, make([]byte, n), off, fua)
	}
	if first > off {
		if err := v.writeUnaligned(ctx, make([]byte, first-off), off, fua); err != nil {
			return err
		}
	}
	if end < off+n {
		if err := v.writeUnaligned(ctx, make([]byte, off+n-end), end, fua); err != nil {
			return err
		}
	}
	v.edges.RLock()
	defer v.edges.RUnlock()
	return do(ctx, first, end-first, fua)
}

// maxCryptTry bounds what is encrypted or decrypted by the goroutine that reads a connection: more of it is faster on several CPUs.
const maxCryptTry = 16 << 10

func (v plain) tryReadAt(p []byte, off int64) bool {
	if v.key == nil {
		return v.content.tryReadAt(p, off)
	}
	if len(p) > maxCryptTry || !sectorAligned(off, int64(len(p))) || !v.content.tryReadAt(p, off) {
		return false
	}
	v.key.decrypt(p, off)
	return true
}

func (v plain) tryWriteAt(p []byte, off int64) (bool, error) {
	if v.key == nil {
		return v.content.tryWriteAt(p, off)
	}
	if len(p) > maxCryptTry || !sectorAligned(off, int64(len(p))) || !v.content.present(off, int64(len(p))) || !v.edges.TryRLock() {
		return false, nil
	}
	defer v.edges.RUnlock()
	buf, _ := scratch.Get().(*[cryptPiece]byte)
	defer scratch.Put(buf)
	v.key.encrypt(buf[:len(p)], p, off)
	return v.content.tryWriteAt(buf[:len(p)], off)
}
