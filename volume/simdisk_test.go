package volume

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"drover/internal/fault"
	"drover/nbd"
)

// errPower is what every operation gets after the power went out.
var errPower = errors.New("the power is out")

// simDisk is a disk that stops at its k-th operation, and then has lost any part of what was not synced.
type simDisk struct {
	mu    sync.Mutex
	left  int // operations until the power goes out; negative for never
	out   bool
	files []*simFile
}

// step counts one operation that changes something.
func (d *simDisk) step() error {
	if d.out {
		return errPower
	}
	if d.left == 0 {
		d.out = true
		return errPower
	}
	d.left--
	return nil
}

// simFile is a file of it. A sector that was written since the last sync may be found in any of its states after a crash.
type simFile struct {
	disk   *simDisk
	cache  []byte           // what programs see
	states map[int][][]byte // of each sector since the last sync, the synced one first
	data   []bool           // per block: not a hole, as programs see it
}

func (d *simDisk) newFile(size int64) *simFile {
	f := &simFile{disk: d, cache: make([]byte, size), states: map[int][][]byte{}, data: make([]bool, (size+blockSize-1)/blockSize)}
	d.files = append(d.files, f)
	return f
}

// grow makes the file longer. That is durable at once: a start that finds it longer than its record cuts it.
func (f *simFile) grow(size int64) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.cache = append(f.cache, make([]byte, max(0, size-int64(len(f.cache))))...)
	f.data = append(f.data, make([]bool, max(0, int(size/blockSize)-len(f.data)))...)
}

var _ file = (*simFile)(nil)

func (f *simFile) ReadAt(p []byte, off int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.out {
		return errPower
	}
	copy(p, f.cache[off:])
	return nil
}

func (f *simFile) WriteAt(p []byte, off int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.out {
		return errPower
	}
	err := f.disk.step()
	// The write at which the power goes out has begun: any part of it may have got to the disk.
	f.change(off, int64(len(p)), func(i int64) byte { return p[i] })
	f.mark(off, int64(len(p)), true)
	return err
}

func (f *simFile) change(off, n int64, at func(int64) byte) {
	for s := off / sectorSize; s*sectorSize < off+n; s++ {
		k := int(s)
		sector := f.cache[s*sectorSize : min((s+1)*sectorSize, int64(len(f.cache)))]
		if f.states[k] == nil {
			f.states[k] = [][]byte{append([]byte(nil), sector...)}
		}
		for i := range sector {
			if pos := s*sectorSize + int64(i); pos >= off && pos < off+n {
				sector[i] = at(pos - off)
			}
		}
		f.states[k] = append(f.states[k], append([]byte(nil), sector...))
	}
}

func (f *simFile) mark(off, n int64, data bool) {
	for b := off / blockSize; b*blockSize < off+n; b++ {
		if data || (b*blockSize >= off && (b+1)*blockSize <= off+n) {
			f.data[b] = data
		}
	}
}

func (f *simFile) PunchHole(off, n int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.step(); err != nil {
		return err
	}
	f.change(off, n, func(int64) byte { return 0 })
	f.mark(off, n, false)
	return nil
}

func (f *simFile) ZeroRange(off, n int64) error { return f.PunchHole(off, n) }

func (f *simFile) Datasync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.step(); err != nil {
		return err
	}
	f.states = map[int][][]byte{}
	return nil
}

func (f *simFile) NextData(off, end int64) (start, stop int64, err error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	for b := off / blockSize; b*blockSize < end; b++ {
		if !f.data[b] {
			continue
		}
		e := b
		for e*blockSize < end && f.data[e] {
			e++
		}
		return max(off, b*blockSize), min(end, e*blockSize), nil
	}
	return end, end, nil
}

// Fill loses what was not synced, as WriteAt does.
func (f *simFile) Fill(p []byte, off int64) error { return f.WriteAt(p, off) }

func (f *simFile) Writeback(int64, int64) {}

// Settle leaves it open what the disk would still have after a power cut.
func (f *simFile) Settle(int64, int64) error { return nil }
func (f *simFile) Close() error              { return nil }

// powerOn is the disk after a power cut: each sector that was not synced is in a state of its own choice.
func (d *simDisk) powerOn(r *rand.Rand) {
	for _, f := range d.files {
		for s := 0; s*sectorSize < len(f.cache); s++ { // in order, so that the seed tells all
			states := f.states[s]
			if states == nil {
				continue
			}
			state := states[r.IntN(len(states))]
			copy(f.cache[s*sectorSize:], state)
			if b := s * sectorSize / blockSize; !isZero(state) {
				f.data[b] = true
			}
		}
		f.states = map[int][][]byte{}
	}
	d.restart()
}

