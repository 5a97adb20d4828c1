package volume

import (
	"bytes"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"drover"
)

// wire stands between a target and its source: it counts what the source sends, cuts, refuses and flips.
type wire struct {
	to       string
	l        net.Listener
	sent     atomic.Int64 // by the source
	flipAt   atomic.Int64 // the byte of the source's that is flipped next; 0 for none
	refusing atomic.Bool
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	// held are the directions in which nothing passes, true for what the source sends; each has a channel that is closed when it passes again.
	held map[bool]chan struct{}
}

// hold lets nothing pass in one direction; the other works.
func (w *wire) hold(source bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held[source] = make(chan struct{})
}

// release ends all holds.
func (w *wire) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.held {
		close(c)
	}
	clear(w.held)
}

// await waits while a direction is held.
func (w *wire) await(source bool) {
	w.mu.Lock()
	c := w.held[source]
	w.mu.Unlock()
	if c != nil {
		<-c
	}
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	w := &wire{to: to, l: must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0")), conns: map[net.Conn]bool{}, held: map[bool]chan struct{}{}}
	w.wg.Go(w.accept)
	t.Cleanup(func() {
		noErr(t, w.l.Close())
		w.refusing.Store(true)
		w.release()
		w.cut()
		w.wg.Wait()
	})
	return w
}

func (w *wire) accept() {
	for {
		near, err := w.l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", w.to)
		if err != nil || w.refusing.Load() {
			_ = near.Close()
			if err == nil {
				_ = far.Close()
			}
			continue
		}
		for _, c := range []net.Conn{near, far} { // what is on its way in a wire is not much
			_, _ = c.(*net.TCPConn).SetReadBuffer(128<<10), c.(*net.TCPConn).SetWriteBuffer(128<<10)
		}
		w.mu.Lock()
		w.conns[near], w.conns[far] = true, true
		w.mu.Unlock()
		w.wg.Go(func() { w.pass(near, far, false) })
		w.wg.Go(func() { w.pass(far, near, true) })
	}
}

// pass copies until either side ends, and then ends both.
func (w *wire) pass(from, to net.Conn, source bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if source && n > 0 {
			now := w.sent.Add(int64(n))
			if at := w.flipAt.Load(); at > 0 && now >= at && w.flipAt.CompareAndSwap(at, 0) {
				buf[n/2] ^= 1
			}
		}
		w.await(source)
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			break
		}
	}
	w.mu.Lock()
	delete(w.conns, from)
	delete(w.conns, to)
	w.mu.Unlock()
	_, _ = from.Close(), to.Close()
}

// cut ends all connections in the middle of whatever they are at.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		_ = c.Close()
	}
}

// hydrateOver makes a clone on h2 of a volume of h1 that is reached by way of a wire.
func hydrateOver(t *testing.T, h1, h2 *testHost, size int64) (*wire, []byte) {
	t.Helper()
	w := newWire(t, h1.cfg.Listen)
	data := pattern(uint64(size), size)
	h1.create("vol_a", drover.Bytes(size))
	c := h1.open("vol_a", 1)
	for off := int64(0); off < size; off += mib {
		noErr(t, c.WriteAt(t.Context(), data[off:min(off+mib, size)], off, false))
	}
	e := h1.export("vol_a", "h2")
	e.Address = w.l.Addr().String()
	h2.clone("vol_a.m", e, "")
	return w, data
}

// copied waits until so much was sent by the source.
func (w *wire) copied(t *testing.T, n int64) {
	t.Helper()
	eventually(t, func() error {
		if now := w.sent.Load(); now < n {
			return drover.Errorf(drover.Unavailable, "%d of %d bytes were sent", now, n)
		}
		return nil
	})
}

func checkClone(t *testing.T, h *testHost, data []byte) {
	t.Helper()
	got := make([]byte, len(data))
	noErr(t, h.dial("vol_a.m").ReadAt(t.Context(), got, 0))
	if !bytes.Equal(got, data) {
		t.Error("the clone holds something else")
	}
}

