package ramcopy

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"drover"
)

// readChunk is how much is taken from the connection at a time.
const readChunk = 256 << 10

// Receive empties the memory, and fills it with what comes over the connection. state is the address that the sender is told. It returns nil when all
// is there, and the sender was told so; after an error the memory is of no use until another Receive. Whoever wants it to end earlier closes the connection.
func Receive(conn io.ReadWriter, memory *os.File, size drover.Bytes, state string) error {
	r := &receiver{conn: conn, in: bufio.NewReaderSize(conn, readChunk), memory: memory, size: int64(size), buf: make([]byte, readChunk)}
	if err := r.empty(0, r.size); err != nil {
		return err
	}
	if err := writeGreeting(conn, r.size, state); err != nil {
		return fmt.Errorf("cannot greet who sends the memory: %w", err)
	}
	for {
		over, err := r.frame()
		if err != nil {
			return fmt.Errorf("cannot take the memory: %w", err)
		}
		if over {
			return nil
		}
	}
}

type receiver struct {
	conn   io.ReadWriter
	in     *bufio.Reader
	memory *os.File
	size   int64
	buf    []byte
}

// frame takes one frame.
func (r *receiver) frame() (over bool, err error) {
	var head [headSize]byte
	if _, err := io.ReadFull(r.in, head[:]); err != nil {
		return false, err
	}
	kind, offset, length := parseHead(head[:])
	switch kind {
	case framePages:
		return false, r.pages(offset, length)
	case frameZeroes:
		if err := checkRange(offset, length, r.size); err != nil {
			return false, err
		}
		return false, r.empty(offset, length)
	case frameMark, frameEnd:
		_, err := r.conn.Write(binary.BigEndian.AppendUint64(nil, uint64(offset)))
		return kind == frameEnd, err
	}
	return false, fmt.Errorf("a frame of the unknown kind %q", kind)
}

func (r *receiver) pages(offset, length int64) error {
	if err := checkRange(offset, length, r.size); err != nil {
		return err
	}
	for length > 0 {
		part := r.buf[:min(length, int64(len(r.buf)))]
		if _, err := io.ReadFull(r.in, part); err != nil {
			return err
		}
		if _, err := r.memory.WriteAt(part, offset); err != nil {
			return err
		}
		offset, length = offset+int64(len(part)), length-int64(len(part))
	}
	return nil
}

// empty gives a part of the memory back: it reads as zeroes.
func (r *receiver) empty(offset, length int64) error {
	if err := punch(r.memory, offset, length); err != nil {
		return fmt.Errorf("cannot empty the memory: %w", err)
	}
	return nil
}

// punch makes a hole. Signals, by which Go schedules, cut it short.
func punch(f *os.File, offset, length int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
