package volume

import (
	"errors"
	"fmt"
	"hash/crc32"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// sumsName begins the name of the file of checksums in a layer's directory.
	sumsName = "sums"
	// sumsMagic begins it: a header as that of a map, then one little-endian uint32 per block.
	sumsMagic = "DROVRSUM"
	// sumsSegment is for how many blocks the file takes space at a time: 64 KiB for 64 MiB of data.
	sumsSegment = 16 << 10
	// A stripe is the lock of every sumStripes-th group of sumGroup blocks.
	sumGroup   = 16
	sumStripes = 256
	// noRoomFor is how long no space is looked for after there was none.
	noRoomFor = 10 * time.Second
)

// unknownSum stands for "not known". A block whose CRC-32C it is gets the next number instead.
const unknownSum = 0

// sumOf is the checksum of one block.
func sumOf(block []byte) uint32 { return knownSum(crc32.Checksum(block, crcTable)) }

// knownSum makes a sum of a CRC-32C.
func knownSum(crc uint32) uint32 {
	if crc == unknownSum {
		return unknownSum + 1
	}
	return crc
}

// sums has the checksum of every block of a data file, as far as it is known, beside the file itself: a file that is mapped into memory,
// so that it outlives the process. A block's sum is made unknown before the block is changed and stored after it was, both
// under the lock of the block's stripe, so that a sum that is known is that of what the file holds, also for the next process.
//
// Not so for the next boot: of data and sums any part may have got to the disk. So before the first change the header is made to name
// this boot, durably. A file that names another boot is of no use any more. seal takes the boot out again when everything is durable.
//
// What cannot be stored for want of space stays unknown. All methods may be called from many goroutines at once.
type sums struct {
	store sumStore
	head  mapHeader // as it is when sealed
	boot  string

	// filling is held for reading while an absent block is filled, which needs no stripe.
	filling sync.RWMutex
	stripes [sumStripes]sync.Mutex

	// opened: the header on disk names this boot.
	opened atomic.Bool
	openMu sync.Mutex
	// gone: the file failed, and is not used any more.
	gone atomic.Bool

	space  *space // nil: nothing is kept free
	roomMu sync.Mutex
	room   *bitmap // segments that have their space
	noRoom atomic.Int64
	// unknown: there may be blocks with data whose sum is not known.
	unknown atomic.Bool
}

// sumStore is where sums are kept. Tests put a simulated disk in its place.
type sumStore interface {
	// words is the memory that has the sums.
	words() []uint32
	// reserve takes the space for the words [first, end).
	reserve(first, end int64) error
	// writeHead stores the header durably, after what was stored before it.
	writeHead(h mapHeader) error
	// remove makes the file gone, durably.
	remove() error
	close() error
}

// newSums makes sums of a store. opened says that its header names this boot.
func newSums(store sumStore, blocks int64, incarnation, boot string, opened bool) *sums {
	s := &sums{store: store, head: mapHeader{blocks: blocks, incarnation: incarnation}, boot: boot}
	s.room = newBitmap((blocks + sumsSegment - 1) / sumsSegment)
	s.opened.Store(opened)
	s.unknown.Store(true)
	return s
}

// lock takes the stripes of the blocks [first, end), in the order of their numbers.
func (s *sums) lock(first, end int64) {
	stripesOf(first, end, func(i int64) { s.stripes[i].Lock() })
}

func (s *sums) unlock(first, end int64) {
	stripesOf(first, end, func(i int64) { s.stripes[i].Unlock() })
}

func stripesOf(first, end int64, do func(i int64)) {
	low, high := first/sumGroup, (end-1)/sumGroup
	if high-low >= sumStripes-1 {
		low, high = 0, sumStripes-1
	}
	low, high = low%sumStripes, high%sumStripes
	if low > high {
		for i := range high + 1 {
			do(i)
		}
		high = sumStripes - 1
	}
	for i := low; i <= high; i++ {
		do(i)
	}
}

