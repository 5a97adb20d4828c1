package initrd

import (
	"bufio"
	"fmt"
	"io"
)

// The file types of a cpio header's mode, as in stat(2).
const (
	modeDir     = 0o040000
	modeFile    = 0o100000
	modeSymlink = 0o120000
	modeDevice  = 0o020000
)

// trailer is the name of the entry that ends an archive.
const trailer = "TRAILER!!!"

// Archive writes a cpio archive in the "newc" format, which the kernel unpacks at boot (Linux Documentation/driver-api/
// early-userspace/buffer-format.rst). Directories must be added before what they hold. The first error sticks: Close returns it.
type Archive struct {
	w      *bufio.Writer
	offset int64
	inode  uint32
	err    error
}

// NewArchive starts an archive on w.
func NewArchive(w io.Writer) *Archive { return &Archive{w: bufio.NewWriterSize(w, 1<<20)} }

// Dir adds a directory. Names have no leading slash.
func (a *Archive) Dir(name string, perm uint32) { a.entry(name, modeDir|perm, 0, nil) }

// File adds a regular file.
func (a *Archive) File(name string, perm uint32, data []byte) { a.entry(name, modeFile|perm, 0, data) }

// Symlink adds a symbolic link to target.
func (a *Archive) Symlink(name, target string) { a.entry(name, modeSymlink|0o777, 0, []byte(target)) }

// Device adds a character device.
func (a *Archive) Device(name string, perm uint32, major, minor uint8) {
	a.entry(name, modeDevice|perm, uint64(major)<<32|uint64(minor), nil)
}

// Close ends the archive. It does not close the writer below.
func (a *Archive) Close() error {
	a.inode = 0
	a.header(trailer, 0, 0, 0)
	a.pad(512)
	if a.err != nil {
		return a.err
	}
	return a.w.Flush()
}

func (a *Archive) entry(name string, mode uint32, device uint64, data []byte) {
	a.inode++
	a.header(name, mode, device, len(data))
	a.write(data)
	a.pad(4)
}

// header writes the 110 byte header and the name. Owner and time are zero: the archive depends on its content only.
func (a *Archive) header(name string, mode uint32, device uint64, size int) {
	links := 1
	if mode&modeDir != 0 && mode&modeFile != modeFile {
		links = 2
	}
	a.write(fmt.Appendf(nil, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.inode, mode, 0, 0, links, 0, size, 0, 0, uint32(device>>32), uint32(device), len(name)+1, 0))
	a.write(append([]byte(name), 0))
	a.pad(4)
}

func (a *Archive) pad(to int64) {
	if n := -a.offset & (to - 1); n > 0 {
		a.write(make([]byte, n))
	}
}

func (a *Archive) write(b []byte) {
	if a.err != nil {
		return
	}
	n, err := a.w.Write(b)
	a.offset += int64(n)
	a.err = err
}
