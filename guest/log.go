package guest

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"

	"drover"

	"golang.org/x/sys/unix"
)

const (
	// MaxLogText bounds the text of one log line, in bytes; drover-init splits longer ones.
	MaxLogText = 16 << 10
	// LogKeep is how much of a log file TrimLog is meant to keep.
	LogKeep drover.Bytes = 16 << 20
	// maxLine bounds one line of a file: the text with every byte escaped, and the rest.
	maxLine = 6*MaxLogText + 4096
)

// logRecord is a line of the log file.
type logRecord struct {
	T int64  `json:"t"`
	S string `json:"s"`
	M string `json:"m"`
	// P is the process that wrote it, where there are several.
	P string `json:"p,omitempty"`
}

// ReadLog reads the log file at path from an offset: at most maxLines lines and about maxBytes. next is the offset to go on
// from. Offsets stay valid when the log is trimmed: reading goes on with the first whole line that is left. A file that does not
// exist, and an offset past the end of the file, are no errors: the one has no lines, the other means the beginning of a new file.
func ReadLog(path string, offset int64, maxLines, maxBytes int) (lines []drover.LogLine, next int64, err error) {
	chunk, err := readLines(path, offset, maxLines, maxBytes)
	if err != nil {
		return nil, offset, err
	}
	for _, l := range chunk.lines {
		lines = append(lines, parseLog(l.text))
	}
	return lines, chunk.next, nil
}

// TailLog returns the offset at which the last n lines of the log file begin.
func TailLog(path string, n int) (int64, error) { return tailOffset(path, n) }

// WaitLog returns when the log file is longer than offset, or ctx ends: then with its error.
func WaitLog(ctx context.Context, path string, offset int64) error {
	w, err := watchFile(path)
	if err != nil {
		return err
	}
	defer w.Close()
	for {
		st, err := os.Stat(path)
		if err != nil {
			return drover.Errorf(drover.Internal, "cannot read %s: %w", path, err)
		}
		if st.Size() != offset {
			return nil
		}
		if err := w.Wait(ctx); err != nil {
			return err
		}
	}
}

// TrimLog gives the space of all but the last keep bytes of a log or status file back to the file system. The file's size and the
// offsets in it stay as they are, and it may be appended to meanwhile. It does nothing while little would be gained, and on a file
// that does not exist. Precondition when the file system cannot punch holes.
func TrimLog(path string, keep drover.Bytes) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot trim %s: %w", path, err)
	}
	defer f.Close() // nothing is written
	st, err := f.Stat()
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot trim %s: %w", path, err)
	}
	return punch(f, st.Size()-int64(keep))
}

// TrimBefore gives the space of all that lies before the offset back, as TrimLog does.
func TrimBefore(path string, offset int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot trim %s: %w", path, err)
	}
	defer f.Close() // nothing is written
	return punch(f, offset)
}

// punch frees the blocks of a file before an offset.
func punch(f *os.File, before int64) error {
	const block = 64 << 10 // a multiple of every file system's block
	end, path := before&^(block-1), f.Name()
	if end <= 0 {
		return nil
	}
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, end)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return drover.Errorf(drover.Precondition, "cannot trim %s: its file system cannot punch holes: %w", path, err).
			WithHint("keep the data directory on ext4, XFS or Btrfs")
	}
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot trim %s: %w", path, err)
	}
	return nil
}

// parseLog reads a line of the log file. One that a full disk or a power cut damaged is shown as it is.
func parseLog(text []byte) drover.LogLine {
	var r logRecord
	if err := json.Unmarshal(text, &r); err != nil {
		return drover.LogLine{Stream: "damaged", Text: string(text)}
	}
	return drover.LogLine{At: time.Unix(0, r.T).UTC(), Stream: r.S, Process: r.P, Text: r.M}
}

// BeginLog makes the log file at path go on at the offset next, where the log of the same machine on another host ended: what was before
// reads like what TrimLog took away. A file that is that long already is left alone.
func BeginLog(path string, next int64) error {
	if next <= 0 {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot begin %s: %w", path, err)
	}
	st, err := f.Stat()
	if err == nil && st.Size() < next {
		// A line that a hole cuts is not shown: this one is cut, so that the next is not.
		_, err = f.WriteAt([]byte("\n"), next-1)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return drover.Errorf(drover.Internal, "cannot begin %s: %w", path, err)
	}
	return nil
}
