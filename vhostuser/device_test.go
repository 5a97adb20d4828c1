package vhostuser

import (
	"bytes"
	"slices"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"drover"
	"drover/vhostuser/vhosttest"
)

func wantStatus(t *testing.T, got, want byte) {
	t.Helper()
	if got != want {
		t.Fatalf("status %d, want %d", got, want)
	}
}

func TestReadsAndWrites(t *testing.T) {
	for _, c := range []struct {
		name    string
		without uint64
		trying  bool
	}{
		{"at once", 0, true},
		{"by workers", 0, false},
		{"without event indexes", vhosttest.EventIdx, true},
		{"workers, without event indexes", vhosttest.EventIdx, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := vhosttest.NewFrontend(vhosttest.NewGuest(t, 16))
			f.Without = c.without
			r := newRig(t, f, newDisk(1<<20), nil)
			r.disk.change(func() { r.disk.trying = c.trying })
			r.Begin(0)
			for i := range 100 { // more than the ring has
				p := pattern(byte(i), 4096+512*(i%5))
				wantStatus(t, r.Write(int64(i)*4096, p), vhosttest.OK)
				got, status := r.Read(int64(i)*4096, len(p))
				wantStatus(t, status, vhosttest.OK)
				if !bytes.Equal(got, p) {
					t.Fatalf("request %d: read back something else", i)
				}
			}
			if base := r.End(); base != 200 {
				t.Errorf("the ring ended at %d, want 200", base)
			}
		})
	}
}

func TestOtherRequests(t *testing.T) {
	r := begin(t, 16)
	p := pattern(1, 8192)
	wantStatus(t, r.Write(0, p), vhosttest.OK)
	wantStatus(t, r.Slot(1, 0).Do(vhosttest.Flush, 0), vhosttest.OK)

	id := r.Slot(2, 20)
	wantStatus(t, id.Do(vhosttest.GetID, 0), vhosttest.OK)
	if string(id.Data()) != "vol_0123456789abcdef" {
		t.Errorf("serial %q", id.Data())
	}
	clearing := func(kind uint32, sector uint64, sectors, flags uint32) byte {
		s := r.Slot(3, 16)
		order.PutUint64(s.Data(), sector)
		order.PutUint32(s.Data()[8:], sectors)
		order.PutUint32(s.Data()[12:], flags)
		return s.Do(kind, 0)
	}
	wantStatus(t, clearing(vhosttest.Discard, 0, 8, 0), vhosttest.OK)
	if !bytes.Equal(r.disk.content(0, 4096), make([]byte, 4096)) || !bytes.Equal(r.disk.content(4096, 4096), p[4096:]) {
		t.Error("the discard did something else")
	}
	wantStatus(t, clearing(vhosttest.WriteZeroes, 8, 8, 1), vhosttest.OK)
	wantStatus(t, clearing(vhosttest.WriteZeroes, 16, 8, 0), vhosttest.OK)
	want := []string{"write 0", "flush 0", "discard 0", "zero 4096", "zero-keep 8192"}
	if got := r.disk.notes(); !slices.Equal(got, want) {
		t.Errorf("the disk did %q, want %q", got, want)
	}

	last := uint64(len(r.disk.data) / 512)
	wantStatus(t, clearing(vhosttest.Discard, 0, 8, 1), vhosttest.Unsupported)
	wantStatus(t, clearing(vhosttest.WriteZeroes, 0, 8, 2), vhosttest.Unsupported)
	wantStatus(t, clearing(vhosttest.Discard, last-4, 8, 0), vhosttest.IOErr)
	wantStatus(t, clearing(vhosttest.Discard, 0, 1<<22, 0), vhosttest.IOErr)
	wantStatus(t, r.Slot(3, 17).Do(vhosttest.Discard, 0), vhosttest.IOErr)
	wantStatus(t, r.Slot(4, 512).Do(99, 0), vhosttest.Unsupported)
	wantStatus(t, r.Slot(4, 512).Do(vhosttest.Out, last), vhosttest.IOErr)
	wantStatus(t, r.Slot(4, 1024).Do(vhosttest.In, last-1), vhosttest.IOErr)
	wantStatus(t, r.Slot(4, 512).Do(vhosttest.In, 1<<55), vhosttest.IOErr)
	wantStatus(t, r.Slot(4, 512).Do(vhosttest.In, ^uint64(0)), vhosttest.IOErr)
	wantStatus(t, r.Slot(4, 100).Do(vhosttest.In, 0), vhosttest.IOErr)
	wantStatus(t, r.Slot(4, 0).Do(vhosttest.Out, 0), vhosttest.IOErr)
	wantStatus(t, r.Write(0, p), vhosttest.OK) // the ring is well
}

