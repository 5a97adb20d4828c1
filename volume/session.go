package volume

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"drover"
	"drover/nbd"
	"drover/vhostuser"
)

// session is one connection to a layer. It implements nbd.Backend. Once cut has returned, no request of it runs and none can begin.
type session struct {
	layer *layer
	epoch drover.Epoch // 0: read-only
	host  drover.HostID
	seq   uint64
	// key is the layer's, nil for one that is not encrypted and for a host that reads an export: it gets ciphertext.
	key *diskKey
	// peer is who connected over NBD; nil for a VM over vhost-user-blk.
	peer *nbd.Peer
	// writer: it took the right to write. Whoever loses it is ended.
	writer atomic.Bool
	// since is a layer below that the reader has a copy of; empty for none.
	since drover.LayerID

	ctx    context.Context
	cancel context.CancelCauseFunc
	gone   chan struct{}
	once   sync.Once
	// gate lets requests in that change nothing, writes those that do.
	gate, writes gate
	// resized is called when the layer has grown; nil for a connection whose client cannot be told.
	resized atomic.Pointer[func(size int64)]
	// late is the prepared socket that the connection came by; nil for any other.
	late *lateOpen
	// device is what serves a connection over vhost-user-blk; nil for NBD.
	device atomic.Pointer[vhostuser.Device]
}

var (
	_ nbd.Backend     = (*session)(nil)
	_ nbd.TryReader   = (*session)(nil)
	_ nbd.TryWriter   = (*session)(nil)
	_ nbd.PieceReader = (*session)(nil)
)

// connectNBD registers a connection of a client of NBD.
func (l *layer) connectNBD(epoch drover.Epoch, host drover.HostID, key *diskKey, peer nbd.Peer) (*session, error) {
	return l.register(&session{epoch: epoch, host: host, key: key, peer: &peer, gone: make(chan struct{})})
}

// connect registers a connection. epoch 0 is read-only, host is empty for a local one, and key is what keyFor says.
func (l *layer) connect(epoch drover.Epoch, host drover.HostID, key *diskKey) (*session, error) {
	return l.register(&session{epoch: epoch, host: host, key: key, gone: make(chan struct{})})
}

// connectLate registers a connection of a prepared socket, whose layer is open by now. gone is closed when it is ended.
func (l *layer) connectLate(late *lateOpen, gone chan struct{}, key *diskKey) (*session, error) {
	return l.register(&session{epoch: late.epoch, late: late, key: key, gone: gone})
}

func (l *layer) register(s *session) (*session, error) {
	epoch, host := s.epoch, s.host
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.withdrawn {
		return nil, drover.Errorf(drover.NotFound, "layer %s is being withdrawn", l.id)
	}
	if epoch != 0 && l.writable != epoch {
		return nil, l.notOpenAt(epoch)
	}
	if host != "" && !slices.Contains(l.meta().Exports, host) { // looked at under mu: Unexport cuts after it changed the record
		return nil, drover.Errorf(drover.Denied, "layer %s is not exported to host %s", l.id, host)
	}
	l.sequence++
	s.layer, s.seq = l, l.sequence
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	l.valve.apply(s)
	l.sessions[s] = struct{}{}
	return s, nil
}

// notOpenAt says why nobody may write at the epoch.
func (l *layer) notOpenAt(epoch drover.Epoch) error {
	switch m := l.meta(); {
	case m.State != drover.LayerReady:
		return drover.Errorf(drover.Precondition, "layer %s is not open for writing: it is %s", l.id, m.State)
	case l.writable > epoch:
		return drover.Errorf(drover.Conflict, "stale epoch %d for layer %s: it is open at %d", epoch, l.id, l.writable)
	case l.writable == 0:
		return drover.Errorf(drover.Conflict, "layer %s is not open for writing, neither at epoch %d nor at any other", l.id, epoch)
	}
	return drover.Errorf(drover.Conflict, "layer %s is open at epoch %d, not at %d", l.id, l.writable, epoch)
}

