package volume

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"drover"
	"drover/nbd"
)

func TestStaleEpochIsRefused(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	ctx := t.Context()
	h.create("vol_x", drover.MiB)
	h.open("vol_x", 7)
	noErr(t, h.Close(ctx, "vol_x"))
	_, err := h.Open(ctx, "vol_x", 6)
	wantCode(t, err, drover.Conflict)
	if want := "stale epoch 6 for disk vol_x: 7 is known"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	h.open("vol_x", 7) // the same epoch again, after a close
	if _, err := h.tryDial("vol_x@6"); err == nil || !strings.Contains(err.Error(), "stale epoch 6 for disk vol_x: 7 is known") {
		t.Errorf("a connection at a stale epoch got %v", err)
	}
	if _, err := h.tryDial("vol_x@8"); err == nil {
		t.Error("a connection at an epoch that was never opened was taken")
	}
	noErr(t, h.Fence(ctx, "vol_x", 3)) // lower than what is known: changes nothing
	h.halt()
	h.start()
	if _, err := h.Open(ctx, "vol_x", 6); !drover.Is(err, drover.Conflict) {
		t.Errorf("after a restart: %v", err)
	}
	h.dial("vol_x@7")
}

func TestFenceOfADiskWithoutLayersCounts(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	noErr(t, h.Fence(t.Context(), "vol_y", 9))
	h.create("vol_y", drover.MiB)
	_, err := h.Open(t.Context(), "vol_y", 8)
	wantCode(t, err, drover.Conflict)
}

func TestOneLayerOfADiskIsOpen(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	ctx := t.Context()
	h.create("vol_x", drover.MiB)
	h.create("vol_x.two", drover.MiB)
	first := h.open("vol_x", 1)
	_, err := h.Open(ctx, "vol_x.two", 1)
	wantCode(t, err, drover.Conflict)
	h.open("vol_x.two", 2)
	<-first.Done()
	if s := must[drover.LayerStatus](t)(h.Layer(ctx, "vol_x")); s.Writer != 0 {
		t.Errorf("the older layer is still open at %d", s.Writer)
	}
	_, err = h.Open(ctx, "vol_x", 2)
	wantCode(t, err, drover.Conflict)
}

// A writer of a lower epoch is cut off: what it sends after the fence was raised never lands.
func TestWriterOfALowerEpochNeverLandsAgain(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	ctx := t.Context()
	h.create("vol_x", 4*drover.MiB)
	old := h.open("vol_x", 1)
	stop, cancel := context.WithCancel(ctx)
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for i := uint64(0); stop.Err() == nil; i++ {
				if old.WriteAt(ctx, pattern(i, blockSize), int64(i%1024)*blockSize, false) != nil {
					return
				}
			}
		})
	}
	noErr(t, old.WriteAt(ctx, pattern(1, blockSize), 0, false))
	noErr(t, h.Fence(ctx, "vol_x", 2))
	before := make([]byte, 4*mib)
	ro := h.dial("vol_x")
	noErr(t, ro.ReadAt(ctx, before, 0))
	writers.Wait() // each ended because its connection did
	cancel()
	if err := old.WriteAt(ctx, pattern(9, blockSize), 0, false); err == nil {
		t.Error("a write of the stale connection was acknowledged")
	}
	after := make([]byte, 4*mib)
	noErr(t, ro.ReadAt(ctx, after, 0))
	if string(before) != string(after) {
		t.Error("a write landed after the fence was raised")
	}
}

