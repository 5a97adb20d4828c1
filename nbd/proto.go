package nbd

import (
	"encoding/binary"
	"fmt"
)

// The numbers of the NBD protocol (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md, section "Values"). Everything
// on the wire is big-endian.

const (
	magicInit        uint64 = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption      uint64 = 0x49484156454f5054 // "IHAVEOPT"
	magicOptionReply uint64 = 0x0003e889045565a9
	magicRequest     uint32 = 0x25609513
	magicSimple      uint32 = 0x67446698
	magicStructured  uint32 = 0x668e33ef
)

// Lengths of fixed frames.
const (
	greetingSize     = 18 // magicInit, magicOption, handshake flags
	optionSize       = 16 // magicOption, option, length
	optionReplySize  = 20 // magicOptionReply, option, reply, length
	requestSize      = 28 // magicRequest, flags, command, cookie, offset, length
	simpleReplySize  = 16 // magicSimple, errno, cookie
	chunkSize        = 20 // magicStructured, flags, kind, cookie, length
	dataChunkSize    = chunkSize + 8
	holeChunkSize    = chunkSize + 12
	errorChunkSize   = chunkSize + 6
	packedHeadSize   = 12 // offset and length of the plain data before what is compressed
	statusExtentSize = 8
)

// Handshake flags; the client answers with the same bits.
const (
	handshakeFixedNewstyle uint16 = 1 << 0
	handshakeNoZeroes      uint16 = 1 << 1
)

// Transmission flags: what the export can do.
const (
	flagHasFlags        uint16 = 1 << 0
	flagReadOnly        uint16 = 1 << 1
	flagSendFlush       uint16 = 1 << 2
	flagSendFUA         uint16 = 1 << 3
	flagSendTrim        uint16 = 1 << 5
	flagSendWriteZeroes uint16 = 1 << 6
	flagSendDF          uint16 = 1 << 7
	flagCanMultiConn    uint16 = 1 << 8
)

// option is what a client asks for before the transmission phase.
type option uint32

const (
	optExportName      option = 1
	optAbort           option = 2
	optList            option = 3
	optStartTLS        option = 5
	optInfo            option = 6
	optGo              option = 7
	optStructuredReply option = 8
	optListMetaContext option = 9
	optSetMetaContext  option = 10
)

// String names the option as the protocol does.
func (o option) String() string {
	switch o {
	case optExportName:
		return "NBD_OPT_EXPORT_NAME"
	case optAbort:
		return "NBD_OPT_ABORT"
	case optList:
		return "NBD_OPT_LIST"
	case optStartTLS:
		return "NBD_OPT_STARTTLS"
	case optInfo:
		return "NBD_OPT_INFO"
	case optGo:
		return "NBD_OPT_GO"
	case optStructuredReply:
		return "NBD_OPT_STRUCTURED_REPLY"
	case optListMetaContext:
		return "NBD_OPT_LIST_META_CONTEXT"
	case optSetMetaContext:
		return "NBD_OPT_SET_META_CONTEXT"
	}
	return fmt.Sprintf("option %d", uint32(o))
}

// optionReply is what a server answers to an option. Those with the highest bit set are errors.
type optionReply uint32

const (
	repAck         optionReply = 1
	repServer      optionReply = 2
	repInfo        optionReply = 3
	repMetaContext optionReply = 4

	repError       optionReply = 1 << 31
	repErrUnsup                = repError + 1
	repErrPolicy               = repError + 2
	repErrInvalid              = repError + 3
	repErrPlatform             = repError + 4
	repErrTLSReqd              = repError + 5
	repErrUnknown              = repError + 6
	repErrShutdown             = repError + 7
	repErrTooBig               = repError + 9
)

// Kinds of information in a reply to NBD_OPT_GO and NBD_OPT_INFO.
const (
	infoExport    uint16 = 0
	infoName      uint16 = 1
	infoBlockSize uint16 = 3
)

// command is what a request asks for.
type command uint16

const (
	cmdRead        command = 0
	cmdWrite       command = 1
	cmdDisc        command = 2
	cmdFlush       command = 3
	cmdTrim        command = 4
	cmdWriteZeroes command = 6
	cmdBlockStatus command = 7
)

// String names the command for log and error texts.
func (c command) String() string {
	switch c {
	case cmdRead:
		return "read"
	case cmdWrite:
		return "write"
	case cmdDisc:
		return "disconnect"
	case cmdFlush:
		return "flush"
	case cmdTrim:
		return "trim"
	case cmdWriteZeroes:
		return "write zeroes"
	case cmdBlockStatus:
		return "block status"
	}
	return fmt.Sprintf("command %d", uint16(c))
}

