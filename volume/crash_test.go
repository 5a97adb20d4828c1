package volume

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"drover"
)

const simBlocks = 10

// history is what a layer may hold after a crash: of each block the content at the last flush, and all that was written since.
type history struct{ states [][][]byte }

func newHistory(view []byte) *history {
	h := &history{}
	for ; len(view) > 0; view = view[blockSize:] {
		h.states = append(h.states, [][]byte{bytes.Clone(view[:blockSize])})
	}
	return h
}

// write adds a state to the blocks of a range.
func (h *history) write(off int64, p []byte) {
	for len(p) > 0 {
		b, at := off/blockSize, off%blockSize
		last := h.states[b][len(h.states[b])-1]
		state := bytes.Clone(last)
		n := copy(state[at:], p)
		h.states[b] = append(h.states[b], state)
		p, off = p[n:], off+int64(n)
	}
}

// flushed says that the newest state is durable.
func (h *history) flushed() {
	for b, s := range h.states {
		h.states[b] = s[len(s)-1:]
	}
}

// allows checks each sector: it must be one of the block's states, whole.
func (h *history) allows(view []byte) error {
	for s := range len(view) / sectorSize {
		b, at := s*sectorSize/blockSize, s*sectorSize%blockSize
		found := false
		for _, state := range h.states[b] {
			found = found || bytes.Equal(state[at:at+sectorSize], view[s*sectorSize:(s+1)*sectorSize])
		}
		if !found {
			return fmt.Errorf("sector %d of block %d (starts with %x) is in none of the block's %d possible states (the first starts with %x)",
				at/sectorSize, b, view[s*sectorSize:s*sectorSize+4], len(h.states[b]), h.states[b][0][at:at+4])
		}
	}
	return nil
}

// simWorld is a layer with what it must hold.
type simWorld struct {
	*simLayer
	hist *history
	acks *history // every acknowledged write at once: what a crash of the process alone leaves
}

// newSimWorld makes a layer over a parent (some blocks data, some empty) and, if based, over a base.
func newSimWorld(r *rand.Rand, based bool) *simWorld {
	parent := &memParent{data: make([]byte, simBlocks*blockSize)}
	var base *content
	view := make([]byte, simBlocks*blockSize)
	if based {
		parent.own = newBitmap(simBlocks)
		f := (&simDisk{left: -1}).newFile(simBlocks * blockSize)
		for b := range int64(simBlocks) {
			if r.IntN(3) > 0 {
				if err := f.WriteAt(bytes.Repeat([]byte{0xb0 | byte(b%16)}, blockSize), b*blockSize); err != nil {
					panic(err)
				}
			}
		}
		copy(view, f.cache)
		copy(parent.data, f.cache) // a parent serves its composed view
		base = newContent("base", simBlocks*blockSize, f)
	}
	for b := range int64(simBlocks) {
		kind := r.IntN(3) // not at the parent, data, empty there
		if kind == 0 {
			continue
		}
		if based {
			parent.own.set(b, b+1)
		}
		for i := b * blockSize; i < (b+1)*blockSize; i++ {
			view[i] = byte(kind%2) * (0x50 | byte(b%16))
			parent.data[i] = view[i]
		}
	}
	return &simWorld{simLayer: newSimLayer(simBlocks, parent, base), hist: newHistory(view), acks: newHistory(view)}
}

// act does one random thing and records what it may change, before, and what it did, after.
func (w *simWorld) act(r *rand.Rand) error {
	ctx := context.Background()
	off := int64(r.IntN(simBlocks*8)) * sectorSize
	n := min(int64(1+r.IntN(24))*sectorSize, simBlocks*blockSize-off)
	if r.IntN(2) == 0 { // whole blocks, as file systems write
		off = off / blockSize * blockSize
		n = min((n+blockSize-1)/blockSize*blockSize, simBlocks*blockSize-off)
	}
	p := bytes.Repeat([]byte{byte(1 + r.IntN(255))}, int(n))
	switch r.IntN(9) {
	case 0, 1, 2:
		w.hist.write(off, p)
		w.acks.write(off, p)
		if err := w.WriteAt(ctx, p, off, false); err != nil {
			return err
		}
	case 3:
		w.hist.write(off, make([]byte, n))
		w.acks.write(off, make([]byte, n))
		if err := w.Discard(ctx, off, n, false); err != nil {
			return err
		}
	case 4:
		w.hist.write(off, make([]byte, n))
		w.acks.write(off, make([]byte, n))
		if err := w.WriteAt(ctx, make([]byte, n), off, false); err != nil {
			return err
		}
	case 5, 6:
		if err := w.ReadAt(ctx, make([]byte, n), off); err != nil { // copies on read
			return err
		}
	default:
		if err := w.Flush(ctx); err != nil {
			return err
		}
		w.hist.flushed()
	}
	w.acks.flushed() // the action has ended, so nothing but its result may be seen after a crash of the process
	return nil
}

