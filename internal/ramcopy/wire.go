package ramcopy

import (
	"encoding/binary"
	"fmt"
	"io"

	"drover"
)

const magic = "drvram1\n"

// The kinds of frames.
const (
	framePages  = 'p' // the bytes from offset on
	frameZeroes = 'z' // there is nothing from offset on
	frameMark   = 'm' // tell when everything before is there
	frameEnd    = 'e' // the same, and it was all
)

// headSize is that of a frame without its bytes.
const headSize = 1 + 8 + 8

// maxAddress bounds the text of an address.
const maxAddress = 1024

func putHead(head *[headSize]byte, kind byte, offset, length int64) []byte {
	head[0] = kind
	binary.BigEndian.PutUint64(head[1:], uint64(offset))
	binary.BigEndian.PutUint64(head[9:], uint64(length))
	return head[:]
}

func parseHead(head []byte) (kind byte, offset, length int64) {
	return head[0], int64(binary.BigEndian.Uint64(head[1:])), int64(binary.BigEndian.Uint64(head[9:]))
}

// writeGreeting tells the sender what it talks to.
func writeGreeting(w io.Writer, size int64, state string) error {
	b := binary.BigEndian.AppendUint64([]byte(magic), uint64(size))
	b = binary.BigEndian.AppendUint16(b, uint16(len(state)))
	_, err := w.Write(append(b, state...))
	return err
}

// readGreeting returns the state's address. Precondition when the memory is not as large as this one.
func readGreeting(r io.Reader, size int64) (state string, err error) {
	head := make([]byte, len(magic)+8+2)
	if _, err := io.ReadFull(r, head); err != nil {
		return "", err
	}
	length := binary.BigEndian.Uint16(head[len(magic)+8:])
	if string(head[:len(magic)]) != magic || length > maxAddress {
		return "", drover.Errorf(drover.Precondition, "who takes the memory speaks another protocol").WithHint("see that both hosts have the same version")
	}
	if there := int64(binary.BigEndian.Uint64(head[len(magic):])); there != size {
		return "", drover.Errorf(drover.Precondition, "the memory has %d bytes here and %d there", size, there)
	}
	text := make([]byte, length)
	_, err = io.ReadFull(r, text)
	return string(text), err
}

// checkRange refuses what is not within the memory, or not whole pages.
func checkRange(offset, length, size int64) error {
	if offset < 0 || length <= 0 || offset%pageSize != 0 || length%pageSize != 0 || offset > size-length {
		return fmt.Errorf("a frame of %d bytes at offset %d of a memory of %d", length, offset, size)
	}
	return nil
}
