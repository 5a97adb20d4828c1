package nbd

import (
	"bufio"
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"drover"
)

// Bounds of one connection.
const (
	// maxInFlight is how many requests may be without a written reply.
	maxInFlight = 128
	// maxInFlightBytes is how much data they may hold.
	maxInFlightBytes = 64 << 20
	// maxInline is the longest request that the reading goroutine may execute itself.
	maxInline = 64 << 10
	// maxUnsent is how much of its own replies the reading goroutine keeps before it writes.
	maxUnsent = 256 << 10
	// keptWorkers is how many goroutines stay when there is nothing to do.
	keptWorkers = 16
	// readBuffer is how much is read from the socket at once.
	readBuffer = 128 << 10
	// hangUpCheck is how often the reading goroutine, while it cannot read, looks whether the client is still there.
	hangUpCheck = time.Second
)

// transmission is the second phase of a connection (section "Transmission"). One goroutine reads requests. What can be done at once
// (TryReader, TryWriter, refusals) it does itself, so that a lone request costs no switch of goroutines; anything that may wait
// goes to a worker. Workers are as many as there are requests in flight, so one request never waits for another, up to the bounds
// above; past them the connection is not read. Replies are written by whoever has one while nobody else writes; all that
// were added meanwhile go out with the next write.
type transmission struct {
	srv  *Server
	conn *conn
	agreement
	rules  rules
	reader TryReader   // nil: none
	writer TryWriter   // nil: none
	zeroes ZeroFinder  // nil: none
	pieces PieceReader // nil: none
	packer *packer     // nil: nothing is compressed

	br      *bufio.Reader
	workers sync.WaitGroup
	work    chan *request // never blocks: it has room for every request in flight
	freed   chan struct{} // room, while waiting is set
	timer   *time.Timer   // of the reading goroutine's wait for room

	mu      sync.Mutex // guards what follows
	idle    int        // workers that wait, less the requests in work
	flying  int
	bytes   int
	waiting bool
	writing bool       // somebody writes, and looks at unsent again before it stops
	unsent  []*request // replies to be written
	spare   []*request // the empty slice that unsent changes places with
	parts   [][]byte   // of whoever writes
}

func newTransmission(s *Server, c *conn, agreed *agreement) *transmission {
	t := &transmission{
		srv: s, conn: c, agreement: *agreed,
		rules: rules{size: uint64(agreed.session.Info.Size), readOnly: agreed.session.Info.ReadOnly, status: len(agreed.contexts) > 0},
		work:  make(chan *request, maxInFlight),
		freed: make(chan struct{}, 1),
		timer: time.NewTimer(hangUpCheck),
	}
	t.timer.Stop()
	t.reader, _ = agreed.session.Backend.(TryReader)
	t.writer, _ = agreed.session.Backend.(TryWriter)
	t.zeroes, _ = agreed.session.Backend.(ZeroFinder)
	t.pieces, _ = agreed.session.Backend.(PieceReader)
	if agreed.compressed {
		t.packer = &packer{encoder: s.encoder, linkRate: s.cfg.linkRate(c.raw)}
	}
	return t
}

// run serves requests until the connection ends, waits for those that are in flight, and closes the session.
func (t *transmission) run(ctx context.Context, br *bufio.Reader) error {
	t.br = bufio.NewReaderSize(br, readBuffer)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-t.session.Gone:
			t.conn.end(errExportGone)
		case <-ctx.Done():
		}
	})
	err := t.readRequests(ctx)
	if errors.Is(err, errDisconnect) {
		// The protocol wants outstanding requests to be done first.
		late := time.AfterFunc(disconnectTimeout, func() { t.conn.end(errSlowEnd) })
		defer late.Stop()
		t.flush()
	} else {
		t.conn.end(err)
	}
	close(t.work)
	t.workers.Wait()
	if t.session.Close != nil {
		t.session.Close() // before the client can see the end and come back
	}
	t.conn.close()
	watch.Wait()
	return err
}

