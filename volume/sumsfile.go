package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover/internal/durable"
)

// mappedSums is a file of sums of the host's file system.
type mappedSums struct {
	f    osFile
	path string
	mem  []byte
}

var _ sumStore = (*mappedSums)(nil)

// openSums opens the sums at path if they may be used, else begins with none that is known.
func openSums(path string, blocks int64, incarnation, boot string) (*sums, error) {
	size := mapHeaderSize + blocks*4
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	usable, opened := false, false
	if err == nil {
		head := make([]byte, mapHeaderSize)
		if _, rerr := f.ReadAt(head, 0); rerr == nil {
			usable, opened = sumsCount(head, mapHeader{blocks: blocks, incarnation: incarnation, boot: boot})
		}
		if usable {
			err = f.Truncate(size)
		} else {
			err = errors.Join(f.Close(), os.Remove(path))
		}
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	if !usable {
		created, err := createFile(path, size)
		if err != nil {
			return nil, err
		}
		f = created.File
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot map %s into memory: %w", path, err), f.Close())
	}
	return newSums(&mappedSums{f: osFile{File: f}, path: path, mem: mem}, blocks, incarnation, boot, opened), nil
}

// sumsCount reports whether sums with the header are those of the layer and may be used, and whether they name this boot. The layer may
// have grown since.
func sumsCount(head []byte, want mapHeader) (usable, opened bool) {
	h, err := decodeMapHeader(head, sumsMagic)
	if err != nil || h.incarnation != want.incarnation || h.blocks <= 0 || h.blocks > want.blocks {
		return false, false
	}
	return h.boot == "" || h.boot == want.boot, h.boot != ""
}

func (m *mappedSums) words() []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(&m.mem[mapHeaderSize])), (len(m.mem)-mapHeaderSize)/4)
}

func (m *mappedSums) reserve(first, end int64) error {
	return retryEINTR(func() error {
		return unix.Fallocate(int(m.f.Fd()), unix.FALLOC_FL_KEEP_SIZE, mapHeaderSize+first*4, (end-first)*4)
	})
}

func (m *mappedSums) writeHead(h mapHeader) error {
	if err := m.f.Datasync(); err != nil { // the sums, by whichever way they were stored
		return err
	}
	if err := m.f.WriteAt(h.encode(sumsMagic), 0); err != nil {
		return err
	}
	return m.f.Datasync()
}

func (m *mappedSums) remove() error {
	if err := durable.Remove(m.path); err != nil && !errors.Is(err, syscall.ENOENT) {
		return err
	}
	return nil
}

func (m *mappedSums) close() error { return errors.Join(unix.Munmap(m.mem), m.f.Close()) }

// openSums opens the checksums of a content in a directory. A layer does without them where they cannot be had.
func (e *env) openSums(dir string, m *meta, log *slog.Logger) *sums {
	path := filepath.Join(dir, fileName(sumsName, m.Files))
	s, err := openSums(path, int64(m.Spec.Size)/blockSize, m.sumsOf(), e.boot)
	if err != nil {
		log.Warn("layer has no checksums", "err", err)
		return nil
	}
	s.space = e.space
	return s
}
