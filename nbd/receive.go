package nbd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"

	"drover"
)

// maxStatusChunk bounds one chunk of a reply to NBD_CMD_BLOCK_STATUS: 128 Ki extents, as other servers do.
const maxStatusChunk = 4 + 128<<10*statusExtentSize

// receive reads replies until the connection is lost, then fails what is in flight. It is the only one that finishes calls.
func (c *Client) receive(br *bufio.Reader) {
	defer close(c.done)
	var err error
	for err == nil {
		err = c.receiveReply(br)
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("the server closed it")
	}
	c.fail(c.lost(err)) // unless it failed before: then err is only what the closed socket says
	err = c.Err()
	for i := range c.calls {
		k := &c.calls[i]
		k.mu.Lock()
		switch k.state {
		case callFlying, callReceiving:
			c.completeLocked(k, err)
		case callAbandoned:
			k.state = callFree
			c.free <- k
		case callFree:
		}
		k.mu.Unlock()
	}
}

// completeLocked hands a call back to whoever waits for it.
func (c *Client) completeLocked(k *call, err error) {
	k.state, k.err = callFree, err
	k.done <- struct{}{}
}

// broken makes the error that ends the connection because the server does not keep to the protocol.
func broken(format string, args ...any) error {
	return drover.Errorf(drover.Unavailable, "the server broke the protocol: "+format, args...)
}

// receiveReply reads one simple reply, or one chunk of a structured one. An error is the end of the connection.
func (c *Client) receiveReply(br *bufio.Reader) error {
	head, err := br.Peek(simpleReplySize)
	if err != nil {
		return err
	}
	switch magic := binary.BigEndian.Uint32(head); {
	case magic == magicSimple:
		e, cookie := errno(binary.BigEndian.Uint32(head[4:])), binary.BigEndian.Uint64(head[8:])
		if _, err := br.Discard(simpleReplySize); err != nil {
			return err
		}
		return c.receiveSimple(br, e, cookie)
	case magic == magicStructured && c.export.structured:
		if head, err = br.Peek(chunkSize); err != nil {
			return err
		}
		chunk := chunk{
			last:   binary.BigEndian.Uint16(head[4:])&chunkDone != 0,
			kind:   chunkKind(binary.BigEndian.Uint16(head[6:])),
			cookie: binary.BigEndian.Uint64(head[8:]),
			length: binary.BigEndian.Uint32(head[16:]),
		}
		if _, err := br.Discard(chunkSize); err != nil {
			return err
		}
		return c.receiveChunk(br, chunk)
	}
	return broken("a reply begins with % x", head[:4])
}

// find returns the call of a cookie, locked, unless none is waiting for an answer.
func (c *Client) find(cookie uint64) (*call, error) {
	index := uint32(cookie)
	if index >= clientDepth {
		return nil, broken("a reply to request %#x, which was never made", cookie)
	}
	k := &c.calls[index]
	k.mu.Lock()
	if k.state == callFree || k.generation != uint32(cookie>>32) {
		k.mu.Unlock()
		return nil, broken("a reply to request %#x, which is not open", cookie)
	}
	return k, nil
}

// receiveSimple handles a simple reply; to a successful READ, the data follows.
func (c *Client) receiveSimple(br *bufio.Reader, e errno, cookie uint64) error {
	k, err := c.find(cookie)
	if err != nil {
		return err
	}
	defer k.mu.Unlock()
	if e == errnoNone && (k.kind == cmdBlockStatus || k.kind == cmdRead && c.export.structured) {
		return broken("a simple reply to a %s", k.kind)
	}
	if e != errnoNone {
		k.err = c.failure(k, e, "")
	} else if k.kind == cmdRead {
		if err := c.fillLocked(br, k, 0, int64(k.length)); err != nil {
			return err
		}
	}
	c.endLocked(k)
	return nil
}

// chunk is the header of a structured reply chunk.
type chunk struct {
	last   bool
	kind   chunkKind
	cookie uint64
	length uint32
}

