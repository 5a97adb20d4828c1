package volume

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"drover"
	"drover/vhostuser/vhosttest"
)

// ballast takes most of what guests may take of the pool's file system, until it is removed. The daemon is started again, with patience for writes.
func ballast(t *testing.T, h *testHost) (remove func()) {
	t.Helper()
	h.halt()
	defer h.start()
	h.cfg.RoomWait = time.Hour
	path := filepath.Join(filepath.Dir(h.cfg.Dir), "somebody-else")
	_, free, err := statfs(h.cfg.Dir)
	noErr(t, err)
	noErr(t, os.WriteFile(path, make([]byte, free-h.cfg.Floor-128<<10), 0o600))
	return func() { noErr(t, os.Remove(path)) }
}

// A write that finds no room waits for some, alone: what needs none goes on, the layer may be cut in two meanwhile, and nothing is lost.
func TestAWriteWaitsForRoom(t *testing.T) {
	onSmallDisks(t, func(t *testing.T, h *testHost) {
		ctx := t.Context()
		h.create("vol_a", 256*drover.MiB)
		noErr(t, h.open("vol_a", 1).WriteAt(ctx, pattern(1, mib), 0, true))
		remove := ballast(t, h)
		a := h.open("vol_a", 2)
		waiting := make(chan error, 2)
		go func() { waiting <- a.WriteAt(ctx, pattern(2, 4*mib), 8*mib, true) }()
		go func() { waiting <- a.Zero(ctx, 16*mib, 4*mib, true, true) }()
		noErr(t, a.WriteAt(ctx, pattern(3, mib), 0, true))
		same(t, a, 0, pattern(3, mib))
		noErr(t, a.Discard(ctx, 32*mib, mib, true))
		must[drover.LayerStatus](t)(h.Split(ctx, "vol_a", "vol_a.s"))
		same(t, a, 0, pattern(3, mib))
		select {
		case err := <-waiting:
			t.Fatalf("one did not wait: %v", err)
		default:
		}
		remove()
		for range 2 {
			noErr(t, <-waiting)
		}
		same(t, a, 8*mib, pattern(2, 4*mib))
		same(t, a, 16*mib, make([]byte, 4*mib))
	})
}

// The daemon ends while writes wait; the client gets no answer, as with any that it has not been given.
func TestADaemonEndsWhileWritesWaitForRoom(t *testing.T) {
	onSmallDisks(t, func(t *testing.T, h *testHost) {
		h.create("vol_a", 256*drover.MiB)
		remove := ballast(t, h)
		a := h.open("vol_a", 1)
		waiting := make(chan error, 1)
		go func() { waiting <- a.WriteAt(t.Context(), pattern(2, 4*mib), 8*mib, true) }()
		noErr(t, a.Flush(t.Context()))
		h.halt()
		if err := <-waiting; !drover.Is(err, drover.Unavailable) {
			t.Errorf("got %v", err)
		}
		remove()
		h.start()
	})
}

// A VM's write outlives the daemon that it waited in: the next one has it, too, and a guest sees nothing but a slow disk.
func TestAGuestsWriteWaitsForRoomOverARestart(t *testing.T) {
	onSmallDisks(t, func(t *testing.T, h *testHost) {
		h.create("vol_a", 256*drover.MiB)
		remove := ballast(t, h)
		attachment := must[drover.Attachment](t)(h.Open(t.Context(), "vol_a", 1))
		f := h.vhost(attachment)
		guestWrites(t, f, 0, pattern(1, 64<<10))
		const size = 300 << 10
		waiting := f.Slot(1, size)
		copy(waiting.Data(), pattern(2, size))
		head := waiting.Submit(vhosttest.Out, uint64(mib)/512)
		guestReads(t, f, 0, pattern(1, 64<<10))
		h.halt()
		f.Detach()
		if status := waiting.Status(); status != vhosttest.Untouched {
			t.Errorf("a write that waits was answered with status %d when the daemon ended", status)
		}
		h.start()
		noErr(t, f.Accept(attachment.VhostSocket))
		f.Begin(f.UsedIdx())
		guestReads(t, f, 0, pattern(1, 64<<10))
		remove()
		if got, _ := f.Await(); got != head || waiting.Status() != vhosttest.OK {
			t.Errorf("request %d, which should be %d, has status %d", got, head, waiting.Status())
		}
		guestReads(t, f, mib, pattern(2, size))
	})
}
