package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"drover"
	"drover/nbd"
)

// upstream is what a layer is filled from: an export of another host, or a frozen layer of this one. Whoever has it closes it when
// nothing is needed of it any more.
type upstream interface {
	reader
	// name is how messages call it.
	name() string
	close() error
}

var (
	_ upstream = (*parent)(nil)
	_ upstream = (*localParent)(nil)
	_ upstream = (*snapshotParent)(nil)
)

// upstreamOf returns what the record says that the layer is filled from, nil for nothing.
func (e *env) upstreamOf(m *meta, log *slog.Logger) upstream {
	export := m.parent()
	switch {
	case export == nil:
		return nil
	case m.Loss != nil:
		return newLostParent(m)
	case m.Spec.Snapshot != nil:
		return e.newSnapshotParent(*m.Spec.Snapshot, m.Spec.Cipher, log)
	case export.Host == e.cfg.Host:
		return &localParent{layer: export.Layer, find: e.find}
	}
	return newParent(*export, e.dial, log)
}

// wire is how many bytes came over the network for what was fetched.
func (c *content) wire() drover.Bytes {
	if p, remote := c.parent.(*parent); remote {
		return p.wire()
	}
	return 0
}

// filledBlocks is how many blocks of the layer its parent has; the layer may be larger.
func (m *meta) filledBlocks() int64 {
	return int64(min(m.Spec.Size, m.parent().Size)) / blockSize
}

// localParent is a frozen layer of the same pool. Its content may change hands between two calls.
type localParent struct {
	layer drover.LayerID
	find  func(drover.LayerID) (*layer, error)
	why   atomic.Pointer[string]
}

func (p *localParent) name() string { return fmt.Sprintf("frozen layer %s of this host", p.layer) }

func (p *localParent) close() error { return nil }

func (p *localParent) trouble() string {
	if why := p.why.Load(); why != nil {
		return *why
	}
	return ""
}

// with calls do with what the layer holds now, and remembers what came of it.
func (p *localParent) with(do func(*content) error) error {
	l, err := p.find(p.layer)
	var c *content
	if err == nil {
		c, err = l.use()
	}
	if err == nil {
		err = errors.Join(do(c), c.close())
	}
	if err == nil {
		p.why.Store(nil)
		return nil
	}
	err = drover.Errorf(drover.CodeOf(err), "cannot read %s: %w", p.name(), err)
	text := err.Error()
	p.why.Store(&text)
	return err
}

func (p *localParent) read(ctx context.Context, _ class, buf []byte, off int64) error {
	return p.with(func(c *content) error { return c.ReadForOthers(ctx, buf, off) })
}

func (p *localParent) extents(ctx context.Context, _ class, metaContext string, off, n int64) (out []nbd.Extent, err error) {
	err = p.with(func(c *content) error {
		out, err = c.extents(ctx, metaContext, off, n)
		return err
	})
	return out, err
}