// write does what writes p at the offset, and keeps the sums right. p must not change meanwhile.
func (s *sums) write(p []byte, off int64, do func() error) error {
	if s == nil {
		return do()
	}
	first, end := blocksOf(off, int64(len(p)))
	s.lock(first, end) // also when the file is gone: others rely on it that nobody writes
	defer s.unlock(first, end)
	return s.writeLocked(p, off, do)
}

// writeLocked is write for those who hold the stripes of the blocks.
func (s *sums) writeLocked(p []byte, off int64, do func() error) error {
	if s.gone.Load() {
		return do()
	}
	first, end := blocksOf(off, int64(len(p)))
	if err := s.begin(first, end); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	s.keep(p, off)
	return nil
}

// change does what changes n bytes at the offset in a way that the sums cannot follow: they become unknown.
func (s *sums) change(off, n int64, do func() error) error {
	if s == nil || n == 0 {
		return do()
	}
	first, end := blocksOf(off, n)
	s.lock(first, end)
	defer s.unlock(first, end)
	if s.gone.Load() {
		return do()
	}
	if err := s.begin(first, end); err != nil {
		return err
	}
	s.unknown.Store(true)
	return do()
}

// fill is write for whole blocks that nobody reads or writes yet, because they are absent.
func (s *sums) fill(p []byte, off int64, do func() error) error {
	if s == nil || s.gone.Load() {
		return do()
	}
	s.filling.RLock()
	defer s.filling.RUnlock()
	first, end := blocksOf(off, int64(len(p)))
	if err := s.begin(first, end); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	s.keep(p, off)
	return nil
}

// begin makes the sums of blocks unknown that are about to be changed. An error means that they could be wrong for ever.
func (s *sums) begin(first, end int64) error {
	if !s.opened.Load() {
		if err := s.open(); err != nil {
			return s.giveUp(err)
		}
	}
	return s.guard(func(words []uint32) {
		end = min(end, int64(len(words)))
		for b := first; b < end; b++ {
			if atomic.LoadUint32(&words[b]) != unknownSum {
				atomic.StoreUint32(&words[b], unknownSum)
			}
		}
	})
}

// open makes the header name this boot.
func (s *sums) open() error {
	s.openMu.Lock()
	defer s.openMu.Unlock()
	if s.opened.Load() {
		return nil
	}
	h := s.head
	h.boot = s.boot
	if err := s.store.writeHead(h); err != nil {
		return err
	}
	s.opened.Store(true)
	return nil
}

// keep stores the sums of the whole blocks of what was written.
func (s *sums) keep(p []byte, off int64) {
	if head := -off & (blockSize - 1); head != 0 || len(p)%blockSize != 0 {
		s.unknown.Store(true)
		p, off = p[min(head, int64(len(p))):], off+head
	}
	first, n := off/blockSize, int64(len(p)/blockSize)
	if n == 0 || !s.hasRoom(first, first+n) {
		return
	}
	// A fault leaves sums unknown, and the next change finds the file gone.
	_ = s.guard(func(words []uint32) {
		for b := range min(n, int64(len(words))-first) {
			atomic.StoreUint32(&words[first+b], sumOf(p[b*blockSize:(b+1)*blockSize]))
		}
	})
}

// put stores the sum of one block that was computed under its lock. A file that is sealed is left alone.
func (s *sums) put(block int64, sum uint32) {
	if s.gone.Load() || !s.opened.Load() || !s.hasRoom(block, block+1) {
		return
	}
	_ = s.guard(func(words []uint32) { // a fault leaves it unknown
		if block < int64(len(words)) {
			atomic.StoreUint32(&words[block], sum)
		}
	})
}

// get returns the sum of a block, unknownSum if it is not known.
func (s *sums) get(block int64) (sum uint32) {
	if s == nil || s.gone.Load() {
		return unknownSum
	}
	err := s.guard(func(words []uint32) {
		if block < int64(len(words)) {
			sum = atomic.LoadUint32(&words[block])
		}
	})
	if err != nil {
		return unknownSum
	}
	return sum
}

// known is get for len(dst) blocks from first on.
func (s *sums) known(first int64, dst []uint32) {
	clear(dst)
	if s.gone.Load() {
		return
	}
	err := s.guard(func(words []uint32) {
		for i := range min(int64(len(dst)), max(0, int64(len(words))-first)) {
			dst[i] = atomic.LoadUint32(&words[first+i])
		}
	})
	if err != nil {
		clear(dst)
	}
}

