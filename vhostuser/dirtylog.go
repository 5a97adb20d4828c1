package vhostuser

import (
	"sync/atomic"
	"unsafe"
)

// logPage is what one bit of the log stands for (VHOST_LOG_PAGE).
const logPage = 4096

// dirtyLog is the frontend's bitmap of pages of guest memory that were written, one bit each, by guest address.
type dirtyLog struct{ mem []byte }

// mark marks the pages of n bytes at a guest address. What lies beyond the log is no memory that the frontend migrates.
func (l *dirtyLog) mark(addr, n uint64) {
	if l == nil || n == 0 {
		return
	}
	pages := uint64(len(l.mem)) * 8
	for p := addr / logPage; p <= (addr+n-1)/logPage && p < pages; p++ {
		// The mapping begins at a page and ends with one, so the word that a byte lies in is all there.
		word := (*uint32)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(l.mem)), p/32*4))
		if bit := uint32(1) << (p % 32); atomic.LoadUint32(word)&bit == 0 {
			atomic.OrUint32(word, bit)
		}
	}
}