// receiveChunk handles one chunk of a structured reply. All of it but a READ's data is read before the call is looked up, so that
// no call is locked while the network is waited for.
func (c *Client) receiveChunk(br *bufio.Reader, h chunk) error {
	var size uint32 // of what is read first
	switch {
	case h.kind == chunkNone && h.length == 0 && h.last:
	case h.kind == chunkData && h.length > dataChunkSize-chunkSize:
		size = dataChunkSize - chunkSize
	case h.kind == chunkZstd && c.decoder != nil && h.length > packedHeadSize && h.length <= packedHeadSize+maxBlock:
		return c.receivePackedChunk(br, h)
	case h.kind == chunkHole && h.length == holeChunkSize-chunkSize,
		h.kind == chunkStatus && h.length <= maxStatusChunk,
		h.kind&chunkErrorBit != 0 && h.length >= errorChunkSize-chunkSize && h.length <= maxOptionData:
		size = h.length
	default:
		return broken("a chunk of kind %d and %d bytes", h.kind, h.length)
	}
	b, err := take(br, int(size))
	if err != nil {
		return err
	}
	k, err := c.find(h.cookie)
	if err != nil {
		return err
	}
	defer k.mu.Unlock()
	switch {
	case h.kind == chunkNone:
	case h.kind == chunkData && k.kind == cmdRead:
		err = c.receiveData(br, k, binary.BigEndian.Uint64(b), int64(h.length-size))
	case h.kind == chunkHole && k.kind == cmdRead:
		err = receiveHole(k, binary.BigEndian.Uint64(b), int64(binary.BigEndian.Uint32(b[8:])))
	case h.kind == chunkStatus && k.kind == cmdBlockStatus:
		err = receiveStatus(k, b)
	case h.kind&chunkErrorBit != 0:
		err = c.receiveError(k, b)
	default:
		err = broken("a chunk of kind %d in the reply to a %s", h.kind, k.kind)
	}
	return c.afterChunkLocked(k, h, err)
}

// receivePackedChunk handles a chunk with compressed data. All of it is read before the call is looked up.
func (c *Client) receivePackedChunk(br *bufio.Reader, h chunk) error {
	if cap(c.packed) < int(h.length) {
		c.packed = make([]byte, h.length)
	}
	b := c.packed[:h.length]
	if cap(c.packed) > keptPacked {
		c.packed = nil
	}
	if _, err := io.ReadFull(br, b); err != nil {
		return err
	}
	k, err := c.find(h.cookie)
	if err != nil {
		return err
	}
	defer k.mu.Unlock()
	if k.kind != cmdRead {
		return broken("a chunk of kind %d in the reply to a %s", h.kind, k.kind)
	}
	return c.afterChunkLocked(k, h, c.receivePacked(k, b))
}

// keptPacked is how much room for compressed data a client keeps between replies.
const keptPacked = 2 << 20

// afterChunkLocked goes on after a chunk was handled with the result err.
func (c *Client) afterChunkLocked(k *call, h chunk, err error) error {
	if err != nil || !h.last {
		return err
	}
	return c.endChunkedLocked(k)
}

// take reads n bytes. They are good until the next read.
func take(br *bufio.Reader, n int) ([]byte, error) {
	if n > br.Size() {
		b := make([]byte, n)
		_, err := io.ReadFull(br, b)
		return b, err
	}
	b, err := br.Peek(n)
	if err != nil {
		return nil, err
	}
	_, err = br.Discard(n)
	return b, err
}

// endChunkedLocked is the end of a structured reply: is everything there?
func (c *Client) endChunkedLocked(k *call) error {
	if k.err == nil && k.state != callAbandoned {
		if k.kind == cmdRead && !k.filled.complete(int64(k.length)) {
			return broken("the reply to a read of %d bytes at %d lacks some of them", k.length, k.offset)
		}
		if k.kind == cmdBlockStatus && len(k.status.extents) == 0 {
			return broken("the reply to a block status of %d bytes at %d is empty", k.length, k.offset)
		}
	}
	c.endLocked(k)
	return nil
}

// endLocked is the end of a reply.
func (c *Client) endLocked(k *call) {
	if k.state == callAbandoned {
		k.state = callFree
		c.free <- k
		return
	}
	c.completeLocked(k, k.err)
}

// place checks a piece of a READ's reply and returns where in the request it begins.
func place(k *call, offset uint64, n int64) (int64, error) {
	from := offset - k.offset
	if offset < k.offset || from > uint64(k.length) || n > int64(k.length)-int64(from) || n == 0 {
		return 0, broken("%d bytes at %d in the reply to a read of %d bytes at %d", n, offset, k.length, k.offset)
	}
	if k.state != callAbandoned && !k.filled.add(int64(from), int64(from)+n) {
		return 0, broken("%d bytes at %d twice, or too many pieces, in the reply to a read", n, offset)
	}
	return int64(from), nil
}

