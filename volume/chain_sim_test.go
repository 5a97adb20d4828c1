package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/time/rate"
)

// simPart is what the disk has of one content of a chain.
type simPart struct {
	data, table *simFile // table is nil for a complete one
	blocks      int64
	incarnation string
	live        *bitmap // what outlives the process
}

// simChain is a chain of contents on a simulated disk: all but the last are frozen. Which parts there are is what the records say;
// writing a record is one operation of the disk.
type simChain struct {
	disk  *simDisk
	r     *rand.Rand
	parts []*simPart
	open  []*content
	made  int
	// hist and acks are what a crash of the host, or of the process, may leave; exact has the content of each frozen part that was
	// flushed, nil for one that was not.
	hist, acks *history
	exact      [][]byte
}

func newSimChain(r *rand.Rand) *simChain {
	s := &simChain{disk: &simDisk{left: -1}, r: r}
	view := make([]byte, simBlocks*blockSize)
	s.parts = []*simPart{{data: s.disk.newFile(int64(len(view))), blocks: simBlocks}}
	s.hist, s.acks = newHistory(view), newHistory(view)
	s.reopen()
	return s
}

func (s *simChain) top() *content { return s.open[len(s.open)-1] }

// reopen opens the contents as a new process does.
func (s *simChain) reopen() {
	s.open = nil
	var under *content
	for _, p := range s.parts {
		under = s.openPart(p, under)
		if o := under.over.Load(); o != nil {
			if err := under.sanitize(o); err != nil {
				panic(err)
			}
		}
		s.open = append(s.open, under)
	}
}

func (s *simChain) openPart(p *simPart, under *content) *content {
	c := newContent("simulated", p.blocks*blockSize, p.data)
	if under != nil {
		if err := c.setUnder(under); err != nil {
			panic(err)
		}
	}
	if p.table == nil {
		return c
	}
	table := newMapFile(p.table, p.blocks)
	stored, err := table.load(p.incarnation)
	if err != nil {
		panic(err)
	}
	if p.live == nil {
		p.live = newBitmap(p.blocks)
	}
	adopt(p.live, stored, table)
	c.setOverlay(&overlay{present: p.live, table: table, release: func() {}})
	return c
}

// newPart formats a part. data is nil for a new file.
func (s *simChain) newPart(data *simFile, blocks int64, present *bitmap) (*simPart, error) {
	s.made++
	p := &simPart{data: data, blocks: blocks, incarnation: fmt.Sprint("part", s.made)}
	if data == nil {
		p.data = s.disk.newFile(blocks * blockSize)
	}
	if present == nil {
		return p, nil
	}
	p.table = s.disk.newFile(mapFileSize(blocks))
	return p, newMapFile(p.table, blocks).formatWith(mapHeader{blocks: blocks, incarnation: p.incarnation}, present)
}

// commit is the writing of a record. When the power goes out at it, nobody knows whether the disk has it.
func (s *simChain) commit(parts []*simPart, exact [][]byte) error {
	s.disk.mu.Lock()
	err := s.disk.step()
	s.disk.mu.Unlock()
	if err == nil || s.r.IntN(2) == 0 {
		s.parts, s.exact = parts, exact
	}
	return err
}

// view is the newest content.
func (s *simChain) view() []byte {
	var out []byte
	for _, b := range s.acks.states {
		out = append(out, b[len(b)-1]...)
	}
	return out
}

// guest does one random thing on the last part.
func (s *simChain) guest() error {
	ctx, r := context.Background(), s.r
	blocks := s.top().size / blockSize
	off := r.Int64N(blocks*8) * sectorSize
	n := min(int64(1+r.IntN(24))*sectorSize, blocks*blockSize-off)
	if r.IntN(2) == 0 {
		off = off / blockSize * blockSize
		n = min((n+blockSize-1)/blockSize*blockSize, blocks*blockSize-off)
	}
	p := bytes.Repeat([]byte{byte(1 + r.IntN(255))}, int(n))
	var err error
	switch r.IntN(6) {
	case 0, 1, 2:
		s.hist.write(off, p)
		s.acks.write(off, p)
		err = s.top().WriteAt(ctx, p, off, false)
	case 3:
		s.hist.write(off, make([]byte, n))
		s.acks.write(off, make([]byte, n))
		err = s.top().Discard(ctx, off, n, false)
	case 4:
		got := make([]byte, n)
		if err = s.top().ReadAt(ctx, got, off); err == nil && !bytes.Equal(got, s.view()[off:off+n]) {
			err = errors.New("a read got something else")
		}
	default:
		if err = s.top().Flush(ctx); err == nil {
			s.hist.flushed()
		}
	}
	if err == nil {
		s.acks.flushed()
	}
	return err
}

// split is pool.split in the order of what it does to the disk.
func (s *simChain) split() error {
	top := s.top()
	p, err := s.newPart(nil, top.size/blockSize, newBitmap(top.size/blockSize))
	if err != nil {
		return err
	}
	moment := s.view()
	if err := s.commit(append(slices.Clone(s.parts), p), append(slices.Clone(s.exact), nil)); err != nil {
		return err
	}
	s.open = append(s.open, s.openPart(p, top))
	for range s.r.IntN(4) {
		if err := s.guest(); err != nil {
			return err
		}
	}
	if s.r.IntN(2) == 0 {
		return nil // the process that asked was killed before the frozen layer was flushed
	}
	if err := top.Flush(context.Background()); err != nil {
		return err
	}
	s.exact[len(s.exact)-1] = moment
	return nil
}

