package volume

import (
	"math/bits"
	"sync/atomic"
)

// bitmap is a fixed number of bits that are read and set from many goroutines without a lock. Bits of
// blocks that are present are never cleared. The words may lie in memory that is shared with a file.
type bitmap struct {
	words []uint64
	n     int64
}

func wordsFor(n int64) int64 { return (n + 63) / 64 }

func newBitmap(n int64) *bitmap { return &bitmap{words: make([]uint64, wordsFor(n)), n: n} }

func (b *bitmap) get(i int64) bool {
	return atomic.LoadUint64(&b.words[i>>6])&(1<<uint(i&63)) != 0
}

// mask returns the bits of word w that lie in [first, end).
func mask(w, first, end int64) uint64 {
	m := ^uint64(0)
	if lo := first - w*64; lo > 0 {
		m <<= uint(lo)
	}
	if hi := w*64 + 64 - end; hi > 0 {
		m &= ^uint64(0) >> uint(hi)
	}
	return m
}

// set sets the bits [first, end).
func (b *bitmap) set(first, end int64) {
	for w := first >> 6; w*64 < end; w++ {
		m := mask(w, first, end)
		if atomic.LoadUint64(&b.words[w])&m != m {
			atomic.OrUint64(&b.words[w], m)
		}
	}
}

// clear clears the bits [first, end).
func (b *bitmap) clear(first, end int64) {
	for w := first >> 6; w*64 < end; w++ {
		m := mask(w, first, end)
		if atomic.LoadUint64(&b.words[w])&m != 0 {
			atomic.AndUint64(&b.words[w], ^m)
		}
	}
}

// take clears bit i and reports whether it was set.
func (b *bitmap) take(i int64) bool {
	bit := uint64(1) << uint(i&63)
	return atomic.LoadUint64(&b.words[i>>6])&bit != 0 && atomic.AndUint64(&b.words[i>>6], ^bit)&bit != 0
}

// all reports whether every bit of [first, end) is set.
func (b *bitmap) all(first, end int64) bool { return b.next(first, end, false) == end }

// none reports whether no bit of [first, end) is set.
func (b *bitmap) none(first, end int64) bool { return b.next(first, end, true) == end }

// next returns the first bit of [first, end) that is set (or clear), end if there is none.
func (b *bitmap) next(first, end int64, set bool) int64 {
	for w := first >> 6; w*64 < end; w++ {
		v := atomic.LoadUint64(&b.words[w])
		if !set {
			v = ^v
		}
		if v &= mask(w, first, end); v != 0 {
			return w*64 + int64(bits.TrailingZeros64(v))
		}
	}
	return max(first, end)
}

// count returns how many bits of [first, end) are set.
func (b *bitmap) count(first, end int64) int64 {
	var n int64
	for w := first >> 6; w*64 < end; w++ {
		n += int64(bits.OnesCount64(atomic.LoadUint64(&b.words[w]) & mask(w, first, end)))
	}
	return n
}

func loadWord(b *bitmap, w int64) uint64 { return atomic.LoadUint64(&b.words[w]) }