// A byte that changes on the wire ends a connection, and what was on it is fetched again.
func TestCorruptionOnTheWireIsFetchedAgain(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	const size = 32 << 20
	w, data := hydrateOver(t, h1, h2, size)
	r := rand.New(rand.NewPCG(1, 2))
	w.flipAt.Store(size/4 + r.Int64N(size/4))
	noErr(t, h2.Hydrate(t.Context(), "vol_a.m", 0))
	h2.hydrated("vol_a.m")
	if w.flipAt.Load() != 0 {
		t.Error("nothing was flipped")
	}
	if v := h2.verified("vol_a.m"); v.Checked != size || v.Repaired != 0 || v.Against != againstParent {
		t.Errorf("%+v", v)
	}
	checkClone(t, h2, data)
}

// However often the link is cut and either daemon killed, hydration goes on where it was: hardly anything is sent twice.
func TestCutsAndKillsSendHardlyAnythingTwice(t *testing.T) {
	ca := newCA(t)
	source := newProcessHost(t, prepareHost(t, ca, "h1"))
	target := newProcessHost(t, prepareHost(t, ca, "h2"))
	source.start()
	target.start()
	const size = 192 << 20
	w, data := hydrateOver(t, source.testHost, target.testHost, size)
	noErr(t, target.Hydrate(t.Context(), "vol_a.m", 0))
	w.copied(t, size/5)
	w.refusing.Store(true) // a cut that lasts
	w.cut()
	eventually(t, func() error {
		if s := target.hydration("vol_a.m"); s.Waiting == "" {
			return drover.Errorf(drover.Unavailable, "it does not wait: %+v", s)
		}
		return nil
	})
	w.refusing.Store(false)
	w.copied(t, size*2/5)
	target.kill()
	target.start()
	w.copied(t, size*3/5)
	source.kill()
	source.start()
	w.copied(t, size*4/5)
	w.cut() // a short one
	target.hydrated("vol_a.m")
	if sent := w.sent.Load(); sent > size*105/100 {
		t.Errorf("%d bytes were sent for %d, %.3f times", sent, size, float64(sent)/size)
	} else {
		t.Logf("%.3f times the data was sent", float64(sent)/size)
	}
	if v := target.verified("vol_a.m"); v.Checked != size || len(v.Damaged) != 0 {
		t.Errorf("%+v", v)
	}
	checkClone(t, target.testHost, data)
}

// A link that is dead in one direction while a clone is filled: that is said, what the clone has is served, what it has not is waited for, and when the link is
// whole all of it goes on.
func TestALinkThatIsDeadInOneDirectionWhileAVolumeIsFilled(t *testing.T) {
	for name, source := range map[string]bool{"nothing comes from the source": true, "nothing comes to the source": false} {
		t.Run(name, func(t *testing.T) {
			ca := newCA(t)
			h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
			const size = 64 << 20
			noErr(t, h2.Settings(t.Context(), drover.StorageSettings{StallAfter: drover.Duration(20 * time.Millisecond)}))
			w, data := hydrateOver(t, h1, h2, size)
			guest := h2.open("vol_a.m", 2)
			ours := pattern(99, 4096)
			noErr(t, guest.WriteAt(t.Context(), ours, 0, true))
			copy(data, ours)
			w.hold(source)
			noErr(t, h2.Hydrate(t.Context(), "vol_a.m", 0))
			eventually(t, func() error {
				if s := h2.hydration("vol_a.m"); !s.Stalled {
					return drover.Errorf(drover.Unavailable, "nobody says that it stalls: %+v", s)
				}
				return nil
			})
			got := make([]byte, 4096)
			noErr(t, guest.ReadAt(t.Context(), got, 0))
			if !bytes.Equal(got, ours) {
				t.Error("the guest does not read what it wrote")
			}
			absent := make(chan error, 1)
			far := make([]byte, 4096)
			go func() { absent <- guest.ReadAt(t.Context(), far, size-4096) }()
			w.release()
			noErr(t, <-absent)
			if !bytes.Equal(far, data[size-4096:]) {
				t.Error("a read that waited has read something else")
			}
			if s := h2.hydrated("vol_a.m"); s.Hydration.Stalled {
				t.Errorf("it is told to stall, and is complete: %+v", s.Hydration)
			}
			checkClone(t, h2, data)
		})
	}
}
