package volume

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"

	"drover"
)

// layer is one layer of the pool: its durable record, its content, and who is connected to it.
type layer struct {
	id  drover.LayerID
	dir string
	env *env
	log *slog.Logger

	metaMu sync.Mutex // held by the one who writes meta.json
	record atomic.Pointer[meta]

	body atomic.Pointer[content] // see content
	// below is the layer under this one, nil for none. It is changed by take.
	below atomic.Pointer[layer]

	mu sync.Mutex
	// writable is the epoch at which connections may write, 0 for none.
	writable drover.Epoch
	// withdrawn: the layer is being deleted or the daemon ends; no connection is taken any more.
	withdrawn bool
	// valve holds back requests while the content changes hands.
	valve    valve
	sessions map[*session]struct{}
	// vhost serves the layer over vhost-user-blk while it is open; nil while it is not.
	vhost *vhostExport
	// prepared is the socket of a VM that connected before the layer was open; nil for none.
	prepared *vhostExport
	sequence uint64
	// takeoverMu is held while a session takes the right to write.
	takeoverMu sync.Mutex
	// edges is held by writes to an encrypted layer, exclusively by those that write a part of a sector: see plain.
	edges sync.RWMutex

	// throttle keeps the writer to the layer's limits; nil without any.
	throttle atomic.Pointer[throttle]

	hydrator hydrator
	uploader uploader
	verifier verifier
	// frozenData is the data of a layer that does not change any more; -1 while nobody has looked.
	frozenData atomic.Int64
}

// hydrator is the background copy of one layer.
type hydrator struct {
	mu      sync.Mutex
	pace    *pace
	running bool
	cancel  context.CancelFunc
	done    chan struct{}
	// trouble is why the copy stands still for a reason of this host; nil when it does not.
	trouble atomic.Pointer[string]
}

// content returns what the layer holds now. It changes when the layer is split, grows or takes its base in, so whoever needs one and the
// same content for several steps keeps what content returned. It may be closed then, except under a request's gate or the disk's
// turn; see use.
func (l *layer) content() *content { return l.body.Load() }

// use is content for those who stay longer. They must close it. NotFound when the layer was closed.
func (l *layer) use() (*content, error) {
	for {
		c := l.content()
		if c.retain() {
			return c, nil
		}
		if l.content() == c {
			return nil, drover.Errorf(drover.NotFound, "layer %s is being withdrawn", l.id)
		}
	}
}

// take makes the content the layer's, and says what is below. The caller has closed the valve, or nobody knows the layer yet.
func (l *layer) take(c *content, below *layer) {
	c.name.set(l.id)
	l.below.Store(below)
	l.body.Store(c)
	l.frozenData.Store(-1)
	if o := c.over.Load(); o != nil {
		if src := o.src.Load(); src != nil {
			may := l.hydrator.pace.may
			src.ahead.may.Store(&may)
		}
	}
}

// meta returns the record, which must not be changed.
func (l *layer) meta() *meta { return l.record.Load() }

// update changes the record, durably. Nothing is changed if it cannot be written.
func (l *layer) update(change func(*meta)) error {
	l.metaMu.Lock()
	defer l.metaMu.Unlock()
	m := l.meta().clone()
	change(m)
	if err := l.env.reserve.with(func() error { return writeMeta(filepath.Join(l.dir, metaFile), m) }); err != nil {
		return ioError(l.id, "write the record of", err)
	}
	l.record.Store(m)
	return nil
}

// hydrated is called when every block of the parent is here, durably. The parent is dropped, and with it the map when no block is absent.
func (l *layer) hydrated(now func() hydrationRecord) error {
	c := l.content()
	o := c.enter()
	defer o.leave()
	plain := o != nil && o.present.all(0, o.present.n)
	if plain {
		// Marks that were made since the last flush must be durable before the map is not needed any more.
		if err := c.Flush(context.Background()); err != nil {
			return err
		}
	}
	if !plain && l.meta().Spec.Base == "" {
		return drover.Errorf(drover.Internal, "layer %s has absent blocks after its hydration", l.id)
	}
	done, verified := now(), l.hydrator.pace.verification.status()
	done.Verified, done.Repaired = verified.Checked, verified.Repaired
	verified.Done = verified.Problem != "" // else the disk is compared, too
	err := l.update(func(m *meta) {
		m.ParentDone, m.Mapped, m.Hydration = true, !plain, &done
		m.Verification, m.Against = verified, nil
	})
	if err != nil {
		return err
	}
	c.faults.Hit("volume.hydrate.complete")
	if o != nil {
		l.content().stopAhead()
		o.src.Store(nil)
	}
	if plain {
		c.dropOverlay()
		if err := l.removeMap(); err != nil {
			l.log.Warn("cannot remove the map of a layer that is complete", "err", err)
		}
	}
	if err := c.parent.close(); err != nil {
		l.log.Debug("the parent's connection ended with an error", "err", err)
	}
	return nil
}

// close ends all connections and gives the content up.
func (l *layer) close(flush bool) error {
	wait, waitPrepared := l.endVhost(), l.endPrepared()
	l.cut(drover.Errorf(drover.Unavailable, "layer %s is withdrawn", l.id), func(*session) bool { return true }, true)
	wait()
	waitPrepared()
	c := l.content()
	var errs []error
	if flush && c.failure() == nil {
		errs = append(errs, c.seal(context.Background()))
	}
	if c.parent != nil {
		if err := c.parent.close(); err != nil {
			l.log.Debug("the parent's connection ended with an error", "err", err)
		}
	}
	return errors.Join(append(errs, c.close())...)
}

// presentUpTo returns the layer's map as that of a larger one, and whether the layer has one.
func (l *layer) presentUpTo(blocks int64) (present *bitmap, mapped bool) {
	present = newBitmap(blocks)
	o := l.content().enter()
	if o == nil {
		return present, false
	}
	defer o.leave()
	for w := range o.present.words {
		present.words[w] = loadWord(o.present, int64(w))
	}
	return present, true
}