// cut ends the connections that which picks, and returns when none of their requests runs any more.
func (l *layer) cut(cause error, which func(*session) bool, withdraw bool) {
	l.mu.Lock()
	l.withdrawn = l.withdrawn || withdraw
	var picked []*session
	for s := range l.sessions {
		if which(s) {
			picked = append(picked, s)
		}
	}
	l.mu.Unlock()
	for _, s := range picked {
		s.end(cause)
	}
}

// endWriter takes the right to write away, and returns when no write can land any more.
func (l *layer) endWriter(cause error) {
	l.mu.Lock()
	l.writable = 0
	l.mu.Unlock()
	wait, waitPrepared := l.endVhost(), l.endPrepared()
	l.cut(cause, func(s *session) bool { return s.epoch != 0 }, false)
	wait()
	waitPrepared()
}

// setWritable lets connections write at the epoch.
func (l *layer) setWritable(epoch drover.Epoch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writable = epoch
}

// end is called by whoever ends the session, any number of times; each call returns when no request runs any more.
func (s *session) end(cause error) {
	s.once.Do(func() {
		close(s.gone) // first, so that the client sees a lost connection and no error
		s.cancel(cause)
		s.writes.shut()
		s.gate.shut()
		if d := s.device.Load(); d != nil {
			d.Stop() // its rings, too: they may be the next connection's
		}
		s.layer.mu.Lock()
		delete(s.layer.sessions, s)
		s.layer.mu.Unlock()
	})
}

// Close is called by the server when the connection has ended.
func (s *session) Close() {
	s.end(drover.Errorf(drover.Canceled, "the connection to layer %s has ended", s.layer.id))
}

// enter lets a request in. leave must be called when it succeeds. A write makes this session the one that writes. While the layer's
// content changes hands a request waits here, for milliseconds.
func (s *session) enter(write bool) error {
	if write {
		if err := s.takeOver(); err != nil {
			return err
		}
	}
	if !s.gateOf(write).enter() {
		return s.ended()
	}
	return nil
}

func (s *session) leave(write bool) { s.gateOf(write).leave() }

func (s *session) gateOf(write bool) *gate {
	if write {
		return &s.writes
	}
	return &s.gate
}

// onResize sets what is called when the layer has grown, from now on.
func (s *session) onResize(call func(size int64)) { s.resized.Store(&call) }

func (s *session) ended() error {
	cause := context.Cause(s.ctx)
	if cause == nil {
		cause = errors.New("it is ending")
	}
	return drover.Errorf(drover.Unavailable, "the connection to layer %s was ended: %w", s.layer.id, cause)
}

// takeOver ends older connections of the layer's writer before the first write of a newer one: a VM that connects again sends its
// unanswered requests again, and what is left of them on the old connection must not land later. Connections that one program has open at
// the same time are no such case: it writes over all of them.
func (s *session) takeOver() error {
	if s.writer.Load() {
		return nil
	}
	l := s.layer
	if s.epoch == 0 {
		return drover.Errorf(drover.Denied, "layer %s is open read-only on this connection", l.id)
	}
	l.takeoverMu.Lock()
	defer l.takeoverMu.Unlock()
	if s.ctx.Err() != nil {
		return s.ended()
	}
	l.cut(drover.Errorf(drover.Conflict, "a newer connection writes to layer %s at epoch %d", l.id, s.epoch),
		func(o *session) bool { return o.epoch != 0 && o.seq < s.seq && !s.beside(o) }, false)
	s.writer.Store(true)
	return nil
}

// beside reports whether both sessions are connections of one client of NBD, which has not given the other one up.
func (s *session) beside(o *session) bool {
	return s.peer != nil && o.peer != nil && s.peer.Process != 0 && s.peer.Process == o.peer.Process && !o.peer.HungUp()
}

// slow returns a context that ends with the request or with the session, for requests that may wait for the network.
func (s *session) slow(ctx context.Context, off, n int64) (context.Context, func()) {
	if s.layer.content().local(off, n) {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })
	return ctx, func() { stop(); cancel(nil) }
}

// forClient is what a client is told. Unavailable would make the server say that it shuts down, which
// an unreachable parent does not mean: the request has failed, the connection is good.
func forClient(err error) error {
	if drover.Is(err, drover.Unavailable) {
		return drover.Errorf(drover.Internal, "%w", err)
	}
	return err
}

