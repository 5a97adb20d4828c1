package api

import (
	"bufio"
	"encoding/json"
	"io"
)

// array is a JSON array whose elements are written already; nil is none. It is sent as it is: to put ten thousand of them together first would cost as much as
// all else that a list does.
type array []json.RawMessage

// length is how many bytes write writes.
func (a array) length() int {
	size, commas := 2, 0
	for _, element := range a {
		if element != nil {
			size += len(element)
			commas++
		}
	}
	return size + max(0, commas-1)
}

// sendMost is how much of an array is given to the connection at once.
const sendMost = 128 << 10

func (a array) write(w io.Writer) error {
	out := bufio.NewWriterSize(w, min(sendMost, a.length()))
	out.WriteByte('[')
	first := true
	for _, element := range a {
		if element == nil {
			continue
		}
		if !first {
			out.WriteByte(',')
		}
		first = false
		if _, err := out.Write(element); err != nil {
			return err
		}
	}
	out.WriteByte(']')
	return out.Flush()
}
