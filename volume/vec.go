package volume

import (
	"context"
	"errors"
	"hash/crc32"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover/vhostuser"
)

var (
	_ vhostuser.Backend = (*session)(nil)
	_ vhostuser.Trier   = (*session)(nil)
)

// vecFile is a file that reads into and writes from several buffers at once, which may be the memory of a guest.
type vecFile interface {
	// ReadVec fills the buffers, whole or not at all.
	ReadVec(iov [][]byte, off int64) error
	WriteVec(iov [][]byte, off int64) error
	// TryReadVec is ReadVec for what is in the page cache, and says no otherwise.
	TryReadVec(iov [][]byte, off int64) bool
}

var _ vecFile = osFile{}

// maxIovecs is how many buffers go into one system call. They are on the stack.
const maxIovecs = 128

// vector makes one system call, preadv2 or pwritev2, for the buffers from the skip-th byte of the first on.
func (f osFile) vector(call uintptr, iov [][]byte, skip int, off int64, flags uintptr) (int, error) {
	var vecs [maxIovecs]unix.Iovec
	n := 0
	for _, p := range iov {
		if p = p[skip:]; len(p) > 0 {
			vecs[n].Base = unsafe.SliceData(p)
			vecs[n].SetLen(len(p))
			n++
		}
		if skip = 0; n == len(vecs) {
			break
		}
	}
	for {
		done, _, errno := unix.Syscall6(call, f.Fd(), uintptr(unsafe.Pointer(&vecs[0])), uintptr(n), uintptr(off), 0, flags)
		switch {
		case errno == 0:
			return int(done), nil
		case errno != unix.EINTR:
			return 0, errno
		}
	}
}

// vectorAll calls until all is done.
func (f osFile) vectorAll(call uintptr, iov [][]byte, off int64) error {
	skip := 0
	for {
		for len(iov) > 0 && skip >= len(iov[0]) {
			iov, skip = iov[1:], skip-len(iov[0])
		}
		if len(iov) == 0 {
			return nil
		}
		n, err := f.vector(call, iov, skip, off, 0)
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		off, skip = off+int64(n), skip+n
	}
}

func (f osFile) ReadVec(iov [][]byte, off int64) error {
	return f.vectorAll(unix.SYS_PREADV2, iov, off)
}

// WriteVec leaves the checksums unknown: a guest may change its memory while it is written (its file systems do), and a checksum of
// something else than what the disk got would be a false alarm later.
func (f osFile) WriteVec(iov [][]byte, off int64) error {
	return f.sums.change(off, vecLen(iov), func() error { return f.vectorAll(unix.SYS_PWRITEV2, iov, off) })
}

func (f osFile) TryReadVec(iov [][]byte, off int64) bool {
	n, err := f.vector(unix.SYS_PREADV2, iov, 0, off, unix.RWF_NOWAIT)
	return err == nil && int64(n) == vecLen(iov)
}

// vecLen sums up the buffers.
func vecLen(iov [][]byte) (n int64) {
	for _, p := range iov {
		n += int64(len(p))
	}
	return n
}

// sumOfVec is the checksum of the block that the buffers begin with, skip bytes into the first, and says where the next one is.
func sumOfVec(iov [][]byte, skip int) (sum uint32, rest [][]byte, at int) {
	if p := iov[0]; len(p)-skip >= blockSize {
		return sumOf(p[skip : skip+blockSize]), iov, skip + blockSize
	}
	for left := blockSize; left > 0; {
		if skip == len(iov[0]) {
			iov, skip = iov[1:], 0
			continue
		}
		p := iov[0][skip:]
		p = p[:min(len(p), left)]
		sum = crc32.Update(sum, crcTable, p)
		left, skip = left-len(p), skip+len(p)
	}
	return knownSum(sum), iov, skip
}

// tryReadVec reads what is in the page cache.
func (c *content) tryReadVec(iov [][]byte, off int64) bool {
	n := vecLen(iov)
	read := c.inOneFile(off, n, func(h *content) bool {
		f, ok := h.data.(vecFile)
		return ok && f.TryReadVec(iov, off) && h.soundVec(iov, off)
	})
	if read {
		c.readOn(off, n)
	}
	return read
}

// tryWriteVec writes to present blocks, into the page cache.
func (c *content) tryWriteVec(iov [][]byte, off int64) (bool, error) {
	f, ok := c.data.(vecFile)
	if !ok || c.checksWrite(off, vecLen(iov)) {
		return false, nil
	}
	o := c.enterGuest()
	defer o.leave()
	first, end := blocksOf(off, vecLen(iov))
	if o != nil && !o.present.all(first, end) {
		return false, nil
	}
	if err := c.failure(); err != nil {
		return true, err
	}
	if !c.hasRoom(off, vecLen(iov)) {
		return false, nil // WriteAt waits for some
	}
	if o != nil {
		o.unfetch(first, end)
	}
	err := f.WriteVec(iov, off)
	c.dirty.Store(true)
	if o != nil {
		o.touch(first, end)
	}
	return true, ioError(c.name, "write", err)
}

