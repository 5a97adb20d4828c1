package volume

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"

	"drover"
	"drover/internal/fault"
	"drover/vhostuser"
	"drover/vhostuser/vhosttest"
)

// vhost connects a guest of its own to a layer that is open.
func (h *testHost) vhost(a drover.Attachment) *vhosttest.Frontend {
	h.tb.Helper()
	f := vhosttest.NewFrontend(vhosttest.NewGuest(h.tb, 64))
	noErr(h.tb, f.Accept(a.VhostSocket))
	f.Begin(0)
	return f
}

func guestWrites(tb testing.TB, f *vhosttest.Frontend, off int64, p []byte) {
	tb.Helper()
	if status := f.Write(off, p); status != vhosttest.OK {
		tb.Fatalf("a write at %d ended with status %d", off, status)
	}
}

func guestReads(tb testing.TB, f *vhosttest.Frontend, off int64, want []byte) {
	tb.Helper()
	if got, status := f.Read(off, len(want)); status != vhosttest.OK || !bytes.Equal(got, want) {
		tb.Fatalf("a read at %d ended with status %d, right content: %v", off, status, bytes.Equal(got, want))
	}
}

func TestVhostServesAnOpenLayer(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	h.create("vol_0123456789abcdef", 4*drover.MiB)
	a := must[drover.Attachment](t)(h.Open(t.Context(), "vol_0123456789abcdef", 1))
	f := h.vhost(a)
	guestWrites(t, f, 0, pattern(1, 300000/512*512))
	guestWrites(t, f, mib+512, pattern(2, 1024))
	guestReads(t, f, 0, pattern(1, 300000/512*512))
	guestReads(t, f, mib, append(make([]byte, 512), pattern(2, 1024)...))
	if status := f.Slot(0, 0).Do(vhosttest.Flush, 0); status != vhosttest.OK {
		t.Errorf("flush: status %d", status)
	}
	id := f.Slot(0, 20)
	if id.Do(vhosttest.GetID, 0); string(id.Data()) != "vol_0123456789abcdef" {
		t.Errorf("serial %q", id.Data())
	}
	got := make([]byte, 1024)
	noErr(t, h.dial("vol_0123456789abcdef").ReadAt(t.Context(), got, mib+512))
	if !bytes.Equal(got, pattern(2, 1024)) {
		t.Error("NBD shows something else")
	}

	// A daemon that is restarted looks at the same place, and the guest goes on.
	h.halt()
	f.Detach()
	h.start()
	noErr(t, f.Accept(a.VhostSocket))
	f.Begin(f.UsedIdx())
	guestReads(t, f, 0, pattern(1, 300000/512*512))
}

// When the right to write is taken away, nothing of the ring moves any more when the call has returned.
func TestVhostIsCutBeforeTheCallReturns(t *testing.T) {
	ctx := t.Context()
	for name, cut := range map[string]func(h *testHost) error{
		"freeze":      func(h *testHost) error { _, err := h.Freeze(ctx, "vol_a"); return err },
		"close":       func(h *testHost) error { return h.Close(ctx, "vol_a") },
		"fence":       func(h *testHost) error { return h.Fence(ctx, "vol_a", 2) },
		"open higher": func(h *testHost) error { _, err := h.Open(ctx, "vol_a", 2); return err },
		"daemon ends": func(h *testHost) error { h.halt(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, newCA(t), "h1")
			h.create("vol_a", 4*drover.MiB)
			a := must[drover.Attachment](t)(h.Open(ctx, "vol_a", 1))
			f := h.vhost(a)
			guestWrites(t, f, 0, pattern(1, 4096))
			noErr(t, cut(h))
			used := f.UsedIdx()
			f.Slot(1, 4096).Submit(vhosttest.Out, 0)
			if _, _, err := f.Receive(0); err == nil {
				t.Error("the connection is still there")
			}
			f.Detach()
			if f.UsedIdx() != used || f.Slot(1, 4096).Status() != vhosttest.Untouched {
				t.Error("the ring went on")
			}
			if !f.Refused(a.VhostSocket) {
				t.Error("the guest is served again")
			}
			if _, err := os.Stat(a.VhostSocket); os.IsNotExist(err) == (name == "daemon ends") {
				t.Errorf("the guest's socket, which only the end of a daemon leaves where it is: %v", err)
			}
		})
	}
}

// A VM that hangs up while the daemon is at its requests: those that are unanswered are the next connection's to do, and the old one does
// nothing any more.
func TestVhostIsTakenOverByANewerConnection(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	h.create("vol_a", 4*drover.MiB)
	a := must[drover.Attachment](t)(h.Open(t.Context(), "vol_a", 1))
	f := h.vhost(a)
	for round := range 20 {
		for i := range 8 {
			s := f.Slot(i, 4096)
			copy(s.Data(), pattern(uint64(round*8+i), 4096))
			s.Submit(vhosttest.Out, uint64(i)*8)
		}
		f.Detach()
		noErr(t, f.Accept(a.VhostSocket))
		f.Begin(f.UsedIdx())
		for range 8 {
			f.Await()
		}
		for i := range 8 {
			if status := f.Slot(i, 4096).Status(); status != vhosttest.OK {
				t.Fatalf("round %d: request %d has status %d", round, i, status)
			}
		}
	}
	// An NBD client that writes is a newer connection, too.
	c := h.dial("vol_a@1")
	noErr(t, c.WriteAt(t.Context(), pattern(9, 4096), 0, false))
	f.Slot(0, 4096).Submit(vhosttest.Out, 0)
	if _, _, err := f.Receive(0); err == nil {
		t.Error("the older connection is still there")
	}
	got := make([]byte, 4096)
	noErr(t, c.ReadAt(t.Context(), got, 0))
	if !bytes.Equal(got, pattern(9, 4096)) {
		t.Error("the older connection wrote")
	}
}

