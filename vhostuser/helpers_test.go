package vhostuser

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"drover"
	"drover/vhostuser/vhosttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// disk is a Backend in memory. A request whose offset is held waits until it is let go.
type disk struct {
	mu     sync.Mutex
	data   []byte
	log    []string
	held   map[int64]chan struct{}
	trying bool
	fail   error
}

func newDisk(n int) *disk {
	return &disk{data: make([]byte, n), held: map[int64]chan struct{}{}, trying: true}
}

// hold makes requests at the offset wait; let go by the function it returns.
func (d *disk) hold(off int64) (release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ch := make(chan struct{})
	d.held[off] = ch
	return func() {
		d.mu.Lock()
		delete(d.held, off)
		d.mu.Unlock()
		close(ch)
	}
}

// change changes the disk under its lock.
func (d *disk) change(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// content copies what the disk has: a guest that sees a completion before it is told is not ordered with the device in the race detector's eyes.
func (d *disk) content(off, n int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.data[off : off+n])
}

func (d *disk) note(what string, off int64) { d.log = append(d.log, what+" "+itoa(off)) }

func (d *disk) notes() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.log)
}

func itoa(n int64) string { return string(slog.Int64Value(n).String()) }

func (d *disk) wait(ctx context.Context, what string, off int64) error {
	d.mu.Lock()
	d.note(what, off)
	ch, err := d.held[off], d.fail
	d.mu.Unlock()
	if ch != nil {
		select {
		case <-ch:
		case <-ctx.Done():
			return drover.Errorf(drover.Canceled, "cancelled: %w", context.Cause(ctx))
		}
	}
	return err
}

func (d *disk) ReadVec(ctx context.Context, iov [][]byte, off int64) error {
	if err := d.wait(ctx, "read", off); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range iov {
		off += int64(copy(p, d.data[off:]))
	}
	return nil
}

func (d *disk) WriteVec(ctx context.Context, iov [][]byte, off int64) error {
	if err := d.wait(ctx, "write", off); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range iov {
		off += int64(copy(d.data[off:], p))
	}
	return nil
}

func (d *disk) Flush(ctx context.Context) error { return d.wait(ctx, "flush", 0) }

func (d *disk) Discard(ctx context.Context, off, n int64, _ bool) error {
	if err := d.wait(ctx, "discard", off); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.data[off : off+n])
	return nil
}

func (d *disk) Zero(ctx context.Context, off, n int64, keep, _ bool) error {
	what := "zero"
	if keep {
		what = "zero-keep"
	}
	if err := d.wait(ctx, what, off); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.data[off : off+n])
	return nil
}

func (d *disk) TryReadVec(iov [][]byte, off int64) (bool, error) {
	d.mu.Lock()
	ok := d.trying && d.held[off] == nil
	d.mu.Unlock()
	if !ok {
		return false, nil
	}
	return true, d.ReadVec(context.Background(), iov, off)
}

func (d *disk) TryWriteVec(iov [][]byte, off int64) (bool, error) {
	d.mu.Lock()
	ok := d.trying && d.held[off] == nil
	d.mu.Unlock()
	if !ok {
		return false, nil
	}
	return true, d.WriteVec(context.Background(), iov, off)
}

// rig is a device, its disk, and a frontend that is connected to it.
type rig struct {
	*vhosttest.Frontend
	t    testing.TB
	disk *disk
	dev  *Device
	done chan error
}

func newRig(t testing.TB, f *vhosttest.Frontend, d *disk, change func(*Config)) *rig {
	t.Helper()
	r := &rig{Frontend: f, t: t, disk: d}
	cfg := Config{Backend: d, Size: int64(len(d.data)), Serial: "vol_0123456789abcdef"}
	if change != nil {
		change(&cfg)
	}
	r.dev = New(cfg)
	conn := f.SocketPair()
	r.done = make(chan error, 1)
	go func() { r.done <- r.dev.Serve(context.Background(), conn) }()
	t.Cleanup(r.dev.Stop)
	return r
}

// begin makes a rig whose ring runs.
func begin(t testing.TB, num int) *rig {
	t.Helper()
	r := newRig(t, vhosttest.NewFrontend(vhosttest.NewGuest(t, num)), newDisk(1<<20), nil)
	r.Begin(0)
	return r
}

// kill ends the device as the end of its process would: nothing more is written to guest memory.
func (r *rig) kill() {
	r.t.Helper()
	r.dev.Stop()
	r.Detach()
}

// next connects the frontend to another device over the same disk, as a daemon that was restarted.
func (r *rig) next(change func(*Config)) *rig {
	r.t.Helper()
	n := newRig(r.t, r.Frontend, r.disk, change)
	return n
}

func pattern(seed byte, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = seed + byte(i*7)
	}
	return p
}