// ReadAt is nbd.Backend's.
func (s *session) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := s.admit(ctx, int64(len(p))); err != nil {
		return forClient(err)
	}
	if err := s.enter(false); err != nil {
		return err
	}
	defer s.gate.leave()
	ctx, done := s.slow(ctx, off, int64(len(p)))
	defer done()
	if s.host != "" {
		return forClient(s.layer.content().ReadForOthers(ctx, p, off))
	}
	return forClient(s.plain(s.layer.content()).ReadAt(ctx, p, off))
}

// WriteAt is nbd.Backend's.
func (s *session) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	if err := s.admit(ctx, int64(len(p))); err != nil {
		return forClient(err)
	}
	return s.change(ctx, off, int64(len(p)), func(ctx context.Context, c plain) error { return c.WriteAt(ctx, p, off, fua) })
}

// Discard is nbd.Backend's.
func (s *session) Discard(ctx context.Context, off, n int64, fua bool) error {
	if err := s.admit(ctx, 0); err != nil { // one operation that moves no bytes
		return forClient(err)
	}
	return s.change(ctx, off, n, func(ctx context.Context, c plain) error { return c.Discard(ctx, off, n, fua) })
}

// Zero is nbd.Backend's.
func (s *session) Zero(ctx context.Context, off, n int64, keep, fua bool) error {
	if err := s.admit(ctx, 0); err != nil { // one operation that moves no bytes
		return forClient(err)
	}
	return s.change(ctx, off, n, func(ctx context.Context, c plain) error { return c.Zero(ctx, off, n, keep, fua) })
}

// change makes a request that changes something. One that finds no room in the pool waits for some, if it need not for too long: guests' file systems take a
// refused write very badly (ext4 becomes read-only, and may lose what it had promised). It waits before the gates, so that nobody waits with it.
func (s *session) change(ctx context.Context, off, n int64, do func(context.Context, plain) error) error {
	var until time.Time
	for {
		err := s.changeOnce(ctx, off, n, do)
		if !noRoom(err) {
			return err
		}
		now := time.Now()
		if until.IsZero() {
			until = s.layer.env.space.giveUpAt(now)
		}
		if !now.Before(until) {
			return err
		}
		if err := s.pause(ctx, retryRoom); err != nil {
			return err
		}
	}
}

// pause waits, unless the request or the session ends.
func (s *session) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.ctx.Done():
		return s.ended()
	}
}

func (s *session) changeOnce(ctx context.Context, off, n int64, do func(context.Context, plain) error) error {
	if err := s.enter(true); err != nil {
		return err
	}
	defer s.leave(true)
	ctx, done := s.slow(ctx, off, n)
	defer done()
	return forClient(do(ctx, s.plain(s.layer.content())))
}

// Flush is nbd.Backend's. A flush of a connection that cannot write has nothing to make durable.
func (s *session) Flush(ctx context.Context) error {
	if err := s.enter(false); err != nil {
		return err
	}
	defer s.gate.leave()
	if s.epoch == 0 {
		return nil
	}
	return s.layer.content().flushGuest(ctx)
}

// Extents is nbd.Backend's.
func (s *session) Extents(ctx context.Context, metaContext string, off, n int64) ([]nbd.Extent, error) {
	if err := s.enter(false); err != nil {
		return nil, err
	}
	defer s.gate.leave()
	ctx, done := s.slow(ctx, off, n)
	defer done()
	out, err := s.layer.content().extentsSince(ctx, s.sinceContent(), metaContext, off, n)
	return out, forClient(err)
}

// sinceContent returns what the layer holds that the reader has a copy of; nil for none. A layer that changes hands in this moment is not
// found: then more counts as present than must.
func (s *session) sinceContent() *content {
	if s.since == "" {
		return nil
	}
	for x := s.layer.below.Load(); x != nil; x = x.below.Load() {
		if x.id == s.since {
			return x.content()
		}
	}
	return nil
}

