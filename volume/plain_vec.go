package volume

import "context"

// wholeSectors reports whether each buffer begins and ends between two sectors, as those of guests do.
func wholeSectors(iov [][]byte, off int64) bool {
	for _, p := range iov {
		if !sectorAligned(off, int64(len(p))) {
			return false
		}
		off += int64(len(p))
	}
	return true
}

// ReadVec is content.ReadVec. Ciphertext lies in the buffers, the guest's own memory, for as long as it takes to decrypt it there.
func (v plain) ReadVec(ctx context.Context, iov [][]byte, off int64) error {
	if v.key == nil {
		return v.content.ReadVec(ctx, iov, off)
	}
	if !wholeSectors(iov, off) {
		return bounce(iov, func(buf []byte, at int64) error { return v.ReadAt(ctx, buf, off+at) }, func(buf, p []byte) int { return copy(p, buf) }, nil)
	}
	err := v.content.ReadVec(ctx, iov, off)
	if err == nil {
		v.decryptVec(iov, off)
	}
	return err
}

func (v plain) decryptVec(iov [][]byte, off int64) {
	for _, p := range iov {
		v.key.decrypt(p, off)
		off += int64(len(p))
	}
}

// WriteVec is content.WriteVec. The guest may change its memory meanwhile; each sector of it is read once.
func (v plain) WriteVec(ctx context.Context, iov [][]byte, off int64) error {
	if v.key == nil {
		return v.content.WriteVec(ctx, iov, off)
	}
	if !wholeSectors(iov, off) {
		return bounce(iov, nil, func(buf, p []byte) int { return copy(buf, p) },
			func(buf []byte, at int64) error { return v.WriteAt(ctx, buf, off+at, false) })
	}
	v.edges.RLock()
	defer v.edges.RUnlock()
	buf, _ := scratch.Get().(*[cryptPiece]byte)
	defer scratch.Put(buf)
	for left := vecLen(iov); left > 0; {
		n := min(left, cryptPiece-off%blockSize)
		iov = v.encryptVec(buf[:n], iov, off)
		if err := v.content.WriteAt(ctx, buf[:n], off, false); err != nil {
			return err
		}
		off, left = off+n, left-n
	}
	return nil
}

// encryptVec fills dst with what the first buffers have, encrypted, and returns what is left of them.
func (v plain) encryptVec(dst []byte, iov [][]byte, off int64) [][]byte {
	rest := iov
	for len(dst) > 0 {
		p := rest[0]
		n := min(len(p), len(dst))
		v.key.encrypt(dst[:n], p[:n], off)
		dst, off = dst[n:], off+int64(n)
		if n == len(p) {
			rest = rest[1:]
			continue
		}
		// The caller's slice is left as it is.
		rest = append([][]byte{p[n:]}, rest[1:]...)
	}
	return rest
}

// tryReadVec is content.tryReadVec.
func (v plain) tryReadVec(iov [][]byte, off int64) bool {
	if v.key == nil {
		return v.content.tryReadVec(iov, off)
	}
	if vecLen(iov) > maxCryptTry || !wholeSectors(iov, off) || !v.content.tryReadVec(iov, off) {
		return false
	}
	v.decryptVec(iov, off)
	return true
}

// tryWriteVec is content.tryWriteVec.
func (v plain) tryWriteVec(iov [][]byte, off int64) (bool, error) {
	if v.key == nil {
		return v.content.tryWriteVec(iov, off)
	}
	n := vecLen(iov)
	if n > maxCryptTry || !wholeSectors(iov, off) || !v.content.present(off, n) || !v.edges.TryRLock() {
		return false, nil
	}
	defer v.edges.RUnlock()
	buf, _ := scratch.Get().(*[cryptPiece]byte)
	defer scratch.Put(buf)
	v.encryptVec(buf[:n], iov, off)
	return v.content.tryWriteAt(buf[:n], off)
}
