package guest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"

	"drover"

	"golang.org/x/sys/unix"
)

// The files that the VMM appends to are read here. TrimLog frees their beginning by punching a hole, so that an offset in the file
// stays the same for ever and whoever appends notices nothing.

// line is one line of a file without its newline, and the offset after it.
type line struct {
	text []byte
	next int64
}

// chunk is a run of whole lines.
type chunk struct {
	lines []line
	// next is where to go on reading: after the last line, or after a hole.
	next int64
}

// readLines reads whole lines from an offset: at most maxLines, and about maxBytes. What does not end in a newline yet is left for
// later. A file that does not exist has no lines.
func readLines(path string, offset int64, maxLines, maxBytes int) (chunk, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return chunk{}, nil
	}
	if err != nil {
		return chunk{}, drover.Errorf(drover.Internal, "cannot open %s: %w", path, err)
	}
	defer f.Close() // only read
	start, cut, err := firstData(f, offset)
	if err != nil {
		return chunk{}, drover.Errorf(drover.Internal, "cannot read %s: %w", path, err)
	}
	data := make([]byte, max(maxBytes, maxLine))
	n, err := f.ReadAt(data, start)
	if err != nil && !errors.Is(err, io.EOF) {
		return chunk{}, drover.Errorf(drover.Internal, "cannot read %s: %w", path, err)
	}
	data = data[:n]
	out := chunk{next: start}
	for len(out.lines) < maxLines {
		text, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole {
			break
		}
		out.next += int64(len(text) + 1)
		data = rest
		if cut { // what is left of the line that the hole cut
			cut = false
			continue
		}
		out.lines = append(out.lines, line{text: text, next: out.next})
	}
	if len(out.lines) == 0 && len(data) >= maxLine {
		out.next += int64(len(data)) // no line of ours is that long: go past it
	}
	return out, nil
}

// firstData returns where the file has data at or after offset, and whether a hole ends there, in the middle of a line. An offset
// past the end belongs to an older file: the answer is then the beginning.
func firstData(f *os.File, offset int64) (start int64, cut bool, err error) {
	st, err := f.Stat()
	if err != nil {
		return 0, false, err
	}
	if offset > st.Size() || offset < 0 {
		offset = 0
	}
	start, err = unix.Seek(int(f.Fd()), offset, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // nothing but a hole, or the end
		return st.Size(), false, nil
	case errors.Is(err, unix.EINVAL): // a file system that knows no holes
		return offset, false, nil
	}
	return start, start > offset, err
}

// tailOffset returns the offset at which the last n whole lines begin.
func tailOffset(path string, n int) (int64, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, drover.Errorf(drover.Internal, "cannot open %s: %w", path, err)
	}
	defer f.Close() // only read
	first, cut, err := firstData(f, 0)
	if err != nil {
		return 0, drover.Errorf(drover.Internal, "cannot read %s: %w", path, err)
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, drover.Errorf(drover.Internal, "cannot read %s: %w", path, err)
	}
	buffer := make([]byte, 64<<10)
	found := -1 // the newline that ends the last line does not begin one
	for at := end; at > first; {
		size := min(at-first, int64(len(buffer)))
		at -= size
		if _, err := f.ReadAt(buffer[:size], at); err != nil {
			return 0, drover.Errorf(drover.Internal, "cannot read %s: %w", path, err)
		}
		for i := size - 1; i >= 0; i-- {
			if buffer[i] != '\n' {
				continue
			}
			if found++; found == n {
				return at + i + 1, nil
			}
		}
	}
	if cut {
		return 0, nil // reading skips the hole and the rest of the line that it cut
	}
	return first, nil
}
