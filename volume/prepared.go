package volume

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync/atomic"
	"time"

	"drover"
	"drover/vhostuser"
)

// preparedRecord is a socket that was made for a VM before the layer may be opened. It is served again after a restart of the daemon.
type preparedRecord struct {
	// Token names the socket: who prepares again with the same token gets the same one.
	Token string `json:"token"`
	// Epoch is the one at which the layer was opened afterwards; 0 while the VM's requests wait. It is set once.
	Epoch drover.Epoch `json:"epoch,omitempty"`
}

// lateOpen is what a socket waits for that is served before its layer is open.
type lateOpen struct {
	// ctx ends with the socket.
	ctx    context.Context
	cancel context.CancelCauseFunc
	// opened is closed when epoch says at which epoch the layer was opened.
	opened chan struct{}
	epoch  drover.Epoch
}

// preparedSocket is where a layer is served for a token.
func preparedSocket(run string, id drover.LayerID, token string) string {
	sum := sha256.Sum256([]byte(string(id) + "@prepared@" + token))
	return filepath.Join(run, vhostDir, fmt.Sprintf("%x.sock", sum[:8]))
}

// prepare makes a socket on which a VM can connect to the layer before it is open. Nothing is read or written until open binds it to an
// epoch: requests wait, in the guest's memory.
func (p *pool) prepare(ctx context.Context, id drover.LayerID, token string) (drover.Attachment, error) {
	if !validLayerID(drover.LayerID(token)) {
		return drover.Attachment{}, drover.Errorf(drover.Invalid, "%q is no token for layer %s", token, id).WithField("token")
	}
	l, done, err := p.turnOf(ctx, id)
	if err != nil {
		return drover.Attachment{}, err
	}
	defer done()
	m := l.meta()
	switch r := m.Prepared; {
	case r != nil && r.Token == token:
	case r != nil && r.Epoch == 0:
		return drover.Attachment{}, drover.Errorf(drover.Conflict, "layer %s is prepared for %s already", id, r.Token)
	case m.State != drover.LayerReady:
		return drover.Attachment{}, drover.Errorf(drover.Precondition, "cannot prepare layer %s: it is %s", id, m.State)
	case m.Writer != 0:
		return drover.Attachment{}, drover.Errorf(drover.Precondition, "cannot prepare layer %s: it is open at epoch %d", id, m.Writer)
	default:
		if err := l.update(func(m *meta) { m.Prepared = &preparedRecord{Token: token} }); err != nil {
			return drover.Attachment{}, err
		}
	}
	p.cfg.Faults.Hit("volume.prepare.recorded")
	path := p.servePrepared(l)
	p.wg.Go(func() { l.reachParent(p.ctx) })
	return drover.Attachment{Transport: drover.TransportVhost, Socket: path, VhostSocket: path}, nil
}

