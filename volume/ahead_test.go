package volume

import (
	"bytes"
	"context"
	"errors"
	"testing"
)

// wanted lists what would be fetched, in order, and takes it.
func (a *ahead) wanted() (blocks []int64) {
	for {
		a.fetching++
		first, end, _ := a.piece()
		if first == end {
			return blocks
		}
		for b := first; b < end; b++ {
			blocks = append(blocks, b)
		}
	}
}

func TestReadAheadFollowsTheGuest(t *testing.T) {
	var a ahead
	plan := func(first, end int64, missed bool) (from, to int64) {
		a.planLocked(first, end, missed)
		w := a.wanted()
		if len(w) == 0 {
			return 0, 0
		}
		return w[0], w[len(w)-1] + 1
	}
	for _, step := range []struct {
		first, end int64
		missed     bool
		from, to   int64
	}{
		{100, 101, false, 0, 0},        // a read that did not wait says nothing
		{100, 101, true, 101, 105},     // what lies behind one that did
		{101, 102, false, 0, 0},        // far enough ahead
		{102, 104, false, 105, 112},    // half of it is used up: twice as far
		{5000, 5001, true, 5001, 5005}, // somewhere else
		{104, 110, false, 112, 126},    // both are known
		{5001, 5020, true, 5020, 5028}, // faster than what is fetched
		{9000, 9001, false, 0, 0},
	} {
		from, to := plan(step.first, step.end, step.missed)
		if from != step.from || to != step.to {
			t.Errorf("after a read of [%d, %d): fetches [%d, %d), want [%d, %d)", step.first, step.end, from, to, step.from, step.to)
		}
	}
	// Of more sequences than are kept the oldest is given up with what is left of it.
	for i := range int64(aheadStreams + 1) {
		a.planLocked(20000*(i+1), 20000*(i+1)+1, true)
	}
	w := a.wanted()
	if len(w) != aheadStreams*aheadMin || w[0] != 20000*(aheadStreams+1)+1 {
		t.Errorf("%d blocks are to be fetched, first %d", len(w), w[0])
	}
	a.planLocked(200001, 200002, true)
	a.planLocked(200002, 200200, false)
	for b := int64(200200); b < 204000; b += 100 {
		a.planLocked(b, b+100, false)
	}
	if w := a.wanted(); len(w) > aheadMost+100 {
		t.Errorf("%d blocks are fetched ahead", len(w))
	}
}

// withAhead lets a simulated layer read ahead.
func withAhead(s *simLayer) *simLayer {
	a := &s.over.Load().src.Load().ahead
	a.stopped = false
	a.init()
	return s
}

// A guest that reads absent blocks in sequence soon finds them there; nothing is fetched twice, and nothing when it is not allowed.
func TestSequentialReaderFindsBlocksThere(t *testing.T) {
	const blocks = 4096
	var all []int64
	for b := range int64(blocks) {
		all = append(all, b)
	}
	s := withAhead(simOver(t, blocks, all...))
	present := s.over.Load().present
	got := make([]byte, blockSize)
	for b := range int64(1024) {
		if b > 0 { // it comes without being asked for
			eventually(t, func() error {
				if !present.get(b) {
					return errors.New("the block is not there")
				}
				return nil
			})
		}
		noErr(t, s.ReadAt(t.Context(), got, b*blockSize))
		if !bytes.Equal(got, s.parent.data[b*blockSize:(b+1)*blockSize]) {
			t.Fatalf("block %d is something else", b)
		}
	}
	s.stopAhead()
	if n := s.parent.guests.Load(); n != 1 {
		t.Errorf("the guest waited for %d requests of its own", n)
	}
	if n := s.parent.bytes.Load(); n > (1024+2*aheadMost)*blockSize || n != present.count(0, blocks)*blockSize {
		t.Errorf("%d bytes were fetched, %d blocks are there", n, present.count(0, blocks))
	}

	s = withAhead(simOver(t, blocks, all...))
	none := newLimit(1).may
	s.over.Load().src.Load().ahead.may.Store(&none)
	noErr(t, s.ReadAt(t.Context(), got, 0))
	noErr(t, s.ReadForOthers(context.Background(), got, 100*blockSize)) // another host's reads are no guest's
	s.stopAhead()
	if n := s.parent.bytes.Load(); n != 2*blockSize {
		t.Errorf("%d bytes were fetched where only a read is allowed", n)
	}
}