// Blocks that are absent come from the parent; those that wait hold up no others.
func TestVhostReadsFromTheParent(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	h1.create("vol_a", 8*drover.MiB)
	model := append(make([]byte, mib), pattern(1, 5*mib)...)
	noErr(t, h1.open("vol_a", 1).WriteAt(t.Context(), model[mib:], mib, false))
	h2.clone("vol_a.m", h1.export("vol_a", "h2"), "")
	f := h2.vhost(must[drover.Attachment](t)(h2.Open(t.Context(), "vol_a.m", 2)))
	guestReads(t, f, mib/2, model[mib/2:mib/2+2*mib])
	guestWrites(t, f, 3*mib+512, pattern(2, 2048)) // a part of an absent block
	copy(model[3*mib+512:], pattern(2, 2048))
	guestReads(t, f, 3*mib, model[3*mib:3*mib+8192])

	h1.halt() // the parent is gone: what is absent waits, what is present does not
	slow := f.Slot(600, 4096)
	slow.Submit(vhosttest.In, uint64(5*mib/512))
	guestWrites(t, f, 0, pattern(3, 4096))
	guestReads(t, f, 0, pattern(3, 4096))
	if slow.Status() != vhosttest.Untouched {
		t.Error("the read of an absent block has been answered")
	}
	h1.start()
	f.Await()
	if slow.Status() != vhosttest.OK || !bytes.Equal(slow.Data(), model[5*mib:5*mib+4096]) {
		t.Errorf("the read of an absent block: status %d", slow.Status())
	}
}

// The daemon is killed at each step of a request, taken or completed, and started again: each request is done, and completed once.
func TestVhostOutlivesAKillAtEachStep(t *testing.T) {
	for _, point := range vhostuser.FaultPoints() {
		t.Run(point, func(t *testing.T) {
			p := newProcessHost(t, prepareHost(t, newCA(t), "h1"))
			p.start()
			p.create("vol_a", 4*drover.MiB)
			a := must[drover.Attachment](t)(p.Open(t.Context(), "vol_a", 1))
			f := p.vhost(a)
			guestWrites(t, f, 0, pattern(1, 4096))
			noErr(t, fault.Arm(p.faults, point, "process"))
			f.BeginRing(0, f.End())
			for i := range 10 {
				s := f.Slot(i, 4096)
				copy(s.Data(), pattern(uint64(i), 4096))
				s.Submit(vhosttest.Out, uint64(i)*8)
			}
			<-p.gone
			f.Detach()
			p.start()
			noErr(t, f.Accept(a.VhostSocket))
			f.Begin(f.UsedIdx())
			for f.InFlight() > 0 {
				f.Await() // fails when one is completed that is not in flight
			}
			for i := range 10 {
				guestReads(t, f, int64(i)*4096, pattern(uint64(i), 4096))
			}
		})
	}
}

func TestVhostSocketsHaveShortPaths(t *testing.T) {
	run := "/run/" + string(bytes.Repeat([]byte("d"), 51)) // the longest run directory that a host may have
	for _, id := range []drover.LayerID{"a", drover.LayerID(bytes.Repeat([]byte("x"), 200))} {
		path := vhostSocket(run, id, 1<<40)
		if len(path) > 107 {
			t.Errorf("the path has %d bytes", len(path))
		}
		if path != vhostSocket(run, id, 1<<40) || path == vhostSocket(run, id, 1) {
			t.Error("the path is not that of layer and epoch")
		}
	}
}

// A layer that grows tells the guest that uses it.
func TestVhostTellsOfANewSize(t *testing.T) {
	cfg := must[Config](t)(prepareHost(t, newCA(t), "h1").cfg.withDefaults())
	unlock := must[func() error](t)(lockDirs(cfg))
	defer func() { noErr(t, unlock()) }()
	p := must[*pool](t)(openPool(cfg, dialTLS(cfg.TLSDir, true)))
	defer func() { noErr(t, p.close()) }()
	noErr(t, p.resumeVhost())
	must[*layer](t)(p.createLayer(t.Context(), drover.LayerSpec{ID: "vol_a", Disk: "vol_a", Size: drover.MiB}))
	a := must[drover.Attachment](t)(p.open(t.Context(), "vol_a", 1))
	f := vhosttest.NewFrontend(vhosttest.NewGuest(t, 64))
	noErr(t, f.Accept(a.VhostSocket))
	f.Begin(0)
	sectors := func() uint64 {
		return binary.LittleEndian.Uint64(f.Ask(vhosttest.GetConfig, append(vhosttest.Pair(0, 60), 0, 0, 0, 0))[12:])
	}
	if n := sectors(); n != 2048 {
		t.Errorf("%d sectors", n)
	}
	noErr(t, p.resize(t.Context(), "vol_a", 2*drover.MiB))
	if n := sectors(); n != 4096 {
		t.Errorf("%d sectors after it has grown", n)
	}
	f.Detach()
}
