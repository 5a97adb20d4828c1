package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// liveMagic begins a live map: a header as on disk, then the plain words of the map.
const liveMagic = "DROVRLIV"

// liveMap is the map of present blocks in memory that is shared with a file on tmpfs, so that it outlives the process but not the
// host. A block is marked in it after its data was written, so that a new process sees every acknowledged write. It belongs to one
// boot and to one incarnation of the layer; a file of any other is ignored.
type liveMap struct {
	*bitmap
	path string
	mem  []byte
}

// openLiveMap maps the file at path if it is the one of the layer. found is false if there was none to take over, and all
// blocks are absent then; the map counts only from seal on.
func openLiveMap(path string, h mapHeader) (m *liveMap, found bool, err error) {
	size := mapHeaderSize + wordsFor(h.blocks)*8
	found = liveMapFits(path, size, h)
	flag := os.O_RDWR
	if !found {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, false, err
		}
		flag |= os.O_CREATE | os.O_EXCL
	}
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if !found {
		// The space is taken now: a page that tmpfs cannot provide later would kill the process.
		if err := retryEINTR(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, size) }); err != nil {
			return nil, false, errors.Join(fmt.Errorf("cannot allocate %d bytes for %s: %w", size, path, err), os.Remove(path))
		}
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, false, fmt.Errorf("cannot map %s into memory: %w", path, err)
	}
	words := unsafe.Slice((*uint64)(unsafe.Pointer(&mem[mapHeaderSize])), wordsFor(h.blocks))
	return &liveMap{bitmap: &bitmap{words: words, n: h.blocks}, path: path, mem: mem}, found, nil
}

// liveMapFits reports whether the file at path is the live map of the layer, made in this boot.
func liveMapFits(path string, size int64, want mapHeader) bool {
	f, err := openFile(path, size, true)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, mapHeaderSize)
	if f.ReadAt(head, 0) != nil {
		return false
	}
	got, err := decodeMapHeader(head, liveMagic)
	return err == nil && got == want
}

// seal makes the map count: the header is written last.
func (m *liveMap) seal(h mapHeader) { copy(m.mem, h.encode(liveMagic)) }

// spoil makes the map not count for the next process: after a sync that failed, nobody knows what the data file holds.
func (m *liveMap) spoil() {
	first := (*uint64)(unsafe.Pointer(&m.mem[0]))
	atomic.StoreUint64(first, 0)
}

// close unmaps. Nobody may use the bits any more.
func (m *liveMap) close() error {
	if m == nil {
		return nil
	}
	return unix.Munmap(m.mem)
}

// bootID names this boot of the host.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("cannot read the boot ID: %w", err)
	}
	return string(b[:min(len(b), 36)]), nil
}