// The header may be anywhere, in any number of pieces, together with the data or apart.
func TestAnyLayout(t *testing.T) {
	r := begin(t, 16)
	s := r.Slot(0, 1024)
	copy(s.Data(), pattern(3, 1024))
	s.Header(vhosttest.Out, 2)
	at := s.StatusAddr() - 16
	r.Add(vhosttest.Desc{Addr: at, Len: 3}, vhosttest.Desc{Addr: at + 3, Len: 13}, vhosttest.Desc{Addr: s.DataAddr(), Len: 500},
		vhosttest.Desc{Addr: s.DataAddr() + 500, Len: 524}, vhosttest.Desc{Addr: s.StatusAddr(), Len: 1, Flags: vhosttest.Write})
	r.Kick()
	r.Await()
	wantStatus(t, s.Status(), vhosttest.OK)
	if !bytes.Equal(r.disk.content(1024, 1024), pattern(3, 1024)) {
		t.Error("something else was written")
	}
	// Data over the seam of two memory regions, its status in the same descriptor, behind an indirect table.
	const table, data = 0x200000, vhosttest.RegionSize - 512
	s.Header(vhosttest.In, 2)
	vhosttest.PutDesc(r.Mem[table:], vhosttest.Desc{Addr: at, Len: 16, Flags: vhosttest.Next}, 2)
	vhosttest.PutDesc(r.Mem[table+32:], vhosttest.Desc{Addr: data, Len: 1025, Flags: vhosttest.Write}, 0)
	r.Add(vhosttest.Desc{Addr: table, Len: 48, Flags: vhosttest.Indirect})
	r.Kick()
	if _, n := r.Await(); n != 1025 {
		t.Errorf("%d bytes are said to be written", n)
	}
	if r.Mem[data+1024] != vhosttest.OK || !bytes.Equal(r.Mem[data:data+1024], pattern(3, 1024)) {
		t.Error("the read over the seam is wrong")
	}
}

// A request that waits holds up no other, and the frontend's stop waits for it.
func TestSlowRequestHoldsUpNoOther(t *testing.T) {
	r := begin(t, 16)
	release := r.disk.hold(8192)
	slow := r.Slot(1, 512)
	slow.Submit(vhosttest.In, 16)
	wantStatus(t, r.Write(0, pattern(1, 512)), vhosttest.OK)
	ended := make(chan uint16)
	go func() { ended <- r.End() }()
	select {
	case <-ended:
		t.Fatal("the ring stopped with a request under way")
	default:
	}
	release()
	if base := <-ended; base != 2 {
		t.Errorf("the ring ended at %d", base)
	}
	r.Await()
	wantStatus(t, slow.Status(), vhosttest.OK)
}

func TestReadOnly(t *testing.T) {
	r := newRig(t, vhosttest.NewFrontend(vhosttest.NewGuest(t, 16)), newDisk(1<<20), func(c *Config) { c.ReadOnly = true })
	r.Begin(0)
	if r.Features&featRO == 0 || r.Features&featDiscard != 0 {
		t.Errorf("features %#x", r.Features)
	}
	wantStatus(t, r.Write(0, make([]byte, 512)), vhosttest.IOErr)
	_, status := r.Read(0, 512)
	wantStatus(t, status, vhosttest.OK)
	if got := r.disk.notes(); !slices.Equal(got, []string{"read 0"}) {
		t.Errorf("the disk did %q", got)
	}
}

func TestErrorsAreStatus(t *testing.T) {
	r := begin(t, 16)
	r.disk.change(func() { r.disk.fail = drover.Errorf(drover.Exhausted, "full") })
	wantStatus(t, r.Write(0, make([]byte, 512)), vhosttest.IOErr)
	r.disk.change(func() { r.disk.fail = nil })
	wantStatus(t, r.Write(0, make([]byte, 512)), vhosttest.OK)
}