// TryReadAt is nbd.TryReader's: it reads what is present and in the page cache.
func (s *session) TryReadAt(p []byte, off int64) (done bool, err error) {
	paid, ok := s.tryAdmit(int64(len(p)))
	if !ok {
		return false, nil
	}
	defer func() {
		if !done {
			paid.giveBack()
		}
	}()
	if !s.gate.tryEnter() {
		return false, nil
	}
	defer s.gate.leave()
	c := s.layer.content()
	if s.host == "" {
		return s.plain(c).tryReadAt(p, off), nil
	}
	return c.inOneFile(off, int64(len(p)), func(h *content) bool { return h.readCached(p, off) }), nil
}

// TryReadPiece is nbd.PieceReader's. A request of a layer with limits is let in as a whole, by ReadAt; one that must be decrypted, or
// leaves the host, is better done by several goroutines.
func (s *session) TryReadPiece(p []byte, off int64) bool {
	if s.host != "" || s.key != nil || s.throttled() != nil || !s.gate.tryEnter() {
		return false
	}
	defer s.gate.leave()
	return s.layer.content().tryReadAt(p, off)
}

// TryWriteAt is nbd.TryWriter's: it writes to present blocks, into the page cache.
func (s *session) TryWriteAt(p []byte, off int64) (done bool, err error) {
	paid, ok := s.tryAdmit(int64(len(p)))
	if !ok {
		return false, nil
	}
	defer func() {
		if !done {
			paid.giveBack()
		}
	}()
	if !s.writer.Load() || !s.writes.tryEnter() {
		return false, nil
	}
	defer s.writes.leave()
	return s.plain(s.layer.content()).tryWriteAt(p, off)
}

// tryReadAt reads what needs no disk of a range that lies in one file, this content's or one's below. Whatever is in the way is left
// to ReadAt.
func (c *content) tryReadAt(p []byte, off int64) bool {
	read := c.inOneFile(off, int64(len(p)), func(h *content) bool { return h.readCached(p, off) })
	if read {
		c.readOn(off, int64(len(p)))
	}
	return read
}

// inOneFile calls do for the content whose data file has the whole range, this one or one below, if there is one.
func (c *content) inOneFile(off, n int64, do func(*content) bool) bool {
	if off+n > c.size {
		return false
	}
	o := c.enterReader()
	if o == nil {
		return do(c)
	}
	defer o.leave()
	first, end := blocksOf(off, n)
	if o.present.all(first, end) {
		return do(c)
	}
	if o.src.Load() != nil || !o.present.none(first, end) {
		return false
	}
	under, err := c.useUnder()
	if under == nil || err != nil {
		return false
	}
	defer under.release()
	return under.inOneFile(off, n, do)
}

// readOn tells the source of a guest's read that did not have to wait: what lies behind it may be wanted next.
func (c *content) readOn(off, n int64) {
	o := c.enter()
	if o == nil {
		return
	}
	defer o.leave()
	if src := o.src.Load(); src != nil {
		first, end := blocksOf(off, n)
		src.ahead.note(c, first, end, false)
	}
}

// readCached reads from the content's own file what is in the page cache. What is damaged is left to ReadAt, which says so.
func (c *content) readCached(p []byte, off int64) bool {
	f, ok := c.data.(osFile)
	if !ok {
		return false
	}
	n, err := unix.Preadv2(int(f.Fd()), [][]byte{p}, off, unix.RWF_NOWAIT)
	return err == nil && n == len(p) && c.checkRead(p, off) == nil
}

func (c *content) tryWriteAt(p []byte, off int64) (bool, error) {
	if c.checksWrite(off, int64(len(p))) {
		return false, nil
	}
	o := c.enterGuest()
	defer o.leave()
	first, end := blocksOf(off, int64(len(p)))
	if o != nil && !o.present.all(first, end) {
		return false, nil
	}
	if err := c.failure(); err != nil {
		return true, err
	}
	if !c.hasRoom(off, int64(len(p))) {
		return false, nil // WriteAt waits for some
	}
	if o != nil {
		o.unfetch(first, end)
	}
	err := c.data.WriteAt(p, off)
	c.dirty.Store(true)
	if o != nil {
		o.touch(first, end)
	}
	return true, ioError(c.name, "write", err)
}

// present reports whether the range is present in the data file.
func (c *content) present(off, n int64) bool {
	o := c.enterGuest()
	if o == nil {
		return true
	}
	defer o.leave()
	first, end := blocksOf(off, n)
	return o.present.all(first, end)
}