// bounceSize bounds what is copied at once between the guest's memory and a range that has absent blocks.
const bounceSize = 1 << 20

// ReadVec fills the buffers with the composed view.
func (c *content) ReadVec(ctx context.Context, iov [][]byte, off int64) error {
	n := vecLen(iov)
	var err error
	read := c.inOneFile(off, n, func(h *content) bool {
		f, ok := h.data.(vecFile)
		if ok {
			err = ioError(h.name, "read", f.ReadVec(iov, off))
		}
		return ok && (err != nil || h.soundVec(iov, off))
	})
	if read {
		c.readOn(off, n)
		return err
	}
	return bounce(iov, func(buf []byte, at int64) error { return c.ReadAt(ctx, buf, off+at) }, func(buf, p []byte) int { return copy(p, buf) }, nil)
}

// WriteVec writes the buffers.
func (c *content) WriteVec(ctx context.Context, iov [][]byte, off int64) error {
	if done, err := c.tryWriteVec(iov, off); done {
		return err
	}
	return bounce(iov, nil, func(buf, p []byte) int { return copy(buf, p) }, func(buf []byte, at int64) error { return c.WriteAt(ctx, buf, off+at, false) })
}

// bounce goes through the buffers part by part: before fills a part of one piece, each copies between it and the buffers, after uses it.
func bounce(iov [][]byte, before func(buf []byte, at int64) error, each func(buf, p []byte) int, after func(buf []byte, at int64) error) error {
	left, skip := vecLen(iov), 0
	buf := make([]byte, min(left, bounceSize))
	for at := int64(0); left > 0; {
		part := buf[:min(left, bounceSize)]
		if before != nil {
			if err := before(part, at); err != nil {
				return err
			}
		}
		for done := 0; done < len(part); {
			n := each(part[done:], iov[0][skip:])
			done, skip = done+n, skip+n
			if skip == len(iov[0]) {
				iov, skip = iov[1:], 0
			}
		}
		if after != nil {
			if err := after(part, at); err != nil {
				return err
			}
		}
		at, left = at+int64(len(part)), left-int64(len(part))
	}
	return nil
}

// ReadVec is vhostuser.Backend's.
func (s *session) ReadVec(ctx context.Context, iov [][]byte, off int64) error {
	if err := s.admit(ctx, vecLen(iov)); err != nil {
		return forClient(err)
	}
	if err := s.enter(false); err != nil {
		return err
	}
	defer s.gate.leave()
	ctx, done := s.slow(ctx, off, vecLen(iov))
	defer done()
	return forClient(s.plain(s.layer.content()).ReadVec(ctx, iov, off))
}

// WriteVec is vhostuser.Backend's.
func (s *session) WriteVec(ctx context.Context, iov [][]byte, off int64) error {
	if err := s.admit(ctx, vecLen(iov)); err != nil {
		return forClient(err)
	}
	return s.change(ctx, off, vecLen(iov), func(ctx context.Context, c plain) error { return c.WriteVec(ctx, iov, off) })
}

// TryReadVec is vhostuser.Trier's: it reads what is present and in the page cache.
func (s *session) TryReadVec(iov [][]byte, off int64) (done bool, err error) {
	paid, ok := s.tryAdmit(vecLen(iov))
	if !ok {
		return false, nil
	}
	defer func() {
		if !done {
			paid.giveBack()
		}
	}()
	if !s.gate.tryEnter() {
		return false, nil
	}
	defer s.gate.leave()
	return s.plain(s.layer.content()).tryReadVec(iov, off), nil
}

// TryWriteVec is vhostuser.Trier's: it writes to present blocks, into the page cache.
func (s *session) TryWriteVec(iov [][]byte, off int64) (done bool, err error) {
	paid, ok := s.tryAdmit(vecLen(iov))
	if !ok {
		return false, nil
	}
	defer func() {
		if !done {
			paid.giveBack()
		}
	}()
	if !s.writer.Load() || !s.writes.tryEnter() {
		return false, nil
	}
	defer s.writes.leave()
	return s.plain(s.layer.content()).tryWriteVec(iov, off)
}

// errVhostEnds is why connections end when their layer is not open at their epoch any more.
var errVhostEnds = errors.New("the layer is not open at this epoch any more")