// A program that connects to the same epoch and writes ends the connections of the one before.
func TestNewestClientIsTheWriter(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	ctx := t.Context()
	h.create("vol_x", drover.MiB)
	one := h.open("vol_x", 1)
	two := h.dial("vol_x@1")
	other := func(command string) {
		t.Helper()
		if out, err := tool(t, "qemu-io", "-f", "raw", h.uri("vol_x@1"), "-c", command); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	noErr(t, one.WriteAt(ctx, pattern(1, blockSize), 0, false))
	other("read 0 4096")
	noErr(t, one.WriteAt(ctx, pattern(1, blockSize), 0, false)) // reading takes nothing away
	other("write -P 7 0 4096")
	<-one.Done()
	<-two.Done()
}

// A program may write over several connections that it has open together, and give any of them up.
func TestConnectionsOfOneProgramWriteTogether(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	ctx := t.Context()
	h1.create("vol_x", 2*drover.MiB)
	noErr(t, h1.open("vol_x", 1).WriteAt(ctx, pattern(9, mib), 0, false))
	h2.clone("vol_x.m", h1.export("vol_x", "h2"), "")
	one := h2.open("vol_x.m", 2)
	two, three := h2.dial("vol_x.m@2"), h2.dial("vol_x.m@2")
	model := pattern(9, mib)
	for i := range 12 {
		p := pattern(uint64(i), blockSize)
		noErr(t, []*nbd.Client{one, three, two}[i%3].WriteAt(ctx, p, int64(i)*blockSize, false))
		copy(model[i*blockSize:], p)
	}
	noErr(t, two.Flush(ctx))
	// What is left of a connection that was given up does not land over what is written after it.
	h1.halt()
	late := make(chan error, 1)
	go func() { late <- one.WriteAt(ctx, pattern(50, 100), 20*blockSize+10, false) }() // waits for the rest of its block
	noErr(t, one.Close())
	if err := <-late; err == nil {
		t.Error("a write over a closed connection was acknowledged")
	}
	again := h2.dial("vol_x.m@2")
	p := pattern(51, blockSize)
	noErr(t, again.WriteAt(ctx, p, 20*blockSize, false))
	copy(model[20*blockSize:], p)
	noErr(t, two.WriteAt(ctx, p, 21*blockSize, false))
	copy(model[21*blockSize:], p)
	h1.start()
	got := make([]byte, mib)
	noErr(t, three.ReadAt(ctx, got, 0))
	if !bytes.Equal(got, model) {
		t.Error("the layer holds something else than what was written last")
	}
}

func TestFrozenLayerIsNotOpened(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	ctx := t.Context()
	h.create("vol_x", drover.MiB)
	c := h.open("vol_x", 4)
	noErr(t, c.WriteAt(ctx, pattern(1, 3*blockSize), 0, false))
	for range 2 {
		s := must[drover.LayerStatus](t)(h.Freeze(ctx, "vol_x"))
		if s.State != drover.LayerFrozen || s.Writer != 0 || s.Allocated != 3*blockSize {
			t.Errorf("frozen: %+v", s)
		}
	}
	<-c.Done()
	_, err := h.Open(ctx, "vol_x", 5)
	wantCode(t, err, drover.Precondition)
	h.halt()
	h.start()
	_, err = h.Open(ctx, "vol_x", 5)
	wantCode(t, err, drover.Precondition)
	noErr(t, h.Thaw(ctx, "vol_x"))
	noErr(t, h.Thaw(ctx, "vol_x"))
	h.open("vol_x", 4)
	must[drover.LayerStatus](t)(h.Freeze(ctx, "vol_x"))
	noErr(t, h.Fence(ctx, "vol_x", 5)) // the disk was written elsewhere
	wantCode(t, h.Thaw(ctx, "vol_x"), drover.Precondition)
}

// Open layers, exports and fences survive a restart without being told; the VM reconnects by the same name.
func TestRestartGoesOnWithoutBeingTold(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	h1.create("vol_a", drover.MiB)
	c := h1.open("vol_a", 1)
	noErr(t, c.WriteAt(t.Context(), pattern(5, blockSize), 0, false))
	h1.halt()
	h1.start()
	c = h1.dial("vol_a@1")
	e := h1.export("vol_a", "h2")
	h1.halt()
	h1.start()
	if s := must[drover.LayerStatus](t)(h1.Layer(t.Context(), "vol_a")); len(s.Exports) != 1 || s.State != drover.LayerFrozen {
		t.Errorf("after the restart: %+v", s)
	}
	h2.clone("vol_a.m", e, "")
	noErr(t, h2.CheckParent(t.Context(), "vol_a.m"))
	_ = c
}

func TestExportIsForTheNamedHostOnly(t *testing.T) {
	ca := newCA(t)
	h1, h2, h3 := newHost(t, ca, "h1"), newHost(t, ca, "h2"), newHost(t, ca, "h3")
	stranger := newHost(t, newCA(t), "h2") // right name, wrong authority
	h1.create("vol_a", drover.MiB)
	e := h1.export("vol_a", "h2")
	for _, h := range []*testHost{h2, h3, stranger} {
		h.clone("vol_a.m", e, "")
	}
	noErr(t, h2.CheckParent(t.Context(), "vol_a.m"))
	wantCode(t, h3.CheckParent(t.Context(), "vol_a.m"), drover.Denied)
	if err := stranger.CheckParent(t.Context(), "vol_a.m"); err == nil {
		t.Error("a certificate of another fleet was accepted")
	}
	// A connection that is open when the export ends is ended.
	conn := must[remote](t)(dialTLS(h2.cfg.TLSDir, true)(t.Context(), *e))
	t.Cleanup(func() { conn.Close() })
	noErr(t, h1.Unexport(t.Context(), "vol_a", "h2"))
	<-conn.Done()
	wantCode(t, h2.CheckParent(t.Context(), "vol_a.m"), drover.Denied)
	wrong := *e
	wrong.Name = "vol_a@1"
	if _, err := dialTLS(h2.cfg.TLSDir, true)(t.Context(), wrong); err == nil {
		t.Error("a layer was opened for writing over the network")
	}
	wrong = *e
	wrong.Host = "h3"
	if _, err := dialTLS(h2.cfg.TLSDir, true)(t.Context(), wrong); err == nil {
		t.Error("a server with another host's certificate was trusted")
	}
}

func TestDamagedFenceStopsItsDiskOnly(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	for _, id := range []drover.LayerID{"vol_a", "vol_b"} {
		h.create(id, drover.MiB)
		h.open(id, 5)
	}
	h.halt()
	path := filepath.Join(h.cfg.Dir, "fences", "vol_a.json")
	b := must[[]byte](t)(os.ReadFile(path))
	noErr(t, os.WriteFile(path, []byte(strings.Replace(string(b), `"epoch": 5`, `"epoch": 4`, 1)), 0o600))
	h.start()
	_, err := h.Open(t.Context(), "vol_a", 6)
	wantCode(t, err, drover.Internal)
	if _, err := h.tryDial("vol_a@5"); err == nil {
		t.Error("a layer whose fence is unknown is open")
	}
	h.dial("vol_b@5")
}

var _ nbd.Opener = opener{}
