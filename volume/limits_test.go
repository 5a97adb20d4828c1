package volume

import (
	"context"
	"errors"
	"testing"

	"drover"
)

// hardly is a limit that lets one request through, and the next after hours.
var hardly = drover.Limits{BytesPerSecond: 100}

func TestLimitsAreDurableAndTold(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	ctx := t.Context()
	want := drover.Limits{IOPS: 500, BytesPerSecond: drover.MiB}
	s := must[drover.LayerStatus](t)(h.CreateLayer(ctx, drover.LayerSpec{ID: "vol_a", Disk: "vol_a", Size: drover.MiB, Limits: want}))
	if s.Limits != want {
		t.Errorf("created with %+v", s.Limits)
	}
	want.IOPS = 7
	for range 2 {
		noErr(t, h.Limit(ctx, "vol_a", want))
		h.halt()
		h.start()
		if s = must[drover.LayerStatus](t)(h.Layer(ctx, "vol_a")); s.Limits != want {
			t.Errorf("after a restart %+v", s.Limits)
		}
	}
	wantCode(t, h.Limit(ctx, "vol_a", drover.Limits{IOPS: -1}), drover.Invalid)
	wantCode(t, h.Limit(ctx, "vol_b", want), drover.NotFound)
	_, err := h.CreateLayer(ctx, drover.LayerSpec{ID: "vol_b", Disk: "vol_b", Size: drover.MiB, Limits: drover.Limits{BytesPerSecond: -1}})
	wantCode(t, err, drover.Invalid)
}

// A request that waits for its turn goes on at once when the limits are lifted, and ends when the layer is closed: it never lands later.
func TestWhatWaitsForItsTurn(t *testing.T) {
	ctx := t.Context()
	p := must[*pool](t)(openPool(must[Config](t)(prepareHost(t, newCA(t), "h1").cfg.withDefaults()), nil))
	defer func() { noErr(t, p.close()) }()
	noErr(t, p.resumeVhost())
	l := must[*layer](t)(p.createLayer(ctx, drover.LayerSpec{ID: "vol_a", Disk: "vol_a", Size: 4 * drover.MiB}))
	must[drover.Attachment](t)(p.open(ctx, "vol_a", 1))
	s := must[*session](t)(l.connect(1, "", nil))
	wrote := make(chan error, 1)
	stuck := func(seed uint64, off int64) {
		noErr(t, p.limit(ctx, "vol_a", hardly))
		noErr(t, s.WriteAt(ctx, pattern(seed, mib), 0, false)) // is let in whole, and the next one waits
		if done, err := s.TryWriteAt(pattern(0, blockSize), off); done || err != nil {
			t.Errorf("a request that may not wait was done (%v) or failed: %v", done, err)
		}
		if done, err := s.TryReadAt(make([]byte, blockSize), off); done || err != nil {
			t.Errorf("a request that may not wait was done (%v) or failed: %v", done, err)
		}
		go func() { wrote <- s.WriteAt(ctx, pattern(seed+1, mib), off, false) }()
		eventually(t, func() error {
			limits := l.throttle.Load()
			limits.mu.Lock()
			defer limits.mu.Unlock()
			if len(limits.lines) == 0 {
				return errors.New("nothing waits")
			}
			return nil
		})
	}
	stuck(1, mib)
	noErr(t, s.Flush(ctx)) // is no operation that counts
	noErr(t, p.limit(ctx, "vol_a", drover.Limits{}))
	noErr(t, <-wrote)

	stuck(3, 2*mib)
	noErr(t, p.closeLayer(ctx, "vol_a"))
	wantCode(t, <-wrote, drover.Internal) // what a client is told of a connection that has ended
	noErr(t, p.limit(ctx, "vol_a", drover.Limits{}))
	must[drover.Attachment](t)(p.open(ctx, "vol_a", 2))
	s = must[*session](t)(l.connect(2, "", nil))
	same(t, s, 0, pattern(3, mib))
	same(t, s, mib, pattern(2, mib))
	same(t, s, 2*mib, make([]byte, mib))
}

// What reads an export, or looks on, is not the writer, and is not bounded.
func TestLimitsAreTheWritersAlone(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	ctx := t.Context()
	h.create("vol_a", 4*drover.MiB)
	c := h.open("vol_a", 1)
	noErr(t, c.WriteAt(ctx, pattern(1, mib), 0, true))
	noErr(t, h.Limit(ctx, "vol_a", hardly))
	noErr(t, c.ReadAt(ctx, make([]byte, mib), 0))
	reader := h.dial("vol_a")
	for range 20 {
		same(t, reader, 0, pattern(1, mib))
	}
}

// same fails unless the range reads as wanted.
func same(t *testing.T, c interface {
	ReadAt(ctx context.Context, p []byte, off int64) error
}, off int64, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	noErr(t, c.ReadAt(t.Context(), got, off))
	if string(got) != string(want) {
		t.Errorf("other data at %d", off)
	}
}
