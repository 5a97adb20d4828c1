package nbd

import (
	"context"
	"encoding/binary"

	"drover"
)

const (
	// minSparse is the length from which on zeroes are left out of the reply to a read.
	minSparse = 64 << 10
	// minHole is the shortest run of zeroes that is left out: below it, the frames and the second call of the Backend cost more.
	minHole = 16 << 10
	// maxChunks bounds the chunks of one reply to a read.
	maxChunks = 64
	// maxExtents bounds the extents of one reply to NBD_CMD_BLOCK_STATUS.
	maxExtents = 16 << 10
)

// try executes a request in the reading goroutine if that can be done without waiting.
func (t *transmission) try(r *request) bool {
	if r.kind == cmdRead && t.packs(r.length) {
		return false
	}
	if r.length > maxInline {
		return r.kind == cmdRead && t.sendPieces(r)
	}
	var done bool
	var err error
	switch {
	case r.kind == cmdRead && t.reader != nil:
		if done, err = t.reader.TryReadAt(r.payload(), r.off()); done && err == nil {
			r.succeedWithData(t.structured)
		}
	case r.kind == cmdWrite && t.writer != nil && !r.fua():
		if done, err = t.writer.TryWriteAt(r.payload(), r.off()); done && err == nil {
			r.succeed()
			t.dropData(r) // the next request finds it in the CPU's cache
		}
	}
	if done && err != nil {
		t.fail(r, err)
	}
	return done
}

// dropData hands the buffer of a request back that has no data in its reply.
func (t *transmission) dropData(r *request) {
	t.srv.buffers.put(r.data)
	r.data = nil
}

// execute does a request and makes its reply.
func (t *transmission) execute(ctx context.Context, r *request) {
	backend := t.session.Backend
	var err error
	switch r.kind {
	case cmdRead:
		if err = t.read(ctx, r); err == nil {
			return
		}
	case cmdBlockStatus:
		if err = t.blockStatus(ctx, r); err == nil {
			return
		}
	case cmdWrite:
		err = backend.WriteAt(ctx, r.payload(), r.off(), r.fua())
	case cmdFlush:
		err = backend.Flush(ctx)
	case cmdTrim:
		err = backend.Discard(ctx, r.off(), int64(r.length), r.fua())
	case cmdWriteZeroes:
		err = backend.Zero(ctx, r.off(), int64(r.length), r.flags&cmdFlagNoHole != 0, r.fua())
	}
	if err != nil {
		t.fail(r, err)
		return
	}
	r.succeed()
}

// fail makes the reply to a request that the Backend failed: none at all, and the end of the connection, where the export is gone.
func (t *transmission) fail(r *request, err error) {
	if isClosed(t.session.Gone) {
		t.conn.end(errExportGone)
		r.reply = nil
		return
	}
	e := errnoOf(err)
	t.conn.log.Warn("NBD request failed", "command", r.kind, "offset", r.offset, "length", r.length, "errno", e, "err", err)
	r.fail(t.structured, e, err.Error())
}

// read executes a READ.
func (t *transmission) read(ctx context.Context, r *request) error {
	if t.zeroes != nil && t.structured && r.length >= minSparse && r.flags&cmdFlagDF == 0 {
		return t.readSparse(ctx, r)
	}
	if err := t.session.Backend.ReadAt(ctx, r.payload(), r.off()); err != nil {
		return err
	}
	if !t.packs(r.length) || !t.succeedPacked(r) {
		r.succeedWithData(t.structured)
	}
	return nil
}

// packs tells whether data of the length might be compressed.
func (t *transmission) packs(length uint32) bool { return t.packer != nil && length >= minPacked }

// succeedPacked makes the reply of a READ from its compressed payload, if compression pays.
func (t *transmission) succeedPacked(r *request) bool {
	packed, ok := t.pack(r, 0, r.payload())
	if !ok {
		return false
	}
	head := appendPackedHead(r.head[:0], chunkDone, r.cookie, r.offset, int(r.length), len(packed))
	r.reply = append(r.parts[:0], head, packed)
	t.dropData(r)
	return true
}

// pack compresses a part of a READ's data, which begins at the place at in it, to the same place of the request's second buffer.
func (t *transmission) pack(r *request, at int64, data []byte) ([]byte, bool) {
	if !t.packs(uint32(len(data))) {
		return nil, false
	}
	effort := t.packer.next()
	if effort == asIs {
		return nil, false
	}
	if r.packed == nil {
		r.packed = t.srv.buffers.get(int(r.length))
	}
	return t.packer.pack(effort, r.packed.b[at:at:at+int64(len(data))], data)
}