// crashAt runs a workload until the disk's k-th operation, and reports whether it came so far.
func crashAt(t *testing.T, seed uint64, k int, based, host bool) (reached bool) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	w := newSimWorld(r, based)
	noErr(t, w.open(nil))
	w.disk.left = k
	for i := 0; i < 30 && !w.disk.out; i++ {
		if err := w.act(r); err != nil && !w.disk.out {
			t.Fatalf("seed %d, crash at %d: %v", seed, k, err)
		}
	}
	if !w.disk.out {
		return false
	}
	live, allowed := w.live, w.acks
	if host {
		w.disk.powerOn(rand.New(rand.NewPCG(seed, uint64(k))))
		live, allowed = nil, w.hist
	} else {
		w.disk.restart()
	}
	if err := w.open(live); err != nil {
		t.Fatalf("seed %d, crash at %d: cannot open: %v", seed, k, err)
	}
	view := make([]byte, simBlocks*blockSize)
	noErr(t, w.ReadAt(t.Context(), view, 0))
	if err := allowed.allows(view); err != nil {
		t.Fatalf("seed %d, crash at %d: %v", seed, k, err)
	}
	// What the crash left in the file must not come to light later: the guest goes on, with zeroes above all.
	for range 8 {
		off := int64(r.IntN(simBlocks*8-16)) * sectorSize
		p := make([]byte, (1+r.IntN(16))*sectorSize)
		if r.IntN(3) == 0 {
			p[0] = 7
		}
		if r.IntN(2) == 0 {
			off, p = off/blockSize*blockSize, make([]byte, blockSize)
		}
		noErr(t, w.WriteAt(t.Context(), p, off, false))
		copy(view[off:], p)
	}
	now := make([]byte, len(view))
	noErr(t, w.ReadAt(t.Context(), now, 0))
	if !bytes.Equal(view, now) {
		t.Fatalf("seed %d, crash at %d: a write after the crash reads as something else", seed, k)
	}
	w.over.Load().guest.last.Store(0) // nobody is at work: no need to be polite
	// What was read once must stay, through hydration and another power cut.
	noErr(t, w.hydrate(t.Context(), newLimit(0), func() error { return nil }))
	w.disk.powerOn(rand.New(rand.NewPCG(seed, uint64(k)+1)))
	noErr(t, w.open(nil))
	w.content.over.Load().src.Store(nil)
	again := make([]byte, len(view))
	noErr(t, w.ReadAt(t.Context(), again, 0))
	if !bytes.Equal(view, again) {
		t.Fatalf("seed %d, crash at %d: hydration changed the content", seed, k)
	}
	return true
}

func walkCrashes(t *testing.T, host bool) {
	for _, based := range []bool{false, true} {
		for seed := range uint64(5) {
			for k := 0; crashAt(t, seed, k, based, host); k++ {
			}
		}
	}
}

// A crash of the host between data and map must not turn an absent block into zeroes, nor lose what was flushed.
func TestHostCrashLosesNothingThatWasFlushed(t *testing.T) { walkCrashes(t, true) }

// A crash of the process alone loses nothing that was acknowledged, flushed or not.
func TestProcessCrashLosesNothingThatWasAcknowledged(t *testing.T) { walkCrashes(t, false) }

// The map on disk never says "present" of a block whose data is not durable.
func TestMapIsStoredAfterTheData(t *testing.T) {
	for k := range 40 {
		r := rand.New(rand.NewPCG(7, uint64(k)))
		w := newSimWorld(r, false)
		noErr(t, w.open(nil))
		w.disk.left = k
		for w.disk.left != 0 && !w.disk.out {
			if err := w.act(r); err != nil {
				break
			}
			stored, err := newMapFile(w.table, simBlocks).load(simIncarnation)
			if err != nil {
				break
			}
			for b := range int64(simBlocks) {
				if !stored.get(b) {
					continue
				}
				for s := b * 8; s < b*8+8; s++ {
					if states := w.data.states[int(s)]; states != nil && !w.hist.durableBefore(b, states[0], int(s-b*8)) {
						t.Fatalf("block %d is present on disk, sector %d of it is not durable", b, s-b*8)
					}
				}
			}
		}
	}
}

// durableBefore reports whether a synced state of a sector belongs to the block's history.
func (h *history) durableBefore(block int64, state []byte, sector int) bool {
	for _, s := range h.states[block] {
		if bytes.Equal(s[sector*sectorSize:(sector+1)*sectorSize], state) {
			return true
		}
	}
	return false
}

// After a sync that failed nothing is reported as durable, and the live map does not count.
func TestFailedSyncIsNeverForgotten(t *testing.T) {
	w := newSimWorld(rand.New(rand.NewPCG(1, 1)), false)
	noErr(t, w.open(nil))
	spoiled := 0
	w.over.Load().spoil = func() { spoiled++ }
	noErr(t, w.WriteAt(t.Context(), pattern(1, blockSize), 0, false))
	w.disk.left = 0
	wantCode(t, w.Flush(t.Context()), drover.Internal)
	w.disk.restart() // the kernel reports an error once; the next sync succeeds
	wantCode(t, w.Flush(t.Context()), drover.Internal)
	wantCode(t, w.WriteAt(t.Context(), pattern(1, blockSize), 0, false), drover.Internal)
	wantCode(t, w.Discard(t.Context(), 0, blockSize, false), drover.Internal)
	noErr(t, w.ReadAt(t.Context(), make([]byte, blockSize), 0))
	if spoiled != 1 {
		t.Errorf("the live map was spoiled %d times", spoiled)
	}
}
