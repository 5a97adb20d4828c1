package volume

import (
	"context"
	"slices"

	"drover"
)

// open lets the layer be written at the epoch. When it returns, no write of a lower epoch can land on any layer of the disk.
func (p *pool) open(ctx context.Context, id drover.LayerID, epoch drover.Epoch) (drover.Attachment, error) {
	if epoch == 0 {
		return drover.Attachment{}, drover.Errorf(drover.Invalid, "cannot open layer %s at epoch 0: epochs begin at 1", id).WithField("epoch")
	}
	l, done, err := p.turnOf(ctx, id)
	if err != nil {
		return drover.Attachment{}, err
	}
	defer done()
	if err := p.mayOpen(l, epoch); err != nil {
		return drover.Attachment{}, err
	}
	key, err := p.keyFor(l)
	if err != nil {
		return drover.Attachment{}, err
	}
	if err := p.raise(l.meta().Spec.Disk, epoch); err != nil {
		return drover.Attachment{}, err
	}
	if l.meta().Writer != epoch {
		check := l.meta().KeyCheck
		if key != nil {
			check = key.check
		}
		if err := l.update(func(m *meta) { m.Writer, m.Activated, m.KeyCheck = epoch, true, check; m.bind(epoch) }); err != nil {
			return drover.Attachment{}, err
		}
	}
	l.setWritable(epoch)
	if l.bindPrepared(epoch) {
		p.wg.Go(func() { l.learnParent(p.ctx) })
	}
	vhost := p.serveVhost(l, epoch)
	l.log.Info("layer opened", "epoch", uint64(epoch))
	return drover.Attachment{Transport: drover.TransportNBD, Socket: NBDSocket(p.run), Export: exportName(id, epoch), VhostSocket: vhost}, nil
}

// mayOpen checks everything that is against opening the layer at the epoch.
func (p *pool) mayOpen(l *layer, epoch drover.Epoch) error {
	m := l.meta()
	switch m.State {
	case drover.LayerImage:
		return drover.Errorf(drover.Precondition, "cannot open layer %s for writing: it is an image", l.id)
	case drover.LayerFrozen:
		return drover.Errorf(drover.Precondition, "cannot open layer %s for writing: it is frozen", l.id).
			WithHint("thaw it first, if the machine is still this host's")
	}
	fence, err := p.fences.epoch(m.Spec.Disk)
	if err != nil {
		return err
	}
	if epoch < fence {
		return staleEpoch(epoch, m.Spec.Disk, fence)
	}
	if err := l.content().failure(); err != nil {
		return err
	}
	for _, other := range p.ofDisk(m.Spec.Disk) {
		if other != l && other.meta().Writer >= epoch {
			return drover.Errorf(drover.Conflict, "cannot open layer %s at epoch %d: layer %s of the same disk %s is open at epoch %d",
				l.id, epoch, other.id, m.Spec.Disk, other.meta().Writer)
		}
	}
	return nil
}

func staleEpoch(epoch drover.Epoch, disk drover.DiskID, fence drover.Epoch) error {
	return drover.Errorf(drover.Conflict, "stale epoch %d for disk %s: %d is known", epoch, disk, fence)
}

// raise makes the disk's fence at least the epoch and ends writers of lower ones. The caller has the disk's turn.
func (p *pool) raise(disk drover.DiskID, epoch drover.Epoch) error {
	if err := p.fences.raise(disk, epoch); err != nil {
		return err
	}
	p.cfg.Faults.Hit("volume.fence.raised")
	for _, l := range p.ofDisk(disk) {
		if w := l.meta().Writer; w != 0 && w < epoch {
			l.endWriter(staleEpoch(w, disk, epoch))
			if err := l.update(func(m *meta) { m.Writer, m.Prepared = 0, nil }); err != nil {
				return err
			}
			l.log.Info("writer ended", "epoch", uint64(w), "fence", uint64(epoch))
		}
	}
	p.forgetKeys()
	return nil
}

// fence raises the fence of a disk, whether or not a layer of it is here.
func (p *pool) fence(ctx context.Context, disk drover.DiskID, epoch drover.Epoch) error {
	if !validLayerID(drover.LayerID(disk)) {
		return drover.Errorf(drover.Invalid, "%q is no disk ID", disk).WithField("disk")
	}
	done, err := p.turn(ctx, "disk "+string(disk))
	if err != nil {
		return err
	}
	defer done()
	return p.raise(disk, epoch)
}

