package nbd

import (
	"math/bits"
	"sync"
)

// Buffers come in classes, each twice as large as the one before it.
const (
	smallestBuffer = 4 << 10
	bufferClasses  = 14 // 4 KiB to 32 MiB = maxBlock
)

// buffer is the data of one request. It is handed back to its pool when the reply has been written.
type buffer struct {
	b     []byte
	class int
}

// bufferPool keeps buffers between requests, so that a busy connection allocates nothing. Lengths are powers of two, which the Go
// allocator aligns to 4 KiB: a Backend may read into them with O_DIRECT.
type bufferPool struct {
	classes [bufferClasses]sync.Pool
}

// get returns a buffer of at least n bytes, n being at most maxBlock. Its content is whatever was there.
func (p *bufferPool) get(n int) *buffer {
	class := 0
	if n > smallestBuffer {
		class = bits.Len(uint((n - 1) / smallestBuffer))
	}
	if b, ok := p.classes[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{b: make([]byte, smallestBuffer<<class), class: class}
}

// put takes a buffer back.
func (p *bufferPool) put(b *buffer) {
	p.classes[b.class].Put(b)
}