// restart is the disk after the process alone was killed.
func (d *simDisk) restart() { d.out, d.left = false, -1 }

// memParent is a parent in memory that counts what it is asked for.
type memParent struct {
	data    []byte
	own     *bitmap // nil: the parent has no base
	reads   atomic.Int64
	guests  atomic.Int64 // those of reads that a guest waits for
	bytes   atomic.Int64
	asked   atomic.Int64
	blocked atomic.Pointer[chan struct{}] // closed when the parent answers again
	why     atomic.Pointer[string]
	// beforeSums is called before checksums are told; with lies they are wrong.
	beforeSums func()
	lies       bool
}

var _ reader = (*memParent)(nil)

func (m *memParent) wait(ctx context.Context) error {
	ch := m.blocked.Load()
	if ch == nil {
		return nil
	}
	select {
	case <-*ch:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (m *memParent) read(ctx context.Context, who class, p []byte, off int64) error {
	if err := m.wait(ctx); err != nil {
		return err
	}
	m.reads.Add(1)
	if who == guestClass {
		m.guests.Add(1)
	}
	m.bytes.Add(int64(len(p)))
	copy(p, m.data[off:])
	return nil
}

func (m *memParent) extents(ctx context.Context, _ class, metaContext string, off, n int64) ([]nbd.Extent, error) {
	if err := m.wait(ctx); err != nil {
		return nil, err
	}
	m.asked.Add(1)
	if metaContext == nbd.ContextSum && m.beforeSums != nil {
		m.beforeSums()
	}
	var out extentList
	for b := off / blockSize; b*blockSize < off+n; b++ {
		var flags uint32
		switch {
		case metaContext == nbd.ContextPresent && (m.own == nil || m.own.get(b)):
			flags = nbd.FlagPresent
		case metaContext == nbd.ContextSum:
			if flags = sumOf(m.data[b*blockSize : (b+1)*blockSize]); m.lies {
				flags++
			}
		case metaContext == nbd.ContextAllocation && isZero(m.data[b*blockSize:(b+1)*blockSize]):
			flags = nbd.FlagHole | nbd.FlagZero
		}
		out.add(blockSize, flags)
	}
	return out, nil
}

func (m *memParent) trouble() string {
	if why := m.why.Load(); why != nil {
		return *why
	}
	return ""
}

// simLayer is a content over simulated files and a parent in memory.
type simLayer struct {
	*content
	disk   *simDisk
	data   *simFile
	table  *simFile
	parent *memParent
	base   *content
	live   *bitmap
}

const simIncarnation = "simulated"

// newSimLayer formats a layer of some blocks. The disk never fails while it does.
func newSimLayer(blocks int64, parent *memParent, base *content) *simLayer {
	d := &simDisk{left: -1}
	s := &simLayer{disk: d, parent: parent, base: base}
	s.data, s.table = d.newFile(blocks*blockSize), d.newFile(mapFileSize(blocks))
	if err := newMapFile(s.table, blocks).format(mapHeader{blocks: blocks, incarnation: simIncarnation}); err != nil {
		panic(err)
	}
	return s
}

// open opens the layer as a new process does. live is the live map of the process before, nil after a power cut.
func (s *simLayer) open(live *bitmap) error { return s.openOn(live, s.data) }

// openOn is open with another way to the data file.
func (s *simLayer) openOn(live *bitmap, data file) error {
	blocks := int64(len(s.data.cache)) / blockSize
	s.content = newContent("simulated", blocks*blockSize, data)
	s.content.faults = (*fault.Points)(nil)
	table := newMapFile(s.table, blocks)
	stored, err := table.load(simIncarnation)
	if err != nil {
		return err
	}
	if live == nil {
		live = newBitmap(blocks)
	}
	adopt(live, stored, table)
	s.live = live
	o := &overlay{present: live, table: table, release: func() {}}
	if s.base != nil {
		if err := s.setUnder(s.base); err != nil {
			return err
		}
	}
	s.setOverlay(o)
	if err := s.sanitize(o); err != nil {
		return err
	}
	if s.parent != nil {
		src := newSource(s.parent, s.size, s.base != nil, 30*time.Second, newBudget())
		src.ahead.stop() // a crash at the k-th operation wants the same operations each time
		o.src.Store(src)
	}
	return nil
}