// hasRoom takes the space for the sums of [first, end) if it is not taken yet. A page of a mapped file that has no space
// would kill the process.
func (s *sums) hasRoom(first, end int64) bool {
	low, high := first/sumsSegment, (end-1)/sumsSegment+1
	if high > s.room.n {
		s.unknown.Store(true)
		return false
	}
	if s.room.all(low, high) {
		return true
	}
	if time.Now().UnixNano() < s.noRoom.Load() {
		s.unknown.Store(true)
		return false
	}
	s.roomMu.Lock()
	defer s.roomMu.Unlock()
	for i := s.room.next(low, high, false); i < high; i = s.room.next(i, high, false) {
		if !s.space.take(sumsSegment * 4) {
			s.unknown.Store(true)
			return false
		}
		if err := s.store.reserve(i*sumsSegment, min((i+1)*sumsSegment, s.head.blocks)); err != nil {
			s.noRoom.Store(time.Now().Add(noRoomFor).UnixNano())
			s.unknown.Store(true)
			return false
		}
		s.room.set(i, i+1)
	}
	return true
}

// errSumsFault is a page of the file that cannot be had.
var errSumsFault = errors.New("the file of checksums cannot be read or written")

// guard runs what touches the mapped memory. A page that the disk cannot give is a fault, which must not end the process: sums are a
// help, and the disks of all guests hang on it.
func (s *sums) guard(do func(words []uint32)) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil {
			if _, ok := fault.(interface{ Addr() uintptr }); !ok {
				panic(fault)
			}
			err = s.giveUp(errSumsFault)
		}
	}()
	do(s.store.words())
	return nil
}

// giveUp ends the use of the file, and removes it so that nobody uses it later. The error is nil when that is certain.
func (s *sums) giveUp(cause error) error {
	if s == nil {
		return nil
	}
	s.openMu.Lock()
	defer s.openMu.Unlock()
	if s.gone.Load() {
		return nil
	}
	if err := s.store.remove(); err != nil {
		return fmt.Errorf("cannot remove the checksums, which are wrong from now on: %w", errors.Join(cause, err))
	}
	s.gone.Store(true)
	return nil
}

// seal makes what is known count for ever. The data must be durable, and nobody may be writing; who fills blocks is waited for.
func (s *sums) seal() error {
	if s == nil || s.gone.Load() || !s.opened.Load() {
		return nil
	}
	s.filling.Lock()
	defer s.filling.Unlock()
	s.lock(0, sumStripes*sumGroup)
	defer s.unlock(0, sumStripes*sumGroup)
	if s.gone.Load() {
		return nil
	}
	if err := s.store.writeHead(s.head); err != nil {
		return s.giveUp(err)
	}
	s.opened.Store(false)
	return nil
}

// retire ends the use of the file by these sums, because others keep it from now on: two would not exclude each other. It reports whether they
// were in use, and returns when nobody is within them.
func (s *sums) retire() (was bool) {
	if s == nil {
		return false
	}
	s.filling.Lock()
	defer s.filling.Unlock()
	s.lock(0, sumStripes*sumGroup)
	defer s.unlock(0, sumStripes*sumGroup)
	return !s.gone.Swap(true)
}

// revive takes retire back. Whoever had the file meanwhile has closed it.
func (s *sums) revive() {
	s.opened.Store(false)
	s.gone.Store(false)
}

// follow makes these sums the ones that keep the file, in place of others that have it, too.
func (s *sums) follow(before *sums) {
	before.retire()
	if s != nil {
		s.opened.Store(false) // the header may have been sealed since it was read
	}
}

func (s *sums) close() error {
	if s == nil {
		return nil
	}
	s.filling.Lock()
	s.lock(0, sumStripes*sumGroup)
	s.gone.Store(true) // for those who look for unknown sums just now
	s.unlock(0, sumStripes*sumGroup)
	s.filling.Unlock()
	return s.store.close()
}