// takeIn merges a part with the one below, with the engine's copier; the guest goes on meanwhile.
func (s *simChain) takeIn() error {
	if len(s.parts) < 2 {
		return nil
	}
	i := s.r.IntN(len(s.parts) - 1)
	upper, lower := s.open[i+1], s.parts[i]
	s.exact[i] = nil // absorbed: it is no snapshot any more
	o := upper.over.Load()
	var present *bitmap
	if l := s.open[i].over.Load(); l != nil {
		present = newBitmap(o.present.n)
		copy(present.words, l.present.words)
	}
	lower.data.grow(upper.size)
	next, err := s.newPart(lower.data, upper.size/blockSize, present)
	if err != nil {
		return err
	}
	t := &takeIn{ctx: context.Background(), limit: rate.NewLimiter(rate.Inf, 0), from: upper, into: s.openPart(next, s.open[i].under.Load())}
	t.watch(o)
	for range s.r.IntN(3) {
		if err := errors.Join(t.copyChanged(true), s.guest()); err != nil {
			return err
		}
	}
	if err := errors.Join(t.copyChanged(false), t.into.Flush(t.ctx)); err != nil {
		return err
	}
	// The frozen part that goes is the lower one. The upper one keeps its content, if it is frozen.
	if err := s.commit(slices.Replace(slices.Clone(s.parts), i, i+2, next), slices.Delete(slices.Clone(s.exact), i, i+1)); err != nil {
		return err
	}
	s.open = slices.Replace(slices.Clone(s.open), i, i+2, t.into)
	if i+1 < len(s.open) {
		return s.open[i+1].setUnder(t.into)
	}
	return nil
}

// grow makes the last part larger.
func (s *simChain) grow() error {
	if s.parts[len(s.parts)-1].blocks >= 2*simBlocks {
		return nil
	}
	last, top := s.parts[len(s.parts)-1], s.top()
	blocks := last.blocks + 2
	var present *bitmap
	if o := top.over.Load(); o != nil {
		present = newBitmap(blocks)
		copy(present.words, o.present.words)
	}
	last.data.grow(blocks * blockSize)
	next, err := s.newPart(last.data, blocks, present)
	if err != nil {
		return err
	}
	g := &growth{from: top, into: s.openPart(next, top.under.Load())}
	if err := s.guest(); err != nil { // the guest goes on until the valve closes
		return err
	}
	g.carry()
	if err := g.into.Flush(context.Background()); err != nil {
		return err
	}
	if err := s.commit(slices.Replace(slices.Clone(s.parts), len(s.parts)-1, len(s.parts), next), s.exact); err != nil {
		return err
	}
	s.hist.flushed()
	s.open[len(s.open)-1] = g.into
	more := newHistory(make([]byte, 2*blockSize))
	s.hist.states = append(s.hist.states, more.states...)
	more = newHistory(make([]byte, 2*blockSize))
	s.acks.states = append(s.acks.states, more.states...)
	return nil
}

// check reads everything: the last part must hold what the history allows, a frozen one exactly its moment.
func (s *simChain) check(allowed *history) error {
	view := make([]byte, s.top().size)
	if err := s.top().ReadAt(context.Background(), view, 0); err != nil {
		return err
	}
	for len(allowed.states) < len(view)/blockSize { // it grew at the moment of the crash
		allowed.states = append(allowed.states, newHistory(make([]byte, blockSize)).states...)
	}
	if err := allowed.allows(view); err != nil {
		return err
	}
	for i, want := range s.exact {
		if want == nil {
			continue
		}
		got := make([]byte, len(want))
		if err := s.open[i].ReadAt(context.Background(), got, 0); err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("frozen part %d of %d holds something else than its moment", i, len(s.open))
		}
	}
	return nil
}

// crashChainAt lives until the disk's k-th operation, and reports whether it came so far.
func crashChainAt(t *testing.T, seed uint64, k int, host bool) (reached bool) {
	t.Helper()
	s := newSimChain(rand.New(rand.NewPCG(seed, 11)))
	s.disk.left = k
	for i := 0; i < 40 && !s.disk.out; i++ {
		var err error
		switch s.r.IntN(12) {
		case 0:
			if len(s.parts) < 5 {
				err = s.split()
			}
		case 1, 2:
			err = s.takeIn()
		case 3:
			err = s.grow()
		default:
			err = s.guest()
		}
		if err != nil && !s.disk.out {
			t.Fatalf("seed %d, crash at %d, step %d: %v", seed, k, i, err)
		}
	}
	if !s.disk.out {
		return false
	}
	allowed := s.acks
	if host {
		s.disk.powerOn(rand.New(rand.NewPCG(seed, uint64(k))))
		allowed = s.hist
		for _, p := range s.parts {
			p.live = nil
		}
	}
	s.disk.restart()
	s.reopen()
	if err := s.check(allowed); err != nil {
		t.Fatalf("seed %d, crash at %d: %v", seed, k, err)
	}
	return true
}

// A chain that is split, taken in and made larger on a disk that loses and reorders what was not synced: wherever it is cut, what was
// flushed is there, and a frozen layer has its moment.
func TestChainsOnADiskThatLosesWrites(t *testing.T) {
	for _, host := range []bool{true, false} {
		for seed := range uint64(4) {
			for k := 0; crashChainAt(t, seed, k, host); k++ {
			}
		}
	}
}
