package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"drover"
	"drover/nbd"
)

// remote is one connection to a parent's export (*nbd.Client).
type remote interface {
	ReadAt(ctx context.Context, p []byte, off int64) error
	Extents(ctx context.Context, metaContext string, off, n int64) ([]nbd.Extent, error)
	Size() int64
	// Count makes the connection add what it reads to t.
	Count(t *nbd.Traffic)
	// Done is closed when the connection has ended; Err then tells why.
	Done() <-chan struct{}
	Err() error
	Close() error
}

// dialFunc connects to an export of another host.
type dialFunc func(ctx context.Context, export drover.Export, contexts ...string) (remote, error)

const (
	// hydrationLinks is how many connections hydration uses, beside the guest's own.
	hydrationLinks = 2
	// sumLink is the connection on which checksums are asked for, aheadLink that of blocks that the guest may read next.
	sumLink   = 1 + hydrationLinks
	aheadLink = sumLink + 1
	linkCount = aheadLink + 1

	backoffMin  = 50 * time.Millisecond
	backoffMax  = 3 * time.Second
	dialTimeout = 5 * time.Second
	// silence is how long a request may wait while nothing at all comes over its connection.
	silence = 15 * time.Second
)

// parent is an export of another host. It connects when it is asked, and connects again when a connection broke, as long as somebody
// waits. It implements reader.
type parent struct {
	export atomic.Pointer[drover.Export]
	dial   dialFunc
	log    *slog.Logger
	links  [linkCount]link
	turn   atomic.Uint32
	// traffic counts what all links read.
	traffic nbd.Traffic
	// why is the trouble at present; nil when the parent answered last.
	why atomic.Pointer[string]
	// lost takes the parent's place once that was written off; nil before.
	lost atomic.Pointer[lostParent]
}

var _ reader = (*parent)(nil)

// link is one connection that is made again when it broke.
type link struct {
	mu   sync.Mutex
	conn remote
	// dialing is closed when the one who dials has ended; nil when nobody dials.
	dialing  chan struct{}
	failures int
	retryAt  time.Time
	// heard is when the last answer came over the connection.
	heard  time.Time
	closed bool
}

func newParent(export drover.Export, dial dialFunc, log *slog.Logger) *parent {
	p := &parent{dial: dial, log: log}
	p.export.Store(&export)
	return p
}

// moveTo makes the next connection go to the parent's new address.
func (p *parent) moveTo(export drover.Export) { p.export.Store(&export) }

// wire is how many bytes carried what was read.
func (p *parent) wire() drover.Bytes { return drover.Bytes(p.traffic.Wire.Load()) }

func (p *parent) trouble() string {
	if lost := p.lost.Load(); lost != nil {
		return lost.trouble()
	}
	if why := p.why.Load(); why != nil {
		return *why
	}
	return ""
}

// name is how messages call the parent.
func (p *parent) name() string {
	e := p.export.Load()
	return fmt.Sprintf("parent %s at host %s (%s)", e.Layer, e.Host, e.Address)
}

func (p *parent) read(ctx context.Context, who class, buf []byte, off int64) error {
	err := p.ask(ctx, p.linkFor(who), func(ctx context.Context, r remote) error { return r.ReadAt(ctx, buf, off) })
	if lost := p.lost.Load(); err != nil && lost != nil {
		return lost.read(ctx, who, buf, off)
	}
	return err
}

func (p *parent) extents(ctx context.Context, who class, metaContext string, off, n int64) (out []nbd.Extent, err error) {
	l := p.linkFor(who)
	if metaContext == nbd.ContextSum {
		l = &p.links[sumLink]
	}
	err = p.ask(ctx, l, func(ctx context.Context, r remote) error {
		out, err = r.Extents(ctx, metaContext, off, n)
		return err
	})
	if lost := p.lost.Load(); err != nil && lost != nil {
		return lost.extents(ctx, who, metaContext, off, n)
	}
	return out, err
}

// linkFor chooses a connection. The guest has its own, so that no large request is in front of it there.
func (p *parent) linkFor(who class) *link {
	switch who {
	case hydrationClass:
		return &p.links[1+p.turn.Add(1)%hydrationLinks]
	case aheadClass:
		return &p.links[aheadLink]
	}
	return &p.links[0]
}

