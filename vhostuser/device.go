package vhostuser

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"drover"
)

// Device serves one connection of a frontend. It is made by New, served by Serve, once, and done with when Serve returns.
type Device struct {
	cfg   Config
	log   *slog.Logger
	trier Trier
	size  atomic.Int64

	// The goroutine of Serve owns what follows. Queues read features, mem and inflight when they hold their mu.
	ch        *channel
	features  uint64
	protocol  uint64
	mem       *memory
	inflight  *inflightArea
	queueList [maxQueues]*queue
	started   bool
	greeted   bool

	dirty   atomic.Pointer[dirtyLog] // changed under every queue's usedMu
	logging atomic.Bool

	ctx     context.Context
	cancel  context.CancelFunc
	work    chan *request
	idle    atomic.Int64
	workers sync.WaitGroup
	queues  sync.WaitGroup
	stopped chan struct{}

	mu       sync.Mutex
	conn     *net.UnixConn
	stopping bool
	// backendFD is the connection on which the frontend is told of changes; -1 without.
	backendFD int
	// resumed: the frontend began in the middle (see greet).
	resumed bool
}

// New makes a device.
func New(cfg Config) *Device {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	d := &Device{cfg: cfg, work: make(chan *request), stopped: make(chan struct{}), backendFD: -1}
	d.log = slog.New(&sparse{Handler: cfg.Log.Handler(), some: &rate.Sometimes{First: 10, Interval: 10 * time.Second}})
	d.trier, _ = cfg.Backend.(Trier)
	d.size.Store(cfg.Size)
	d.ctx, d.cancel = context.WithCancel(context.Background())
	for i := range d.queueList {
		d.queueList[i] = newQueue(d, i)
	}
	return d
}

// sparse keeps a guest that makes mistakes all the time from filling the log.
type sparse struct {
	slog.Handler
	some *rate.Sometimes
}

func (s *sparse) Handle(ctx context.Context, r slog.Record) (err error) {
	s.some.Do(func() { err = s.Handler.Handle(ctx, r) })
	return err
}

// Serve serves the connection until the frontend closes it, ctx ends, or Stop is called, and closes it. It returns an error when the
// frontend says what cannot be understood.
func (d *Device) Serve(ctx context.Context, conn *net.UnixConn) error {
	defer close(d.stopped)
	d.mu.Lock()
	d.conn = conn
	gone := d.stopping
	d.mu.Unlock()
	end := context.AfterFunc(ctx, d.halt)
	defer end()
	if gone {
		d.halt()
	}
	d.ch = newChannel(conn)
	err := d.converse()
	if d.cfg.Hangup != nil {
		d.cfg.Hangup()
	}
	d.halt()
	end()
	err = errors.Join(err, d.tearDown())
	return err
}

// converse answers messages until the connection ends.
func (d *Device) converse() error {
	for {
		m, err := d.ch.receive()
		if err == nil {
			err = errors.Join(d.answer(m), m.close())
		}
		switch {
		case err == nil:
		case d.ctx.Err() != nil, errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
			return nil // the other side's descriptors and rings are its own to clean up
		default:
			return err
		}
	}
}

// halt makes sure that nothing is written to guest memory any more, and ends the conversation. It does not wait.
func (d *Device) halt() {
	for _, q := range d.queueList {
		q.abandon()
	}
	d.cancel()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopping = true
	if d.conn != nil {
		if err := d.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			d.log.Warn("cannot close a vhost-user connection", "err", err)
		}
	}
}

// Stop ends the connection. When it returns, nothing of the guest's memory is touched any more and no call of the Backend runs. A device
// that is never served must not be stopped.
func (d *Device) Stop() {
	d.halt()
	<-d.stopped
}

// tearDown ends the queues and gives everything back.
func (d *Device) tearDown() error {
	var errs []error
	for _, q := range d.queueList {
		q.mu.Lock()
		q.haltLocked()
		q.mu.Unlock()
	}
	d.queues.Wait()
	d.workers.Wait()
	for _, q := range d.queueList {
		errs = append(errs, closeFD(q.call), closeFD(q.failFD))
		q.call, q.failFD = -1, -1
	}
	d.mem.release()
	if d.inflight != nil {
		errs = append(errs, unmap(d.inflight.mem))
	}
	if log := d.dirty.Swap(nil); log != nil {
		errs = append(errs, unmap(log.mem))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	errs = append(errs, closeFD(d.backendFD))
	d.backendFD = -1
	if err := errors.Join(errs...); err != nil {
		return drover.Errorf(drover.Internal, "cannot end a vhost-user connection in order: %w", err)
	}
	return nil
}

// Resize gives the disk another size and tells the guest, if the frontend can be told.
func (d *Device) Resize(size int64) error {
	d.size.Store(size)
	d.mu.Lock()
	resumed := d.resumed && d.backendFD < 0
	d.mu.Unlock()
	if resumed {
		d.halt() // the guest uses the disk by now: the next connection begins at the beginning, and there it is told
		return nil
	}
	return d.tellSize()
}

// tellSize tells the frontend to ask for the size, if it can be told.
func (d *Device) tellSize() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.backendFD < 0 {
		return nil // it is asked for the size when it connects
	}
	b := order.AppendUint32(nil, backendConfigChange)
	b = order.AppendUint32(b, flagVersion)
	b = order.AppendUint32(b, 0)
	if err := unix.Sendto(d.backendFD, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil); err != nil {
		return drover.Errorf(drover.Unavailable, "cannot tell the VM that its disk has %d bytes now: %w", d.size.Load(), err)
	}
	return nil
}

// leaving reports whether the content is being taken away, so that a request that fails has not failed for the guest.
func (d *Device) leaving() bool {
	select {
	case <-d.cfg.Gone:
		return true
	default:
		return d.ctx.Err() != nil
	}
}

// FaultPoints lists the places at which a fault can be armed, before a ring begins.
func FaultPoints() []string {
	return []string{
		"vhostuser.complete.begun",
		"vhostuser.complete.published",
		"vhostuser.complete.recorded",
		"vhostuser.take.begun",
		"vhostuser.take.recorded",
	}
}
