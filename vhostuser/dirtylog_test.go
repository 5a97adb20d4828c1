package vhostuser

import (
	"testing"

	"golang.org/x/sys/unix"

	"drover/vhostuser/vhosttest"
)

// Whatever is written to guest memory is marked: data of reads, statuses, the used ring. Nothing else is.
func TestDirtyPagesAreMarked(t *testing.T) {
	r := begin(t, 16)
	release := r.disk.hold(65536)
	before := r.Slot(40, 8192) // under way when logging begins
	before.Submit(vhosttest.In, 128)

	fd, log, err := newShared("log", vhosttest.MemorySize/logPage/8)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(log)
	r.Set(vhosttest.SetLogBase, append(vhosttest.U64(uint64(len(log))), vhosttest.U64(0)...), fd)
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
	r.Set(vhosttest.SetFeatures, vhosttest.U64(r.Features|vhosttest.LogAll))
	r.Set(vhosttest.SetVringAddr, vhosttest.VringAddr(0, true))

	marked := func() map[uint64]bool {
		m := map[uint64]bool{}
		for i, b := range log {
			for bit := range 8 {
				if b&(1<<bit) != 0 {
					m[uint64(i*8+bit)] = true
				}
			}
			log[i] = 0
		}
		return m
	}
	check := func(what string, want map[uint64]bool) {
		t.Helper()
		got := marked()
		for p := range want {
			if !got[p] {
				t.Errorf("%s: page %#x is not marked", what, p)
			}
		}
		for p := range got {
			if !want[p] {
				t.Errorf("%s: page %#x is marked", what, p)
			}
		}
	}
	pages := func(ranges ...uint64) map[uint64]bool {
		m := map[uint64]bool{}
		for ; len(ranges) > 0; ranges = ranges[2:] {
			for a := ranges[0] / logPage; a <= (ranges[0]+ranges[1]-1)/logPage; a++ {
				m[a] = true
			}
		}
		return m
	}
	const used = 0xa000
	marked()
	s := r.Slot(1, 9000/512*512)
	wantStatus(t, s.Do(vhosttest.In, 0), vhosttest.OK)
	check("a read", pages(used, 4, s.StatusAddr(), 1, s.DataAddr(), uint64(len(s.Data()))))
	wantStatus(t, s.Do(vhosttest.Out, 0), vhosttest.OK)
	check("a write", pages(used, 4, s.StatusAddr(), 1))
	wantStatus(t, s.Do(vhosttest.In, 1<<40), vhosttest.IOErr)
	check("a read that fails", pages(used, 4, s.StatusAddr(), 1))
	release()
	r.Await()
	wantStatus(t, before.Status(), vhosttest.OK)
	check("a read from before", pages(used, 4, before.StatusAddr(), 1, before.DataAddr(), 8192))

	r.Set(vhosttest.SetFeatures, vhosttest.U64(r.Features))
	r.Set(vhosttest.SetVringAddr, vhosttest.VringAddr(0, false))
	wantStatus(t, s.Do(vhosttest.In, 0), vhosttest.OK)
	marked() // the page of the last completion that was logged is marked once more after the guest has seen that
	wantStatus(t, s.Do(vhosttest.In, 0), vhosttest.OK)
	check("after logging", nil)
}

// A log that is too short loses marks, but nothing is written beyond it.
func TestShortLog(t *testing.T) {
	l := &dirtyLog{mem: make([]byte, 8)}
	l.mark(0, 1<<40)
	l.mark(1<<63, 1<<20)
	for i, b := range l.mem {
		if b != 0xff {
			t.Errorf("byte %d is %#x", i, b)
		}
	}
	var none *dirtyLog
	none.mark(0, 1)
}
