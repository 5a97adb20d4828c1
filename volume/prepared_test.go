package volume

import (
	"os"
	"testing"

	"drover"
	"drover/vhostuser/vhosttest"
)

func TestAPreparedLayerWaitsForItsEpoch(t *testing.T) {
	ctx := t.Context()
	h := newHost(t, newCA(t), "h1")
	h.create("vol_a", 4*drover.MiB)
	a := must[drover.Attachment](t)(h.Prepare(ctx, "vol_a", "mig_1"))
	if again := must[drover.Attachment](t)(h.Prepare(ctx, "vol_a", "mig_1")); again != a {
		t.Errorf("prepared again at %+v, first at %+v", again, a)
	}
	if _, err := h.Prepare(ctx, "vol_a", "mig_2"); !drover.Is(err, drover.Conflict) {
		t.Errorf("prepared for another: %v", err)
	}
	if _, err := h.Prepare(ctx, "vol_a", "../x"); !drover.Is(err, drover.Invalid) {
		t.Errorf("a token that is none: %v", err)
	}
	f := vhosttest.NewFrontend(vhosttest.NewGuest(t, 64))
	noErr(t, f.Accept(a.Socket))
	copy(f.Slot(0, 4096).Data(), pattern(1, 4096))
	f.Slot(0, 4096).Submit(vhosttest.Out, 0)
	begun := make(chan struct{})
	go func() { defer close(begun); f.Begin(0) }() // its last message is answered when the layer is open
	eventually(t, func() error {
		if got := must[drover.LayerStatus](t)(h.Layer(ctx, "vol_a")); got.Allocated != 0 || f.Slot(0, 4096).Status() != vhosttest.Untouched {
			t.Errorf("written before it was open: %+v", got)
		}
		return nil
	})
	open := must[drover.Attachment](t)(h.Open(ctx, "vol_a", 3))
	<-begun
	if f.Await(); f.Slot(0, 4096).Status() != vhosttest.OK {
		t.Errorf("the write that waited ended with status %d", f.Slot(0, 4096).Status())
	}
	guestReads(t, f, 0, pattern(1, 4096))

	// It is bound for good: after a restart of the daemon too, and until a newer epoch.
	h.halt()
	f.Detach()
	h.start()
	noErr(t, f.Accept(a.Socket))
	f.Begin(f.UsedIdx())
	guestReads(t, f, 0, pattern(1, 4096))
	if again := must[drover.Attachment](t)(h.Open(ctx, "vol_a", 3)); again != open {
		t.Errorf("opened again: %+v, first %+v", again, open)
	}
	guestReads(t, f, 0, pattern(1, 4096))
	must[drover.Attachment](t)(h.Open(ctx, "vol_a", 4))
	if _, _, err := f.Receive(0); err == nil {
		t.Error("the connection survived a newer epoch")
	}
	f.Detach()
	if _, err := os.Stat(a.Socket); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
	if _, err := h.Prepare(ctx, "vol_a", "mig_3"); !drover.Is(err, drover.Precondition) {
		t.Errorf("an open layer was prepared: %v", err)
	}
}

// Who gives a prepared layer up ends those that wait, and it can be prepared for another.
func TestAPreparedLayerIsGivenUp(t *testing.T) {
	ctx := t.Context()
	for name, end := range map[string]func(h *testHost) error{
		"unprepare":   func(h *testHost) error { return h.Unprepare(ctx, "vol_a", "mig_1") },
		"close":       func(h *testHost) error { return h.Close(ctx, "vol_a") },
		"freeze":      func(h *testHost) error { _, err := h.Freeze(ctx, "vol_a"); return err },
		"delete":      func(h *testHost) error { return h.Delete(ctx, "vol_a") },
		"daemon ends": func(h *testHost) error { h.halt(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, newCA(t), "h1")
			h.create("vol_a", 4*drover.MiB)
			a := must[drover.Attachment](t)(h.Prepare(ctx, "vol_a", "mig_1"))
			f := vhosttest.NewFrontend(vhosttest.NewGuest(t, 64))
			noErr(t, f.Accept(a.Socket))
			f.Hello() // served, and not more
			noErr(t, h.Unprepare(ctx, "vol_a", "mig_2"))
			if status := must[drover.LayerStatus](t)(h.Layer(ctx, "vol_a")); status.Writer != 0 {
				t.Errorf("%+v", status)
			}
			noErr(t, end(h))
			if _, _, err := f.Receive(0); err == nil {
				t.Error("the connection is still there")
			}
			f.Detach()
			if _, err := os.Stat(a.Socket); os.IsNotExist(err) == (name == "daemon ends") {
				t.Errorf("the VM's socket, which only the end of a daemon leaves where it is: %v", err)
			}
		})
	}
}
