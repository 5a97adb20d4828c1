package oci

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
)

// fileSet is a folder, or an archive read in place. Its files may be open at the same time.
type fileSet interface {
	// find looks a file up by its path inside the set.
	find(name string) (file, bool)
	io.Closer
}

// file is one regular file of a set.
type file struct {
	size int64
	open func() (io.ReadCloser, error)
}

// folder is a directory; nothing outside of it can be reached, by ".." or by symbolic links.
type folder struct{ root *os.Root }

func openFolder(dir string) (fileSet, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return folder{root}, nil
}

func (f folder) find(name string) (file, bool) {
	st, err := f.root.Stat(name)
	if err != nil || !st.Mode().IsRegular() {
		return file{}, false
	}
	return file{size: st.Size(), open: func() (io.ReadCloser, error) { return f.root.Open(name) }}, true
}

func (f folder) Close() error { return f.root.Close() }

// archive is an uncompressed tar file with the place of each of its files.
type archive struct {
	f     *os.File
	files map[string]span
	links map[string]string
}

// span is a part of a file.
type span struct{ off, size int64 }

// maxArchiveFiles bounds the files of an archive; an image has a few for each layer.
const maxArchiveFiles = 100_000

func openArchive(name string) (fileSet, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	a := &archive{f: f, files: map[string]span{}, links: map[string]string{}}
	if err := a.scan(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return a, nil
}

func (a *archive) scan() error {
	st, err := a.f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return errors.New("it is not a regular file")
	}
	var magic [2]byte
	if _, err := a.f.ReadAt(magic[:], 0); err == nil && magic == [2]byte{0x1f, 0x8b} {
		return errors.New("it is compressed: unpack it with gunzip first")
	}
	tr := tar.NewReader(a.f)
	for range maxArchiveFiles {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("it is not a tar file: %w", err)
		}
		// The reader does not read ahead: the file's position is where the content starts.
		off, err := a.f.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		switch hdr.Typeflag {
		case tar.TypeReg:
			if off+hdr.Size > st.Size() {
				return fmt.Errorf("it ends in the middle of %s: %w", hdr.Name, io.ErrUnexpectedEOF)
			}
			a.files[absPath(hdr.Name)] = span{off, hdr.Size}
		case tar.TypeSymlink: // old docker archives share layers so
			a.links[absPath(hdr.Name)] = absPath(path.Join(path.Dir(hdr.Name), hdr.Linkname))
		case tar.TypeLink:
			a.links[absPath(hdr.Name)] = absPath(hdr.Linkname)
		}
	}
	return fmt.Errorf("it has more than %d files: %w", maxArchiveFiles, fs.ErrInvalid)
}

func (a *archive) find(name string) (file, bool) {
	name = absPath(name)
	for range 8 { // links to links
		if s, ok := a.files[name]; ok {
			return file{size: s.size, open: func() (io.ReadCloser, error) {
				return io.NopCloser(io.NewSectionReader(a.f, s.off, s.size)), nil
			}}, true
		}
		next, ok := a.links[name]
		if !ok {
			break
		}
		name = next
	}
	return file{}, false
}

func (a *archive) Close() error { return a.f.Close() }
