package volume

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"drover"
	"drover/internal/fleetca"
	"drover/nbd"
)

// testHost is a host with a storage daemon in this process.
type testHost struct {
	*Client
	tb   testing.TB
	id   drover.HostID
	cfg  Config
	ca   *fleetca.CA
	stop func() error
	// cipher is that of layers that are made; nil for none.
	cipher *drover.Cipher
}

func newCA(tb testing.TB) *fleetca.CA {
	tb.Helper()
	ca, err := fleetca.Ensure(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	return ca
}

// shortDir makes a directory whose name leaves room for a socket's name.
func shortDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "vol")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	return dir
}

func freeAddress(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// testLog writes warnings to the test's log.
func testLog(tb testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// prepareHost makes a host's directories; the daemon does not run yet.
func prepareHost(tb testing.TB, ca *fleetca.CA, id drover.HostID) *testHost {
	tb.Helper()
	dir := shortDir(tb)
	tlsDir := filepath.Join(dir, "tls")
	if err := fleetca.IssueHost(ca, tlsDir, id, []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil); err != nil {
		tb.Fatal(err)
	}
	h := &testHost{tb: tb, id: id, ca: ca, cfg: Config{Host: id, Dir: filepath.Join(dir, "pool"), RunDir: filepath.Join(dir, "run"),
		Listen: freeAddress(tb), TLSDir: tlsDir, RoomWait: time.Nanosecond, Log: testLog(tb)}}
	h.Client = NewClient(filepath.Join(h.cfg.RunDir, controlSocket))
	return h
}

func newHost(tb testing.TB, ca *fleetca.CA, id drover.HostID) *testHost {
	tb.Helper()
	h := prepareHost(tb, ca, id)
	h.start()
	tb.Cleanup(func() {
		if h.stop != nil {
			h.halt()
		}
	})
	return h
}

// start runs the daemon until halt.
func (h *testHost) start() {
	h.tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, h.cfg) }()
	h.stop = func() error { cancel(); return <-ended }
	eventually(h.tb, func() error {
		select {
		case err := <-ended:
			h.tb.Fatalf("the daemon ended: %v", err)
		default:
		}
		_, err := h.Layers(context.Background())
		return err
	})
}

// halt ends the daemon in order.
func (h *testHost) halt() {
	h.tb.Helper()
	if err := h.stop(); err != nil {
		h.tb.Errorf("the daemon ended with %v", err)
	}
	h.stop = nil
}

// eventually polls until there is no error, for 20 s at most.
func eventually(tb testing.TB, check func() error) {
	tb.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("still after 20 s: %v", err)
		}
		<-tick.C
	}
}

func must[T any](tb testing.TB) func(T, error) T {
	return func(v T, err error) T {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return v
	}
}

func noErr(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// wantCode fails unless the error has the code.
func wantCode(tb testing.TB, err error, code drover.Code) {
	tb.Helper()
	if !drover.Is(err, code) {
		tb.Fatalf("got error %v (%s), want code %s", err, drover.CodeOf(err), code)
	}
}

// create makes a plain layer.
func (h *testHost) create(id drover.LayerID, size drover.Bytes) {
	h.tb.Helper()
	must[drover.LayerStatus](h.tb)(h.CreateLayer(h.tb.Context(), drover.LayerSpec{ID: id, Disk: diskOf(id), Size: size, Cipher: h.cipher}))
}

// diskOf takes what a migration added off a layer's name.
func diskOf(id drover.LayerID) drover.DiskID {
	for i, r := range id {
		if r == '.' {
			return drover.DiskID(id[:i])
		}
	}
	return drover.DiskID(id)
}

// dial connects to an export name on the unix socket.
func (h *testHost) dial(name string) *nbd.Client {
	h.tb.Helper()
	c := must[*nbd.Client](h.tb)(h.tryDial(name))
	h.tb.Cleanup(func() { c.Close() })
	return c
}

func (h *testHost) tryDial(name string) (*nbd.Client, error) {
	return nbd.Dial(h.tb.Context(), nbd.ClientConfig{Network: "unix", Address: filepath.Join(h.cfg.RunDir, nbdSocket), Export: name,
		MetaContexts: []string{nbd.ContextAllocation, nbd.ContextPresent}})
}

// open opens a layer and connects to it.
func (h *testHost) open(id drover.LayerID, epoch drover.Epoch) *nbd.Client {
	h.tb.Helper()
	if h.cipher != nil {
		noErr(h.tb, h.SetKey(h.tb.Context(), h.cipher.Key, secretOf(h.cipher.Key)))
	}
	a := must[drover.Attachment](h.tb)(h.Open(h.tb.Context(), id, epoch))
	return h.dial(a.Export)
}

// export freezes a layer, lets the host read it, and returns what a clone needs.
func (h *testHost) export(id drover.LayerID, to drover.HostID) *drover.Export {
	h.tb.Helper()
	s := must[drover.LayerStatus](h.tb)(h.Freeze(h.tb.Context(), id))
	noErr(h.tb, h.Export(h.tb.Context(), id, to))
	return &drover.Export{Disk: s.Disk, Layer: id, Size: s.Size, Host: h.id, Address: h.cfg.Listen, Name: string(id), Allocated: s.Allocated, Cipher: s.Cipher}
}

// clone makes a layer over an export.
func (h *testHost) clone(id drover.LayerID, e *drover.Export, base drover.LayerID) {
	h.tb.Helper()
	must[drover.LayerStatus](h.tb)(h.CreateLayer(h.tb.Context(), drover.LayerSpec{ID: id, Disk: e.Disk, Size: e.Size, Parent: e, Base: base, Cipher: e.Cipher}))
}

// hydrated waits until the layer needs no parent any more.
func (h *testHost) hydrated(id drover.LayerID) drover.LayerStatus {
	h.tb.Helper()
	var s drover.LayerStatus
	eventually(h.tb, func() error {
		s = must[drover.LayerStatus](h.tb)(h.Layer(h.tb.Context(), id))
		if s.Hydration == nil || !s.Hydration.Done {
			return fmt.Errorf("not hydrated: %+v", s.Hydration)
		}
		return nil
	})
	return s
}