// readSparse reads what is not known to be zeroes and makes a reply of several chunks.
func (t *transmission) readSparse(ctx context.Context, r *request) error {
	// Chunk headers stand one after the other in extra, which must not move while parts of it are referred to.
	if cap(r.extra) < maxChunks*dataChunkSize {
		r.extra = make([]byte, 0, maxChunks*holeChunkSize)
	}
	heads, reply, p := r.extra[:0], r.parts[:0], r.payload()
	for at := int64(0); at < int64(len(p)); {
		run, zero := t.nextRun(r.off()+at, int64(len(p))-at)
		if len(reply) >= 2*(maxChunks-1) {
			run, zero = int64(len(p))-at, false
		}
		var flags uint16
		if at+run == int64(len(p)) {
			flags = chunkDone
		}
		from := len(heads)
		if zero {
			heads = appendChunk(heads, flags, chunkHole, r.cookie, holeChunkSize-chunkSize)
			heads = binary.BigEndian.AppendUint64(heads, uint64(r.off()+at))
			heads = binary.BigEndian.AppendUint32(heads, uint32(run))
			reply = append(reply, heads[from:])
		} else {
			if err := t.session.Backend.ReadAt(ctx, p[at:at+run], r.off()+at); err != nil {
				return err
			}
			data := p[at : at+run]
			if packed, ok := t.pack(r, at, data); ok {
				heads = appendPackedHead(heads, flags, r.cookie, uint64(r.off()+at), len(data), len(packed))
				data = packed
			} else {
				heads = appendChunk(heads, flags, chunkData, r.cookie, uint32(dataChunkSize-chunkSize+run))
				heads = binary.BigEndian.AppendUint64(heads, uint64(r.off()+at))
			}
			reply = append(reply, heads[from:], data)
		}
		at += run
	}
	r.reply, r.extra = reply, heads
	return nil
}

// nextRun returns the next run of one kind, short holes counted as data.
func (t *transmission) nextRun(off, n int64) (run int64, zero bool) {
	for run < n {
		k, z := t.zeroes.ZeroRun(off+run, n-run)
		k = min(max(k, 1), n-run)
		if z && k >= minHole {
			if run == 0 {
				return k, true
			}
			return run, false
		}
		run += k
	}
	return run, false
}

// blockStatus executes a BLOCK_STATUS: one chunk for each context.
func (t *transmission) blockStatus(ctx context.Context, r *request) error {
	b := r.extra[:0]
	for i, c := range t.contexts {
		extents, err := t.session.Backend.Extents(ctx, c.name, r.off(), int64(r.length))
		if err != nil {
			return err
		}
		most := maxExtents
		if r.flags&cmdFlagReqOne != 0 {
			most = 1
		}
		var flags uint16
		if i == len(t.contexts)-1 {
			flags = chunkDone
		}
		from := len(b)
		b = appendChunk(b, flags, chunkStatus, r.cookie, 0)
		b = binary.BigEndian.AppendUint32(b, c.id)
		b = appendExtents(b, extents, int64(r.length), most)
		length := len(b) - from - chunkSize
		if length == 4 {
			return drover.Errorf(drover.Internal, "the export describes nothing of %d bytes at %d in %s", r.length, r.offset, c.name)
		}
		binary.BigEndian.PutUint32(b[from+chunkSize-4:], uint32(length))
	}
	r.extra = b
	r.reply = append(r.parts[:0], b)
	return nil
}

// appendExtents adds the extents that lie within the first n bytes, neighbours of one kind as one, at most so many.
func appendExtents(b []byte, extents []Extent, n int64, most int) []byte {
	at := int64(0) // before the extent in hand
	for i, count := 0, 0; i < len(extents) && at < n && count < most; count++ {
		length := int64(0)
		flags := extents[i].Flags
		for ; i < len(extents) && extents[i].Flags == flags && extents[i].Length > 0; i++ {
			length = min(length+extents[i].Length, n-at)
		}
		if length == 0 {
			break // a Backend's mistake: the client asks again from here and gets the error
		}
		b = binary.BigEndian.AppendUint32(b, uint32(length))
		b = binary.BigEndian.AppendUint32(b, flags)
		at += length
	}
	return b
}
