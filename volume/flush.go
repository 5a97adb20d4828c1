package volume

import (
	"context"
	"errors"
	"sync"

	"drover"
)

// commits groups concurrent flushes: those who come while one runs share the next.
type commits struct {
	mu   sync.Mutex
	last *commit // running or done
	next *commit // nobody has begun it
}

type commit struct {
	done chan struct{}
	err  error
}

// do returns when a run that began after do was called has ended.
func (g *commits) do(run func() error) error {
	g.mu.Lock()
	if b := g.next; b != nil {
		g.mu.Unlock()
		<-b.done
		return b.err
	}
	b, before := &commit{done: make(chan struct{})}, g.last
	g.next = b
	g.mu.Unlock()
	if before != nil {
		<-before.done
	}
	g.mu.Lock()
	g.next, g.last = nil, b
	g.mu.Unlock()
	b.err = run()
	close(b.done)
	return b.err
}

// Flush makes everything durable that was acknowledged before: the data, then the map. It waits for the local disk, which no
// context can interrupt.
func (c *content) Flush(context.Context) error { return c.flushes.do(c.flushNow) }

func (c *content) flushNow() error {
	if err := c.failure(); err != nil {
		return err
	}
	if err := c.settle(); err != nil {
		return err
	}
	o := c.enter()
	defer o.leave()
	if o == nil || o.table == nil {
		return c.syncData()
	}
	// One step at a time bounds the memory. The marks of a step are taken before the data is synced, so that none of
	// them is stored whose data is not durable.
	sectors, stored := o.table.dirty.n, o.table.unsynced.Swap(false)
	for first := int64(0); ; {
		first = o.table.dirty.next(first, sectors, true)
		end := min(first+flushSectors, sectors)
		runs := o.table.collect(nil, first, end, o.present)
		if err := c.syncData(); err != nil {
			return err
		}
		if len(runs) > 0 {
			c.faults.Hit("volume.flush.data-synced")
			if err := o.table.store(runs); err != nil {
				return c.fail("write the map of", err)
			}
			stored = true
		}
		if first = end; first >= sectors {
			break
		}
	}
	if stored {
		if err := o.table.f.Datasync(); err != nil {
			return c.fail("sync the map of", err)
		}
		c.faults.Hit("volume.flush.map-synced")
	}
	return nil
}

// settle makes durable, once, what lies below: a writer's flush covers what it wrote before a split, too.
func (c *content) settle() error {
	if c.under == nil || c.under.image || c.settled.Load() {
		return nil
	}
	if err := c.under.Flush(context.Background()); err != nil {
		return c.fail("sync what lies under", err)
	}
	c.settled.Store(true)
	return nil
}

// seal is Flush when nobody writes: what is known of checksums then counts for ever. While blocks are filled from a parent it does
// not: a power cut may still make blocks absent again.
func (c *content) seal(ctx context.Context) error {
	if err := c.Flush(ctx); err != nil {
		return err
	}
	if o := c.over.Load(); o != nil && o.src.Load() != nil {
		return nil
	}
	return ioError(c.name, "seal the checksums of", c.sums.seal())
}

func (c *content) syncData() error {
	if !c.dirty.Swap(false) {
		return nil
	}
	if err := c.data.Datasync(); err != nil {
		return c.fail("sync", err)
	}
	return nil
}

// written ends every change of the data file. A change that failed may have left part of itself, which is dirty too.
func (c *content) written(ctx context.Context, fua bool, err error) error {
	c.dirty.Store(true)
	if err != nil {
		return ioError(c.name, "write", err)
	}
	if fua {
		return c.Flush(ctx)
	}
	return nil
}

// close ends one use of the content; the last one closes its files.
func (c *content) close() error {
	if c.refs.Add(-1) > 0 {
		return nil
	}
	c.stopAhead()
	c.dropOverlay()
	var errs []error
	if err := c.data.Close(); err != nil {
		errs = append(errs, drover.Errorf(drover.Internal, "cannot close layer %s: %w", c.name, err))
	}
	if c.under != nil {
		errs = append(errs, c.under.close())
	}
	return errors.Join(errs...)
}