// A grown disk is told to the guest while it runs.
func TestResize(t *testing.T) {
	r := begin(t, 16)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	r.Set(vhosttest.SetBackendReqFD, nil, fds[1])
	if err := unix.Close(fds[1]); err != nil {
		t.Fatal(err)
	}
	r.disk.change(func() { r.disk.data = append(r.disk.data, make([]byte, 1<<20)...) })
	if err := r.dev.Resize(2 << 20); err != nil {
		t.Fatal(err)
	}
	var b [64]byte
	n, err := unix.Read(fds[0], b[:])
	if err != nil || n != headerSize || order.Uint32(b[:]) != backendConfigChange {
		t.Fatalf("told %x, %v", b[:n], err)
	}
	config := r.Ask(vhosttest.GetConfig, append(vhosttest.Pair(0, 60), 0, 0, 0, 0))
	if got := order.Uint64(config[12:]); got != 4096 {
		t.Errorf("%d sectors", got)
	}
	wantStatus(t, r.Write(1<<20, make([]byte, 512)), vhosttest.OK)
}

// Memory may be replaced while the ring runs and requests are under way.
func TestMemoryChangesUnderTheRing(t *testing.T) {
	r := begin(t, 16)
	release := r.disk.hold(0)
	slow := r.Slot(1, 512)
	slow.Submit(vhosttest.In, 0)
	r.Set(vhosttest.RemMemReg, append(make([]byte, 8), vhosttest.Region(vhosttest.RegionSize, vhosttest.RegionSize, vhosttest.UserBase1, vhosttest.RegionSize)...))
	if r.Tell(vhosttest.RemMemReg, append(make([]byte, 8), vhosttest.Region(0, vhosttest.RegionSize, vhosttest.UserBase0, 0)...)) {
		t.Error("the memory of a ring that runs was taken away")
	}
	wantStatus(t, r.Write(4096, pattern(1, 512)), vhosttest.OK)
	r.Set(vhosttest.AddMemReg, append(make([]byte, 8), vhosttest.Region(vhosttest.RegionSize, vhosttest.RegionSize, vhosttest.UserBase1, vhosttest.RegionSize)...), r.FD())
	if r.Tell(vhosttest.AddMemReg, append(make([]byte, 8), vhosttest.Region(100, 4096, 1, 0)...), r.FD()) {
		t.Error("a region over another was taken")
	}
	r.Set(vhosttest.SetMemTable, vhosttest.MemTable(), r.FD(), r.FD())
	release()
	r.Await()
	wantStatus(t, slow.Status(), vhosttest.OK)
	wantStatus(t, r.Write(4096, pattern(2, 512)), vhosttest.OK)
}

// The content is taken away: the guest sees no error, and the next device does what was under way.
func TestGoneIsNoError(t *testing.T) {
	f := vhosttest.NewFrontend(vhosttest.NewGuest(t, 16))
	gone := make(chan struct{})
	r := newRig(t, f, newDisk(1<<20), func(c *Config) { c.Gone = gone })
	r.Begin(0)
	release := r.disk.hold(0)
	s := r.Slot(1, 512)
	s.Submit(vhosttest.Out, 0)
	r.disk.change(func() { r.disk.fail = drover.Errorf(drover.Unavailable, "taken away") })
	close(gone)
	release()
	r.kill()
	wantStatus(t, s.Status(), vhosttest.Untouched)
	r.disk.change(func() { r.disk.fail = nil })
	r = r.next(nil)
	r.Begin(0)
	r.Await()
	wantStatus(t, s.Status(), vhosttest.OK)
}

func TestStartIsAskedOnce(t *testing.T) {
	var asked atomic.Int64
	r := newRig(t, vhosttest.NewFrontend(vhosttest.NewGuest(t, 16)), newDisk(1<<20), func(c *Config) { c.Start = func() error { asked.Add(1); return nil } })
	r.Begin(0)
	r.BeginRing(0, r.End())
	wantStatus(t, r.Write(0, make([]byte, 512)), vhosttest.OK)
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	no := newRig(t, vhosttest.NewFrontend(vhosttest.NewGuest(t, 16)), newDisk(1<<20), func(c *Config) {
		c.Start = func() error { return drover.Errorf(drover.Conflict, "a newer connection writes") }
	})
	no.Hello()
	no.Set(vhosttest.SetMemTable, vhosttest.MemTable(), no.FD(), no.FD())
	no.Set(vhosttest.SetVringNum, vhosttest.Pair(0, 16))
	no.Set(vhosttest.SetVringAddr, vhosttest.VringAddr(0, false))
	if no.Tell(vhosttest.SetVringKick, vhosttest.U64(0), no.KickFD()) {
		t.Error("a ring began against the owner's will")
	}
}