// ask makes a request over a link, again and again until it is answered or the context ends.
func (p *parent) ask(ctx context.Context, l *link, request func(context.Context, remote) error) error {
	for {
		conn, err := p.connect(ctx, l)
		if err != nil {
			return err
		}
		if err = p.attempt(ctx, l, conn, request); err == nil {
			p.well()
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if said := p.answer(conn, err); said != nil {
			return said
		}
		p.troubled(err)
		l.failed(conn)
	}
}

// refused is an error of a parent that does answer: it cannot give what was asked for.
type refused struct{ err *drover.Error }

func (r *refused) Error() string { return r.err.Error() }
func (r *refused) Unwrap() error { return r.err }

// answer returns the error if it is the parent's word on the request, and nil if it is a matter of the connection.
func (p *parent) answer(conn remote, err error) error {
	switch drover.CodeOf(err) {
	case drover.Precondition: // the parent is older than the question
		return err
	case drover.Internal:
		if conn.Err() == nil {
			p.well()
			return &refused{drover.Errorf(drover.Internal, "%s: %w", p.name(), err)}
		}
	}
	return nil
}

// attempt makes the request once. It gives up when nothing came over the connection for a while, though other requests wait too:
// a network that swallows packets must not look like a slow one for ever.
func (p *parent) attempt(ctx context.Context, l *link, conn remote, request func(context.Context, remote) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	begun := time.Now()
	var watch *time.Timer
	var mu sync.Mutex
	mu.Lock()
	watch = time.AfterFunc(silence, func() {
		mu.Lock()
		defer mu.Unlock()
		if left := silence - time.Since(l.lastHeard(begun)); left > 0 {
			watch.Reset(left)
			return
		}
		cancel(fmt.Errorf("no answer for %v", silence))
	})
	mu.Unlock()
	defer watch.Stop()
	err := request(ctx, conn)
	if err == nil {
		l.answered()
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// connect returns the link's connection, making one if there is none. It waits for the next try after a failure.
func (p *parent) connect(ctx context.Context, l *link) (remote, error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			return nil, drover.Errorf(drover.Unavailable, "%s is not used any more", p.name())
		}
		if conn := l.aliveLocked(); conn != nil && time.Until(l.retryAt) <= 0 {
			l.mu.Unlock()
			return conn, nil
		}
		wait, dialing := time.Until(l.retryAt), l.dialing
		if wait <= 0 && dialing == nil {
			l.dialing = make(chan struct{})
			l.mu.Unlock()
			p.redial(ctx, l)
			continue
		}
		l.mu.Unlock()
		if err := waitFor(ctx, dialing, wait); err != nil {
			return nil, err
		}
	}
}

// waitFor waits for the channel if there is one, else for the time.
func waitFor(ctx context.Context, done <-chan struct{}, d time.Duration) error {
	var timer <-chan time.Time
	if done == nil {
		t := time.NewTimer(d)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-done:
	case <-timer:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// redial connects once. The caller has set l.dialing.
func (p *parent) redial(ctx context.Context, l *link) {
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	export := *p.export.Load()
	contexts := []string{nbd.ContextAllocation, nbd.ContextPresent}
	if l == &p.links[sumLink] {
		contexts = []string{nbd.ContextSum}
	}
	conn, err := p.dial(dctx, export, contexts...)
	if err == nil && conn.Size() != int64(export.Size) {
		err = errors.Join(fmt.Errorf("the export has %d bytes where %d are expected", conn.Size(), export.Size), conn.Close())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.dialing)
	l.dialing = nil
	switch {
	case err == nil && !l.closed:
		conn.Count(&p.traffic)
		l.conn, l.heard = conn, time.Now()
	case err == nil:
		err = conn.Close()
	case ctx.Err() != nil:
		return // the one who waited gave up; that says nothing about the parent
	}
	if err != nil {
		p.troubled(err)
		l.backoffLocked()
	}
}

// aliveLocked returns the connection unless it has ended.
func (l *link) aliveLocked() remote {
	if l.conn == nil {
		return nil
	}
	select {
	case <-l.conn.Done():
		l.conn = nil
		return nil
	default:
		return l.conn
	}
}

// failed puts the next try off, and ends the connection that failed unless another has taken its place.
func (l *link) failed(conn remote) {
	l.mu.Lock()
	mine := l.conn == conn
	if mine {
		l.conn = nil
		l.backoffLocked()
	}
	l.mu.Unlock()
	if mine {
		_ = conn.Close() // what it has to say was said by the request that failed
	}
}

func (l *link) backoffLocked() {
	d := min(backoffMin<<min(l.failures, 10), backoffMax)
	l.failures++
	l.retryAt = time.Now().Add(d/2 + rand.N(d/2+1))
}

func (l *link) answered() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard, l.failures = time.Now(), 0
}

// lastHeard returns when the connection last proved to be alive, begun at the earliest.
func (l *link) lastHeard(begun time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.heard.After(begun) {
		return l.heard
	}
	return begun
}

// troubled remembers why the parent does not answer.
func (p *parent) troubled(err error) {
	text := fmt.Sprintf("%s: %v", p.name(), err)
	if old := p.why.Swap(&text); old == nil {
		p.log.Warn("parent does not answer", "parent", p.name(), "err", err)
	}
}

func (p *parent) well() {
	if p.why.Load() != nil && p.why.Swap(nil) != nil {
		p.log.Info("parent answers again", "parent", p.name())
	}
}

// close ends all connections. Requests that wait fail.
func (p *parent) close() error {
	var errs []error
	for i := range p.links {
		l := &p.links[i]
		l.mu.Lock()
		conn := l.conn
		l.conn, l.closed = nil, true
		l.mu.Unlock()
		if conn != nil {
			errs = append(errs, conn.Close())
		}
	}
	return errors.Join(errs...)
}
