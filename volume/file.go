package volume

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// file is what the engine needs of a file. Tests put a simulated disk in its place that loses what was not synced.
// All methods may be called from many goroutines at once.
type file interface {
	// ReadAt fills p, whole or not at all.
	ReadAt(p []byte, off int64) error
	WriteAt(p []byte, off int64) error
	// Fill is WriteAt for blocks that nobody has read or written yet.
	Fill(p []byte, off int64) error
	// PunchHole makes the range read as zeroes and gives its space back.
	PunchHole(off, n int64) error
	// ZeroRange makes the range read as zeroes and keeps its space.
	ZeroRange(off, n int64) error
	// Datasync makes durable what was written before it was called.
	Datasync() error
	// NextData finds the first run of data in [off, end). Without any, start and stop are end.
	NextData(off, end int64) (start, stop int64, err error)
	// Writeback asks for the range to be written to the disk soon, so that a later Datasync has less to wait for.
	Writeback(off, n int64)
	// Settle waits until that is done, and takes the range out of the page cache. It makes nothing durable. What it reports Datasync may
	// not report again.
	Settle(off, n int64) error
	Close() error
}

// osFile is a file of the host's file system.
type osFile struct {
	*os.File
	// sums are kept right by every change that goes through the methods; nil for a file without checksums.
	sums *sums
}

var _ file = osFile{}

// openFile opens an existing file and checks that its size is what it must be.
func openFile(path string, size int64, readOnly bool) (osFile, error) {
	return openSized(path, size, readOnly, false)
}

// openData is openFile for a data file, which grows before its record does.
func openData(path string, size int64, readOnly bool) (osFile, error) {
	return openSized(path, size, readOnly, true)
}

func openSized(path string, size int64, readOnly, grows bool) (osFile, error) {
	flag := os.O_RDWR
	if readOnly {
		flag = os.O_RDONLY
	}
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return osFile{}, err
	}
	st, err := f.Stat()
	if err == nil && st.Size() > size && !readOnly && grows {
		// It was made larger for a record that was never written. Nothing was ever written to what is beyond.
		if err = f.Truncate(size); err == nil {
			st, err = f.Stat()
		}
	}
	if err == nil && st.Size() != size {
		err = fmt.Errorf("%s has %d bytes where %d are expected", path, st.Size(), size)
	}
	if err != nil {
		return osFile{}, errors.Join(err, f.Close())
	}
	return osFile{File: f}, nil
}

// createFile makes a new sparse file of a size, durable in itself (its directory entry is the caller's).
func createFile(path string, size int64) (osFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return osFile{}, err
	}
	if err := errors.Join(f.Truncate(size), f.Sync()); err != nil {
		return osFile{}, errors.Join(err, f.Close())
	}
	return osFile{File: f}, nil
}

func (f osFile) ReadAt(p []byte, off int64) error {
	_, err := f.File.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s ends before offset %d: %w", f.Name(), off+int64(len(p)), io.ErrUnexpectedEOF)
	}
	return err
}

func (f osFile) WriteAt(p []byte, off int64) error {
	return f.sums.write(p, off, func() error { return f.writeAt(p, off) })
}

func (f osFile) writeAt(p []byte, off int64) error {
	_, err := f.File.WriteAt(p, off)
	return err
}

func (f osFile) Fill(p []byte, off int64) error {
	return f.sums.fill(p, off, func() error { return f.writeAt(p, off) })
}

func (f osFile) Close() error { return errors.Join(f.File.Close(), f.sums.close()) }

func (f osFile) PunchHole(off, n int64) error {
	return f.sums.change(off, n, func() error {
		return f.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
}

func (f osFile) ZeroRange(off, n int64) error {
	return f.sums.change(off, n, func() error {
		return f.fallocate(unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
}

// fallocate falls back to writing zeroes where the file system cannot do what was asked.
func (f osFile) fallocate(mode uint32, off, n int64) error {
	err := retryEINTR(func() error { return unix.Fallocate(int(f.Fd()), mode, off, n) })
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	zero := make([]byte, min(n, 256<<10))
	for ; n > 0; off, n = off+int64(len(zero)), n-int64(len(zero)) {
		zero = zero[:min(n, int64(len(zero)))]
		if werr := f.writeAt(zero, off); werr != nil {
			return werr
		}
	}
	return nil
}

func (f osFile) Datasync() error {
	return retryEINTR(func() error { return unix.Fdatasync(int(f.Fd())) })
}

func (f osFile) NextData(off, end int64) (start, stop int64, err error) {
	start, err = unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) || (err == nil && start >= end) {
		return end, end, nil
	}
	if err != nil {
		return 0, 0, err
	}
	stop, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
	if errors.Is(err, unix.ENXIO) {
		return end, end, nil // a hole was punched between the two calls
	}
	return start, min(stop, end), err
}

func (f osFile) Writeback(off, n int64) {
	// A hint only: an error here is found again, and reported, by Datasync.
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}

func (f osFile) Settle(off, n int64) error {
	const wait = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	err := retryEINTR(func() error { return unix.SyncFileRange(int(f.Fd()), off, n, wait) })
	if err == nil {
		_ = unix.Fadvise(int(f.Fd()), off, n, unix.FADV_DONTNEED) // a hint: else it stays in the page cache
	}
	return err
}

func retryEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
