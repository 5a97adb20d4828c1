package nbd

import "encoding/binary"

// pieceSize is how much of a large READ is read and sent at a time.
const pieceSize = 256 << 10

// sendPieces answers a READ in several chunks as far as the Backend has the data at hand, and reports whether that was all; what is left of
// the request is then a request of its own, which ends the reply. The reading goroutine does it: what comes behind has to wait for this reply
// in any case. It leaves the request alone while another reply is being written.
func (t *transmission) sendPieces(r *request) (all bool) {
	if t.pieces == nil || t.zeroes != nil || !t.structured || r.flags&cmdFlagDF != 0 || !t.claim() {
		return false
	}
	defer t.flushClaimed()
	p := r.payload()
	p = p[:min(pieceSize, len(p))]
	for {
		n := min(len(p), int(r.length))
		if !t.pieces.TryReadPiece(p[:n], r.off()) {
			return false
		}
		var flags uint16
		if n == int(r.length) {
			flags = chunkDone
		}
		head := appendChunk(r.head[:0], flags, chunkData, r.cookie, uint32(dataChunkSize-chunkSize+n))
		head = binary.BigEndian.AppendUint64(head, r.offset)
		t.parts = append(t.parts[:0], head, p[:n])
		if err := t.conn.out.send(t.parts); err != nil {
			t.conn.end(err)
			flags = chunkDone // nobody waits for the rest
		}
		if flags == chunkDone {
			return true
		}
		r.offset, r.length = r.offset+uint64(n), r.length-uint32(n)
	}
}

// claim makes the caller the one who writes, if nobody is. flushClaimed must be called.
func (t *transmission) claim() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.writing {
		return false
	}
	t.writing = true
	return true
}

// flushClaimed writes what was added meanwhile, and ends the writing.
func (t *transmission) flushClaimed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drainLocked()
}
