package guest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"

	"drover"
)

// The agent port is one stream of bytes that successive clients of the host use one after the other. A client may leave in the
// middle of a frame, and what was on its way to it arrives at the next one. So a client begins with Magic, and the guest
// begins its answer to it with Magic. Magic cannot occur in a frame: there are no four bytes 0xFF in a row in a length and JSON.

// Magic begins a session in either direction.
const Magic = "\xff\xff\xff\xffDRV1"

// MaxFrame bounds the JSON of one frame.
const MaxFrame = 4 << 20

// EncodeFrame returns the frame of a message: its length in 4 bytes, big endian, and its JSON. Invalid when it is larger than MaxFrame.
func EncodeFrame(message any) ([]byte, error) {
	data, err := json.Marshal(message)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot encode a frame: %w", err)
	}
	if len(data) > MaxFrame {
		return nil, drover.Errorf(drover.Invalid, "a message of %d bytes is larger than %d", len(data), MaxFrame)
	}
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(data)), uint32(len(data))), data...), nil
}

// Decoder takes frames out of a stream of bytes. Its zero value waits for the first Magic and drops what comes before. It keeps
// MaxFrame+4 bytes and what is fed at once, at most.
type Decoder struct {
	buffer []byte
	// inSession: Magic was seen, and everything since was well formed.
	inSession bool
	// seen counts the bytes at the start of buffer that are known to hold no Magic.
	seen int
}

// Feed adds bytes that arrived. It reports whether a new session began; then everything from before is gone.
func (d *Decoder) Feed(data []byte) (begun bool) {
	d.buffer = append(d.buffer, data...)
	if at := bytes.LastIndex(d.buffer[d.seen:], []byte(Magic)); at >= 0 {
		d.buffer = append([]byte(nil), d.buffer[d.seen+at+len(Magic):]...)
		d.inSession, begun = true, true
	}
	// The end of the buffer may be the beginning of a Magic.
	d.seen = max(0, len(d.buffer)-len(Magic)+1)
	if !d.inSession {
		d.drop(d.seen)
	}
	return begun
}

// Next returns the JSON of the next whole frame, nil when there is none yet. A length that cannot be ends the session: what
// follows is dropped up to the next Magic.
func (d *Decoder) Next() []byte {
	if !d.inSession || len(d.buffer) < 4 {
		return nil
	}
	size := binary.BigEndian.Uint32(d.buffer)
	if size == 0 || size > MaxFrame {
		d.Reset()
		return nil
	}
	end := 4 + int(size)
	if len(d.buffer) < end {
		return nil
	}
	frame := bytes.Clone(d.buffer[4:end])
	d.drop(end)
	return frame
}

// InSession reports whether a Magic was seen and everything since was well formed.
func (d *Decoder) InSession() bool { return d.inSession }

// Reset ends the session: everything up to the next Magic is dropped.
func (d *Decoder) Reset() {
	d.inSession = false
	d.drop(d.seen)
}

// drop removes n bytes from the start of the buffer.
func (d *Decoder) drop(n int) {
	d.buffer = append(d.buffer[:0], d.buffer[n:]...)
	d.seen = max(0, d.seen-n)
	if len(d.buffer) == 0 {
		d.buffer = nil // a large frame's memory is not kept
	}
}
