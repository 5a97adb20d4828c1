package vhostuser

import (
	"slices"
	"testing"

	"drover/vhostuser/vhosttest"
)

// What was under way when the process ended is done again, in the order in which it was taken, and what was not taken after it.
func TestInFlightIsDoneAgainInOrder(t *testing.T) {
	r := begin(t, 16)
	for _, off := range []int64{0, 512, 1024, 1536} {
		defer r.disk.hold(off)()
	}
	r.disk.change(func() { r.disk.trying = false })
	var slots []*vhosttest.Slot
	for i := range 4 {
		slots = append(slots, r.Slot(i, 512))
		slots[i].Submit(vhosttest.Out, uint64(i))
	}
	done := r.Slot(4, 512)
	wantStatus(t, done.Do(vhosttest.Out, 100), vhosttest.OK) // all five were taken, this one completed
	slots = append(slots, r.Slot(5, 512))
	r.kill()
	slots[4].Submit(vhosttest.Out, 4) // nobody is there
	r.disk.change(func() { r.disk.log, r.disk.held, r.disk.trying = nil, map[int64]chan struct{}{}, true })

	r = r.next(nil)
	r.Begin(r.UsedIdx())
	for range 5 {
		r.Await()
	}
	for i, s := range slots {
		if s.Status() != vhosttest.OK {
			t.Errorf("request %d: status %d", i, s.Status())
		}
	}
	want := []string{"write 0", "write 512", "write 1024", "write 1536", "write 2048"}
	if got := r.disk.notes(); !slices.Equal(got, want) {
		t.Errorf("the disk did %q, want %q", got, want)
	}
	if r.InFlight() != 0 {
		t.Errorf("%d requests are not completed", r.InFlight())
	}
	wantStatus(t, r.Write(0, make([]byte, 512)), vhosttest.OK)
}

// The process ends at each step of a completion. The states that it leaves are made here; volume has the same with real kills.
func TestEndsAtEachStepOfACompletion(t *testing.T) {
	const head = 3 // any
	for _, c := range []struct {
		name  string
		after func(mem []byte, head, used uint16) // what is undone of a completion
		again bool
	}{
		{"all done", func([]byte, uint16, uint16) {}, false},
		{"before the index is recorded", func(mem []byte, head, used uint16) { order.PutUint16(mem[14:], used-1) }, false},
		{"before it is not in flight any more", func(mem []byte, head, used uint16) {
			order.PutUint16(mem[14:], used-1)
			mem[inflightHeader+inflightEntry*int(head)] = 1
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := begin(t, 16)
			for range head {
				wantStatus(t, r.Write(4096, make([]byte, 512)), vhosttest.OK)
			}
			s := r.Slot(1, 512)
			h := s.Submit(vhosttest.Out, 0)
			r.Await()
			mem := r.Inflight()
			r.kill()
			c.after(mem, h, r.UsedIdx())
			r.disk.change(func() { r.disk.log = nil })
			r = r.next(nil)
			r.Begin(r.UsedIdx())
			wantStatus(t, r.Write(8192, make([]byte, 512)), vhosttest.OK)
			if got, want := r.disk.notes(), []string{"write 8192"}; !slices.Equal(got, want) {
				t.Errorf("the disk did %q, want %q", got, want)
			}
		})
	}
	t.Run("before the used index moves", func(t *testing.T) {
		r := begin(t, 16)
		release := r.disk.hold(0)
		defer release()
		s := r.Slot(1, 512)
		h := s.Submit(vhosttest.Out, 0)
		wantStatus(t, r.Write(4096, make([]byte, 512)), vhosttest.OK)
		mem := r.Inflight()
		r.kill()
		order.PutUint16(mem[12:], h) // it was about to be put into the used ring
		r.disk.change(func() { r.disk.log, r.disk.held = nil, map[int64]chan struct{}{} })
		r = r.next(nil)
		r.Begin(r.UsedIdx())
		r.Await()
		wantStatus(t, s.Status(), vhosttest.OK)
		if got, want := r.disk.notes(), []string{"write 0"}; !slices.Equal(got, want) {
			t.Errorf("the disk did %q, want %q", got, want)
		}
	})
}

// A batch of several that another backend left is not done again either.
func TestRecoverFollowsABatch(t *testing.T) {
	a := &inflightArea{mem: make([]byte, 4096), queues: 2, ring: 16}
	a.format()
	f, err := a.queue(1, 16)
	if err != nil {
		t.Fatal(err)
	}
	for _, head := range []uint16{7, 2, 9, 4} {
		f.take(head)
	}
	order.PutUint16(f.entry(9)[6:], 2) // 2, then 9 were put; 9 is the last
	f.setTail(9, 65535)
	heads, err := f.recover(1)
	if err != nil || !slices.Equal(heads, []uint16{7, 4}) {
		t.Errorf("in flight: %v %v", heads, err)
	}
	if f.counter != 4 {
		t.Errorf("the next number is %d", f.counter)
	}
	if _, err := a.queue(2, 16); err == nil {
		t.Error("there is no third queue")
	}
	if _, err := a.queue(0, 32); err == nil {
		t.Error("the ring is too large")
	}
}