// closeLayer ends writing and flushes.
func (p *pool) closeLayer(ctx context.Context, id drover.LayerID) error {
	l, done, err := p.turnOf(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	return l.endWriting(ctx, func(m *meta) {})
}

// endWriting ends the writer, makes everything durable and records that nobody writes.
func (l *layer) endWriting(ctx context.Context, change func(*meta)) error {
	was := l.meta().Writer
	l.endWriter(drover.Errorf(drover.Unavailable, "layer %s was closed", l.id))
	if l.meta().State == drover.LayerImage {
		return nil
	}
	if err := l.content().seal(ctx); err != nil {
		return err
	}
	l.content().faults.Hit("volume.close.flushed")
	state := l.meta().State
	if err := l.update(func(m *meta) { m.Writer, m.Prepared = 0, nil; change(m) }); err != nil {
		return err
	}
	if now := l.meta().State; was != 0 || now != state {
		l.log.Info("layer closed for writing", "from", string(state), "to", string(now), "epoch", uint64(was))
	}
	return nil
}

// freeze ends writing until thaw.
func (p *pool) freeze(ctx context.Context, id drover.LayerID) (drover.LayerStatus, error) {
	l, done, err := p.turnOf(ctx, id)
	if err != nil {
		return drover.LayerStatus{}, err
	}
	defer done()
	switch l.meta().State {
	case drover.LayerImage:
		return drover.LayerStatus{}, drover.Errorf(drover.Precondition, "cannot freeze layer %s: it is an image", id)
	case drover.LayerReady:
		fence, err := p.fences.epoch(l.meta().Spec.Disk)
		if err != nil {
			return drover.LayerStatus{}, err
		}
		if err := l.endWriting(ctx, func(m *meta) { m.State, m.FrozenAt = drover.LayerFrozen, fence }); err != nil {
			return drover.LayerStatus{}, err
		}
	}
	return l.status()
}

// thaw takes a freeze back. It opens nothing. When the fence was raised since, the disk has another writer elsewhere, and what is here
// is the past.
func (p *pool) thaw(ctx context.Context, id drover.LayerID) error {
	l, done, err := p.turnOf(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	m := l.meta()
	if m.State == drover.LayerReady {
		return nil
	}
	if m.State == drover.LayerImage {
		return drover.Errorf(drover.Precondition, "cannot thaw layer %s: it is an image", id)
	}
	if err := p.mayThaw(id); err != nil {
		return err
	}
	fence, err := p.fences.epoch(m.Spec.Disk)
	if err != nil {
		return err
	}
	if fence > m.FrozenAt {
		return drover.Errorf(drover.Precondition, "cannot thaw layer %s: disk %s was fenced at epoch %d after the layer was frozen at %d, so it may have been written elsewhere",
			id, m.Spec.Disk, fence, m.FrozenAt)
	}
	l.stopUpload() // what it would tell of is about to change
	if err := l.update(func(m *meta) { m.State, m.FrozenAt, m.Upload = drover.LayerReady, 0, nil }); err != nil {
		p.resumeUpload(l)
		return err
	}
	l.frozenData.Store(-1)
	return nil
}

// mayThaw refuses for a layer that others rely on.
func (p *pool) mayThaw(id drover.LayerID) error {
	for _, other := range append(p.over(id), p.filledFrom(id)...) {
		return drover.Errorf(drover.Precondition, "cannot thaw layer %s: layer %s is made of it", id, other.id)
	}
	return nil
}

// export lets a host read the layer over TLS.
func (p *pool) export(ctx context.Context, id drover.LayerID, peer drover.HostID) error {
	if !drover.ValidName(string(peer)) {
		return drover.Errorf(drover.Invalid, "%q is no host ID", peer).WithField("peer")
	}
	l, done, err := p.turnOf(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	if slices.Contains(l.meta().Exports, peer) {
		return nil
	}
	if l.meta().Unwanted {
		return drover.Errorf(drover.Precondition, "cannot export layer %s: it was deleted", id)
	}
	return l.update(func(m *meta) { m.Exports = append(m.Exports, peer); slices.Sort(m.Exports) })
}

// unexport takes an export back and ends the host's connections.
func (p *pool) unexport(ctx context.Context, id drover.LayerID, peer drover.HostID) error {
	l, done, err := p.turnOf(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	if slices.Contains(l.meta().Exports, peer) {
		err := l.update(func(m *meta) {
			m.Exports = slices.DeleteFunc(m.Exports, func(h drover.HostID) bool { return h == peer })
		})
		if err != nil {
			return err
		}
	}
	l.cut(drover.Errorf(drover.Denied, "layer %s is not exported to host %s any more", id, peer),
		func(s *session) bool { return s.host == peer }, false)
	return nil
}

// checkParent reads one block of the parent, over a connection of its own, and keeps nothing: the parent may still change.
func (p *pool) checkParent(ctx context.Context, id drover.LayerID) error {
	l, err := p.find(id)
	if err != nil {
		return err
	}
	if l = l.filled(); l == nil || l.meta().Loss != nil {
		return nil
	}
	if s, ok := l.content().parent.(*snapshotParent); ok {
		return s.check(ctx)
	}
	export := l.meta().parent()
	if export.Host == p.cfg.Host {
		return l.content().parent.read(ctx, guestClass, make([]byte, blockSize), 0)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
	defer cancel()
	conn, err := p.dial(ctx, *export)
	if err == nil {
		if conn.Size() != int64(export.Size) {
			err = drover.Errorf(drover.Precondition, "it has %d bytes where %d are expected", conn.Size(), export.Size)
		} else {
			err = conn.ReadAt(ctx, make([]byte, blockSize), 0)
		}
		if cerr := conn.Close(); err == nil && cerr != nil {
			l.log.Debug("the connection to the parent ended with an error", "err", cerr)
		}
	}
	if err == nil {
		return nil
	}
	code := drover.CodeOf(err)
	if code == drover.Internal || code == drover.Canceled {
		code = drover.Unavailable
	}
	return drover.Errorf(code, "cannot read the parent of layer %s: export %s of host %s at %s: %w", id, export.Name, export.Host, export.Address, err)
}