// readRequests returns why there are no more.
func (t *transmission) readRequests(ctx context.Context) error {
	for {
		if t.br.Buffered() < requestSize {
			t.flush()
		}
		b, err := t.br.Peek(requestSize)
		if err != nil {
			return err
		}
		h, ok := parseRequest(b)
		if !ok {
			return drover.Errorf(drover.Invalid, "the client's request begins with % x", b[:4])
		}
		if _, err := t.br.Discard(requestSize); err != nil {
			return err
		}
		if h.kind == cmdDisc {
			return errDisconnect
		}
		if err := t.take(ctx, h); err != nil {
			return err
		}
	}
}

// take reads the rest of a request and sees to it.
func (t *transmission) take(ctx context.Context, h requestHeader) error {
	if no := t.rules.check(h); no.errno != errnoNone {
		return t.refuse(ctx, h, no)
	}
	cost := 0
	if h.kind == cmdRead || h.kind == cmdWrite {
		cost = int(h.length)
	}
	if h.kind == cmdRead && t.packer != nil {
		cost *= 2 // while it is compressed it is there twice
	}
	r, err := t.admit(ctx, h, cost)
	if err != nil {
		return err
	}
	if cost > 0 {
		r.data = t.srv.buffers.get(int(h.length))
	}
	if h.kind == cmdWrite {
		if t.br.Buffered() < cost {
			t.flush()
		}
		if _, err := io.ReadFull(t.br, r.payload()); err != nil {
			return err // r is dropped: nobody counts any more
		}
	}
	if t.try(r) {
		t.keep(r)
	} else {
		t.dispatch(ctx, r)
	}
	return nil
}

// refuse answers a request that must not reach the Backend.
func (t *transmission) refuse(ctx context.Context, h requestHeader, no refusal) error {
	if h.kind == cmdWrite {
		t.flush()
		if _, err := io.CopyN(io.Discard, t.br, int64(h.length)); err != nil {
			return err
		}
	}
	r, err := t.admit(ctx, h, 0)
	if err != nil {
		return err
	}
	t.conn.log.Debug("NBD request refused", "command", h.kind, "errno", no.errno, "why", no.text)
	r.fail(t.structured, no.errno, no.text)
	t.keep(r)
	return nil
}

// admit waits until there is room for a request with so much data.
func (t *transmission) admit(ctx context.Context, h requestHeader, cost int) (*request, error) {
	t.mu.Lock()
	for !t.hasRoomLocked(cost) {
		t.waiting = true
		t.mu.Unlock()
		t.flush() // what was not sent takes room too
		if err := t.awaitRoom(ctx); err != nil {
			return nil, err
		}
		t.mu.Lock()
	}
	t.flying++
	t.bytes += cost
	t.mu.Unlock()
	r, ok := t.srv.requests.Get().(*request)
	if !ok {
		r = new(request)
	}
	r.requestHeader, r.cost = h, cost
	return r, nil
}

func (t *transmission) hasRoomLocked(cost int) bool {
	return t.flying < maxInFlight && t.bytes+cost <= maxInFlightBytes
}

// awaitRoom returns when a request has left since waiting was set. It does not read the connection meanwhile,
// so it asks for the client's end now and then.
func (t *transmission) awaitRoom(ctx context.Context) error {
	t.timer.Reset(hangUpCheck)
	defer t.timer.Stop()
	for {
		select {
		case <-t.freed:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.timer.C:
			if hungUp(t.conn.raw) {
				return errClientHungUp
			}
			t.timer.Reset(hangUpCheck)
		}
	}
}

// dispatch gives a request to a worker: a waiting one, else a new one. There are never more than requests in flight.
func (t *transmission) dispatch(ctx context.Context, r *request) {
	t.mu.Lock()
	waiting := t.idle > 0
	if waiting {
		t.idle--
	}
	t.mu.Unlock()
	if waiting {
		t.work <- r
		return
	}
	t.workers.Go(func() { t.serve(ctx, r) })
}

// serve is a worker: it executes one request after another.
func (t *transmission) serve(ctx context.Context, r *request) {
	for ok := true; ok; r, ok = <-t.work {
		t.execute(ctx, r)
		t.complete(r)
		t.mu.Lock()
		enough := t.idle >= keptWorkers
		if !enough {
			t.idle++
		}
		t.mu.Unlock()
		if enough {
			return
		}
	}
}
