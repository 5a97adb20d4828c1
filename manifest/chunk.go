package manifest

import (
	"bytes"
	"slices"

	"github.com/klauspost/compress/zstd"

	"drover"
)

// How a chunk is stored: its first byte.
const (
	storedPlain = 0
	storedZstd  = 1
)

// MaxChunkEncoded bounds an encoded chunk.
const MaxChunkEncoded = ChunkSize + 1

// Codec packs and unpacks chunks. Safe for concurrent use.
type Codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

// NewCodec returns a codec for so many concurrent users.
func NewCodec(users int) (*Codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(users),
		zstd.WithWindowSize(ChunkSize), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot prepare zstd: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(users), zstd.WithDecoderMaxMemory(ChunkSize),
		zstd.WithDecoderMaxWindow(ChunkSize), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot prepare zstd: %w", err)
	}
	return &Codec{enc, dec}, nil
}

// Encode appends the chunk's stored form to buf. With try it is packed if that makes it an eighth smaller at least. What is encrypted
// gets smaller by what was never written only; without try that alone decides whether packing is worth the work.
func (c *Codec) Encode(buf, chunk []byte, try bool) []byte {
	if try || sparse(chunk) {
		packed := c.enc.EncodeAll(chunk, append(buf, storedZstd))
		if len(packed)-len(buf) <= len(chunk)/8*7 {
			return packed
		}
	}
	return append(append(buf, storedPlain), chunk...)
}

// sparse reports whether an eighth of the chunk's blocks at least hold zeroes.
func sparse(chunk []byte) bool {
	var zeroes [4096]byte
	n := 0
	for b := range slices.Chunk(chunk, len(zeroes)) {
		if bytes.Equal(b, zeroes[:len(b)]) {
			n += len(b)
		}
	}
	return n >= len(chunk)/8
}

// Decode unpacks a stored chunk into p, which has ChunkSize bytes, and checks its hash. Internal when it is damaged.
func (c *Codec) Decode(p, stored []byte, want Hash) error {
	if len(p) != ChunkSize {
		return drover.Errorf(drover.Internal, "a buffer of %d bytes is not for a chunk", len(p))
	}
	if len(stored) == 0 || len(stored) > MaxChunkEncoded {
		return drover.Errorf(drover.Internal, "chunk %s is damaged: it is stored in %d bytes", want, len(stored))
	}
	out := stored[1:]
	switch stored[0] {
	case storedPlain:
	case storedZstd:
		var err error
		if out, err = c.dec.DecodeAll(out, p[:0:ChunkSize]); err != nil {
			return drover.Errorf(drover.Internal, "chunk %s is damaged: %w", want, err)
		}
	default:
		return drover.Errorf(drover.Internal, "chunk %s is stored in an unknown way (%d)", want, stored[0])
	}
	if len(out) != ChunkSize {
		return drover.Errorf(drover.Internal, "chunk %s is damaged: it has %d bytes", want, len(out))
	}
	if got := Sum(out); got != want {
		return drover.Errorf(drover.Internal, "chunk %s is damaged: what is stored has the SHA-256 %s", want, got)
	}
	copy(p, out) // onto itself where zstd unpacked into p
	return nil
}