// unprepare takes the socket away that was made for the token, and ends its connections. No error when there is none.
func (p *pool) unprepare(ctx context.Context, id drover.LayerID, token string) error {
	l, done, err := p.turnOf(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	if r := l.meta().Prepared; r == nil || r.Token != token {
		return nil
	}
	l.endPrepared()()
	return l.update(func(m *meta) { m.Prepared = nil })
}

// servePrepared serves the VM of the layer's record, unless it is served already, and returns where it has to listen; nothing when there is no VM to
// serve. The caller has the layer's turn.
func (p *pool) servePrepared(l *layer) string {
	r := l.meta().Prepared
	l.mu.Lock()
	there, writable := l.prepared != nil, l.writable
	l.mu.Unlock()
	if r == nil || r.Epoch != 0 && r.Epoch != writable {
		return ""
	}
	path := preparedSocket(p.run, l.id, r.Token)
	if there {
		return path
	}
	late := &lateOpen{opened: make(chan struct{})}
	late.ctx, late.cancel = context.WithCancelCause(context.Background())
	e := p.newVhostExport(l, 0, path, late)
	l.mu.Lock()
	l.prepared = e
	l.mu.Unlock()
	if r.Epoch != 0 {
		l.bindPrepared(r.Epoch)
	} else {
		l.expect(true, 0)
	}
	return path
}

// arrival is how long after a VM was let in the copy keeps out of its way: the first that it does is to flush what it wrote on the way.
const arrival = time.Second

// expect says whether a VM is about to go on with the layer, and for how long the copy keeps out of its way after it was let in.
func (l *layer) expect(coming bool, arrives time.Duration) {
	c, err := l.use()
	if err != nil {
		return // it is being withdrawn
	}
	if o := c.enter(); o != nil {
		o.expected.Store(coming)
		if arrives > 0 {
			o.guest.touchFor(arrives)
		}
		o.leave()
	}
	if err := c.close(); err != nil {
		l.log.Warn("cannot let go of a layer's content", "err", err)
	}
}

// reachParent connects to the layer's parent for the guest that is to come, and reads nothing.
func (l *layer) reachParent(ctx context.Context) {
	c, err := l.use()
	if err != nil {
		return // it is being withdrawn
	}
	up, remote := c.parent.(*parent)
	if remote {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		for _, who := range []class{guestClass, aheadClass} {
			if _, err := up.connect(ctx, up.linkFor(who)); err != nil {
				l.log.Info("cannot reach the parent of a prepared layer yet", "err", err) // its guest will try again
			}
		}
	}
	if err := c.close(); err != nil {
		l.log.Warn("cannot let go of a layer's content", "err", err)
	}
}

// learnParent asks the parent of a layer that was just opened for a guest which blocks it has, before the guest has to.
func (l *layer) learnParent(ctx context.Context) {
	c, err := l.use()
	if err != nil {
		return // it is being withdrawn
	}
	if o := c.enter(); o != nil {
		if src := o.src.Load(); src != nil {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			if err := c.learn(ctx, o, src, 0, min(src.blocks, learnChunks*chunkBlocks), aheadClass); err != nil {
				l.log.Info("cannot learn what the parent has yet", "err", err) // its guest asks itself
			}
		}
		o.leave()
	}
	if err := c.close(); err != nil {
		l.log.Warn("cannot let go of a layer's content", "err", err)
	}
}

// learnChunks is how much of a parent is asked about before the guest asks: 16 GiB, which takes 64 questions.
const learnChunks = 64

// bindPrepared lets the requests of a prepared socket in, at the epoch, and reports whether it has. A socket is bound once; the caller has the
// layer's turn.
func (l *layer) bindPrepared(epoch drover.Epoch) bool {
	l.mu.Lock()
	e := l.prepared
	l.mu.Unlock()
	if e == nil || e.late.epoch != 0 {
		return false
	}
	e.late.epoch = epoch
	l.expect(false, arrival)
	close(e.late.opened)
	return true
}

// bind is the change of the record that belongs to bindPrepared. A socket that was bound to an older epoch is not served any more.
func (m *meta) bind(epoch drover.Epoch) {
	switch r := m.Prepared; {
	case r == nil || r.Epoch == epoch:
	case r.Epoch == 0:
		m.Prepared = &preparedRecord{Token: r.Token, Epoch: epoch}
	default:
		m.Prepared = nil
	}
}

// endPrepared takes a prepared socket away, if there is one. The function that it returns waits until nothing of its connections is left.
func (l *layer) endPrepared() (wait func()) {
	l.mu.Lock()
	e := l.prepared
	l.prepared = nil
	l.mu.Unlock()
	if e == nil {
		return func() {}
	}
	e.cancel()
	l.expect(false, 0)
	return func() {
		ends := drover.Errorf(drover.Unavailable, "layer %s: %w", l.id, errVhostEnds)
		l.cut(ends, func(s *session) bool { return s.late == e.late }, false)
		e.late.cancel(ends)
		e.wg.Wait()
		e.unlink()
	}
}

// lateBackend is the content of a disk that is not open yet. The device calls it only after its Start has returned, and that is when the
// session is there.
type lateBackend struct{ to atomic.Pointer[session] }

var (
	_ vhostuser.Backend = (*lateBackend)(nil)
	_ vhostuser.Trier   = (*lateBackend)(nil)
)

func (b *lateBackend) ReadVec(ctx context.Context, iov [][]byte, off int64) error {
	return b.to.Load().ReadVec(ctx, iov, off)
}

func (b *lateBackend) WriteVec(ctx context.Context, iov [][]byte, off int64) error {
	return b.to.Load().WriteVec(ctx, iov, off)
}

func (b *lateBackend) Flush(ctx context.Context) error { return b.to.Load().Flush(ctx) }

func (b *lateBackend) Discard(ctx context.Context, off, n int64, fua bool) error {
	return b.to.Load().Discard(ctx, off, n, fua)
}

func (b *lateBackend) Zero(ctx context.Context, off, n int64, keep, fua bool) error {
	return b.to.Load().Zero(ctx, off, n, keep, fua)
}

func (b *lateBackend) TryReadVec(iov [][]byte, off int64) (bool, error) {
	return b.to.Load().TryReadVec(iov, off)
}

func (b *lateBackend) TryWriteVec(iov [][]byte, off int64) (bool, error) {
	return b.to.Load().TryWriteVec(iov, off)
}

// serveLate serves one connection of a VM that may have to wait for its layer, to its end.
func (e *vhostExport) serveLate(conn *net.UnixConn, hangup func()) {
	ctx, cancel := context.WithCancelCause(e.late.ctx)
	defer cancel(nil)
	c := &lateConnection{export: e, ctx: ctx, cancel: cancel, gone: make(chan struct{})}
	spec := e.layer.meta().Spec
	c.device = vhostuser.New(vhostuser.Config{Backend: &c.backend, Size: int64(spec.Size), Serial: string(spec.Disk), Gone: c.gone, Log: e.log,
		Faults: e.pool.cfg.Faults, Start: c.begin, Hangup: hangup})
	if err := c.device.Serve(ctx, conn); err != nil {
		e.log.Warn("a vhost-user connection ended with an error", "err", err)
	}
	if s := c.backend.to.Load(); s != nil {
		s.Close()
	}
}

// mayServe says why a connection could not begin; that it has to wait for its layer is no reason.
func (e *vhostExport) mayServe() error {
	select {
	case <-e.late.opened:
		_, err := e.pool.keyFor(e.layer)
		return err
	default:
		return nil
	}
}

// lateConnection is one connection of a prepared socket.
type lateConnection struct {
	export  *vhostExport
	ctx     context.Context
	cancel  context.CancelCauseFunc
	device  *vhostuser.Device
	backend lateBackend
	// gone is closed by the session, once there is one.
	gone chan struct{}
}

// begin waits until the layer is open, and makes the connection one of its sessions. No ring runs before it has returned.
func (c *lateConnection) begin() error {
	e := c.export
	select {
	case <-e.late.opened:
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	}
	key, err := e.pool.keyFor(e.layer)
	if err != nil {
		return err
	}
	s, err := e.layer.connectLate(e.late, c.gone, key)
	if err != nil {
		return err
	}
	c.backend.to.Store(s)
	s.device.Store(c.device)
	context.AfterFunc(s.ctx, func() { c.cancel(s.ended()) })
	e.follow(s, c.device, 0)
	return e.takeOver(s)
}

// flush makes durable what was written to the layer before.
func (p *pool) flush(ctx context.Context, id drover.LayerID) error {
	l, err := p.find(id)
	if err != nil {
		return err
	}
	c, err := l.use()
	if err != nil {
		return err
	}
	return errors.Join(c.Flush(ctx), c.close())
}