// Command flags.
const (
	cmdFlagFUA    uint16 = 1 << 0
	cmdFlagNoHole uint16 = 1 << 1
	cmdFlagDF     uint16 = 1 << 2
	cmdFlagReqOne uint16 = 1 << 3
)

// chunkKind tells what a structured reply chunk holds. Those with the highest bit set are errors.
type chunkKind uint16

const (
	chunkNone        chunkKind = 0
	chunkData        chunkKind = 1
	chunkHole        chunkKind = 2
	chunkStatus      chunkKind = 5
	chunkZstd        chunkKind = 0x4452 // Drover's own, see doc.go
	chunkError       chunkKind = 1<<15 + 1
	chunkErrorOffset chunkKind = 1<<15 + 2
	chunkErrorBit    chunkKind = 1 << 15
)

// chunkDone marks the last chunk of a reply.
const chunkDone uint16 = 1 << 0

// Block sizes that the server announces, and the limit of data in one request that both sides keep.
const (
	minBlock       uint32 = 1
	preferredBlock uint32 = 4096
	maxBlock       uint32 = 32 << 20
)

// maxString is the protocol's limit of any name or message (section "Values").
const maxString = 4096

// requestHeader is a request without its payload (section "Request message").
type requestHeader struct {
	flags  uint16
	kind   command
	cookie uint64
	offset uint64
	length uint32
}

// parseRequest reads a header of requestSize bytes. It reports false when the magic number is wrong.
func parseRequest(b []byte) (requestHeader, bool) {
	h := requestHeader{
		flags:  binary.BigEndian.Uint16(b[4:]),
		kind:   command(binary.BigEndian.Uint16(b[6:])),
		cookie: binary.BigEndian.Uint64(b[8:]),
		offset: binary.BigEndian.Uint64(b[16:]),
		length: binary.BigEndian.Uint32(b[24:]),
	}
	return h, binary.BigEndian.Uint32(b) == magicRequest
}

// append adds the header's wire form to b.
func (h requestHeader) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, magicRequest)
	b = binary.BigEndian.AppendUint16(b, h.flags)
	b = binary.BigEndian.AppendUint16(b, uint16(h.kind))
	b = binary.BigEndian.AppendUint64(b, h.cookie)
	b = binary.BigEndian.AppendUint64(b, h.offset)
	return binary.BigEndian.AppendUint32(b, h.length)
}

// appendSimple adds a simple reply to b (section "Simple reply message").
func appendSimple(b []byte, e errno, cookie uint64) []byte {
	b = binary.BigEndian.AppendUint32(b, magicSimple)
	b = binary.BigEndian.AppendUint32(b, uint32(e))
	return binary.BigEndian.AppendUint64(b, cookie)
}

// appendChunk adds the header of a structured reply chunk to b (section "Structured reply chunk message").
func appendChunk(b []byte, flags uint16, kind chunkKind, cookie uint64, length uint32) []byte {
	b = binary.BigEndian.AppendUint32(b, magicStructured)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, uint16(kind))
	b = binary.BigEndian.AppendUint64(b, cookie)
	return binary.BigEndian.AppendUint32(b, length)
}

// appendOption adds an option and its data to b.
func appendOption(b []byte, o option, data []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, magicOption)
	b = binary.BigEndian.AppendUint32(b, uint32(o))
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// appendOptionReply adds a reply to an option and its data to b.
func appendOptionReply(b []byte, o option, rep optionReply, data []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, magicOptionReply)
	b = binary.BigEndian.AppendUint32(b, uint32(o))
	b = binary.BigEndian.AppendUint32(b, uint32(rep))
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// appendString adds a string with its length before it to b.
func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

// cutString takes a string with its length before it off the front of b. It reports false when b is too short
// for it or the string is longer than the protocol allows.
func cutString(b []byte) (s string, rest []byte, ok bool) {
	n, b, ok := cutUint32(b)
	if !ok || n > maxString || int(n) > len(b) {
		return "", nil, false
	}
	return string(b[:n]), b[n:], true
}

// cutUint32 takes a number off the front of b.
func cutUint32(b []byte) (n uint32, rest []byte, ok bool) {
	if len(b) < 4 {
		return 0, nil, false
	}
	return binary.BigEndian.Uint32(b), b[4:], true
}