// receiveData handles NBD_REPLY_TYPE_OFFSET_DATA. k is locked, but not while the data arrives.
func (c *Client) receiveData(br *bufio.Reader, k *call, offset uint64, n int64) error {
	from, err := place(k, offset, n)
	if err != nil {
		return err
	}
	return c.fillLocked(br, k, from, n)
}

// receivePacked handles the compressed data of a chunk. k is locked, but not while the data is decompressed.
func (c *Client) receivePacked(k *call, b []byte) error {
	n := int64(binary.BigEndian.Uint32(b[8:]))
	from, err := place(k, binary.BigEndian.Uint64(b), n)
	if err != nil || k.state == callAbandoned {
		return err
	}
	p := k.beginFillLocked(from, n)
	k.mu.Unlock()
	err = unpack(c.decoder, p, b[packedHeadSize:])
	k.mu.Lock()
	if err != nil {
		return err
	}
	c.traffic.Load().add(n, int64(len(b)))
	k.endFillLocked()
	return nil
}

// fillLocked reads n bytes into the request's data. k is unlocked meanwhile, so that who waits for it can be told to wait on.
func (c *Client) fillLocked(br *bufio.Reader, k *call, from, n int64) error {
	if k.state == callAbandoned {
		k.mu.Unlock()
		_, err := io.CopyN(io.Discard, br, n)
		k.mu.Lock()
		return err
	}
	p := k.beginFillLocked(from, n)
	k.mu.Unlock()
	_, err := io.ReadFull(br, p)
	k.mu.Lock()
	if err != nil {
		return err // the caller still waits: receive tells it
	}
	c.traffic.Load().add(n, n)
	k.endFillLocked()
	return nil
}

// beginFillLocked returns where a part of a READ's data goes, to be written to with k unlocked.
func (k *call) beginFillLocked(from, n int64) []byte {
	k.state = callReceiving
	return k.p[from : from+n]
}

// endFillLocked lets go of what beginFillLocked returned.
func (k *call) endFillLocked() {
	if !k.cancelled {
		k.state = callFlying
		return
	}
	k.state, k.p, k.status = callAbandoned, nil, nil
	k.released <- struct{}{}
}

// receiveHole handles NBD_REPLY_TYPE_OFFSET_HOLE. k is locked.
func receiveHole(k *call, offset uint64, n int64) error {
	from, err := place(k, offset, n)
	if err != nil || k.state == callAbandoned {
		return err
	}
	clear(k.p[from : from+n])
	return nil
}

// receiveStatus handles NBD_REPLY_TYPE_BLOCK_STATUS. k is locked.
func receiveStatus(k *call, b []byte) error {
	id, b, ok := cutUint32(b)
	if !ok || len(b) == 0 || len(b)%statusExtentSize != 0 {
		return broken("a block status with %d bytes of extents", len(b))
	}
	if k.state == callAbandoned || k.status.context != id {
		return nil
	}
	if len(k.status.extents) > 0 {
		return broken("two chunks for one metadata context in the reply to a block status")
	}
	extents := make([]Extent, 0, len(b)/statusExtentSize)
	left := int64(k.length)
	for ; len(b) > 0 && left > 0; b = b[statusExtentSize:] {
		n := int64(binary.BigEndian.Uint32(b))
		if n == 0 {
			return broken("an extent of 0 bytes in the reply to a block status")
		}
		n = min(n, left) // the last one may reach beyond what was asked
		extents = append(extents, Extent{Length: n, Flags: binary.BigEndian.Uint32(b[4:])})
		left -= n
	}
	k.status.extents = extents
	return nil
}

// receiveError handles every kind of error chunk: more chunks may follow, but the request has failed. k is locked.
func (c *Client) receiveError(k *call, b []byte) error {
	e, size := errno(binary.BigEndian.Uint32(b)), int(binary.BigEndian.Uint16(b[4:]))
	if e == errnoNone || size > len(b)-6 {
		return broken("an error chunk with number %d and a message of %d bytes", uint32(e), size)
	}
	if k.state != callAbandoned && k.err == nil {
		k.err = c.failure(k, e, string(b[6:6+size]))
	}
	return nil
}

// failure is the error of one request, as the server tells it.
func (c *Client) failure(k *call, e errno, text string) error {
	if text == "" {
		text = "the server gives no reason"
	}
	return drover.Errorf(e.code(), "cannot %s %d bytes at %d of NBD export %q at %s: %s (%s)", k.kind, k.length, k.offset, c.cfg.Export,
		c.cfg.Address, text, e)
}
