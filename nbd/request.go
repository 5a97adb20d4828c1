package nbd

import (
	"encoding/binary"
	"fmt"
)

// maxMessage bounds the error text in a reply.
const maxMessage = 512

// request is one request from its arrival until its reply has been written. Requests are used again.
type request struct {
	requestHeader
	data *buffer // READ and WRITE only
	// packed has the compressed data of a READ's reply.
	packed *buffer

	// reply is what is to be written: parts of head, data and extra, in order.
	reply [][]byte
	head  [64]byte
	extra []byte
	parts [4][]byte
	// cost is what the request counts for in the connection's bound of buffered bytes.
	cost int
}

// payload is the data of a READ or WRITE.
func (r *request) payload() []byte { return r.data.b[:r.length] }

// off is the offset as the Backend takes it. It is inside the export, so it fits.
func (r *request) off() int64 { return int64(r.offset) }

func (r *request) fua() bool { return r.flags&cmdFlagFUA != 0 }

// succeed makes a reply without data.
func (r *request) succeed() {
	r.reply = append(r.parts[:0], appendSimple(r.head[:0], errnoNone, r.cookie))
}

// succeedWithData makes the reply of a READ from its whole payload.
func (r *request) succeedWithData(structured bool) {
	head := r.head[:0]
	if structured {
		head = appendChunk(head, chunkDone, chunkData, r.cookie, r.length+8)
		head = binary.BigEndian.AppendUint64(head, r.offset)
	} else {
		head = appendSimple(head, errnoNone, r.cookie)
	}
	r.reply = append(r.parts[:0], head, r.payload())
}

// fail makes an error reply. Structured ones carry the text.
func (r *request) fail(structured bool, e errno, text string) {
	if !structured {
		r.reply = append(r.parts[:0], appendSimple(r.head[:0], e, r.cookie))
		return
	}
	text = cutText(text, maxMessage)
	b := appendChunk(r.extra[:0], chunkDone, chunkError, r.cookie, uint32(errorChunkSize-chunkSize+len(text)))
	b = binary.BigEndian.AppendUint32(b, uint32(e))
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	r.extra = append(b, text...)
	r.reply = append(r.parts[:0], r.extra)
}

// refusal is what the protocol says to a request that must not reach the Backend.
type refusal struct {
	errno errno
	text  string
}

// rules is what requests on a connection are checked against.
type rules struct {
	size     uint64
	readOnly bool
	// status: NBD_CMD_BLOCK_STATUS has a context to answer for.
	status bool
}

// check finds what is wrong with a request (section "Request types"). The zero refusal means nothing.
func (k rules) check(h requestHeader) refusal {
	var flags uint16
	writes := false
	switch h.kind {
	case cmdRead:
		flags = cmdFlagDF
	case cmdWrite, cmdTrim:
		writes = true
	case cmdWriteZeroes:
		flags, writes = cmdFlagNoHole, true
	case cmdBlockStatus:
		flags = cmdFlagReqOne
		if !k.status {
			return refusal{errnoInval, "no metadata context was negotiated"}
		}
	case cmdFlush:
		if h.offset != 0 || h.length != 0 || k.readOnly || h.flags&^cmdFlagFUA != 0 {
			return refusal{errnoInval, "a flush has no range and no flags, and is not offered for a read-only export"}
		}
		return refusal{}
	default:
		return refusal{errnoInval, fmt.Sprintf("%s is not offered", h.kind)}
	}
	switch past := h.offset > k.size || uint64(h.length) > k.size-h.offset; {
	case writes && k.readOnly:
		return refusal{errnoPerm, "the export is read-only"}
	case h.flags&^(flags|cmdFlagFUA) != 0: // the protocol allows FUA everywhere
		return refusal{errnoInval, fmt.Sprintf("the flags %#x do not belong to a %s", h.flags, h.kind)}
	case h.length == 0:
		return refusal{errnoInval, fmt.Sprintf("a %s of 0 bytes", h.kind)}
	case (h.kind == cmdRead || h.kind == cmdWrite) && h.length > maxBlock:
		return refusal{errnoInval, fmt.Sprintf("a %s of %d bytes; %d are allowed at once", h.kind, h.length, maxBlock)}
	case past && (h.kind == cmdWrite || h.kind == cmdWriteZeroes):
		return refusal{errnoNoSpace, fmt.Sprintf("a %s of %d bytes at %d; the export ends at %d", h.kind, h.length, h.offset, k.size)}
	case past:
		return refusal{errnoInval, fmt.Sprintf("a %s of %d bytes at %d; the export ends at %d", h.kind, h.length, h.offset, k.size)}
	}
	return refusal{}
}
