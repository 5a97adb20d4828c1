package host

import (
	"context"
	"fmt"
	"slices"
	"time"

	"drover"
	"drover/boltstore"
)

// A late migration copies in rounds while the machine runs. Round k: the source splits each layer, so that what was written since round k-1
// is a frozen layer of its own under it, and exports that; the target makes a layer over its copy of round k-1, fills it, and freezes it. At the
// switch the clones lie over the last round's copies, and only what was written since comes afterwards.

// roundLayers names every layer that rounds may have made here, the newest round's first.
func (mv *moveRecord) roundLayers() []drover.LayerID {
	var disks []drover.DiskID
	for _, e := range slices.Concat(mv.Exports, mv.RoundExports) {
		if !slices.Contains(disks, e.Disk) {
			disks = append(disks, e.Disk)
		}
	}
	var layers []drover.LayerID
	for round := mv.Round; round > 0; round-- {
		for _, disk := range disks {
			layers = append(layers, drover.RoundLayer(disk, mv.Migration, round))
		}
	}
	return layers
}

// limitEach is one disk's part of the bound on the copying, while so many are copied.
func (mv *moveRecord) limitEach(disks int) drover.Bytes {
	if mv.Limit == 0 {
		return 0
	}
	return max(mv.Limit/drover.Bytes(max(disks, 1)), 1)
}

// layOver makes a layer that is to be filled from the source one over what a round has brought: only what came since is fetched then. Round 0
// is the image, which both hosts have, or nothing.
func (mv *moveRecord) layOver(spec *LayerSpec, round int) {
	volume := spec.Parent.Volume != "" || spec.Disk.HoldsMemory()
	if round > 0 {
		parent := *spec.Parent
		parent.Since = drover.RoundLayer(spec.Disk, mv.Migration, round)
		spec.Base, spec.Parent = parent.Since, &parent
		return
	}
	if !volume && mv.Image != nil {
		spec.Base = mv.Image.Layer
	}
}

// freezeRound makes the frozen layers of a round at the source, and lets the target read them. The machine writes on.
func (m *machine) freezeRound(ctx context.Context) error {
	cfg, mv := m.agent.cfg, m.rec.Load().Move
	at := m.agent.now()
	exports := make([]drover.Export, 0, len(mv.Exports))
	for _, e := range mv.Exports {
		layer := drover.RoundLayer(e.Disk, mv.Migration, mv.Round)
		m.agent.hit("host.round.before")
		status, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) { return cfg.Storage.Split(ctx, e.Layer, layer) })
		if err != nil {
			return fmt.Errorf("cannot freeze what the disk %q holds: %w", e.Disk, err)
		}
		m.agent.hit("host.round.after-split")
		if _, err := call(ctx, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, cfg.Storage.Export(ctx, layer, mv.Target)
		}); err != nil {
			return fmt.Errorf("cannot export the layer %q to host %q: %w", layer, mv.Target, err)
		}
		m.agent.hit("host.round.after-export")
		e.Layer, e.Name, e.Size, e.Allocated = layer, string(layer), status.Size, status.Own
		if mv.Round == 1 {
			e.Allocated = status.Allocated
		}
		exports = append(exports, e)
	}
	return m.changeMove(mv.Migration, func(_ *records, _ *boltstore.Tx, now *moveRecord) error {
		now.Rounded, now.RoundExports, now.RoundAt = mv.Round, exports, at
		return nil
	})
}

// changedSince sums what was written to the machine's layers since the last round.
func (m *machine) changedSince(ctx context.Context, mv *moveRecord) (sum drover.Bytes, err error) {
	for _, e := range mv.Exports {
		status, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) { return m.agent.cfg.Storage.Layer(ctx, e.Layer) })
		if err != nil {
			return 0, err
		}
		sum += status.Own
	}
	return sum, nil
}

// copyEvery is how often the target looks how far a round is.
const copyEvery = 50 * time.Millisecond

// copyRound begins to copy a round to the target, or sees how far it is.
func (m *machine) copyRound(ctx context.Context) error {
	cfg, mv := m.agent.cfg, m.rec.Load().Move
	m.hydrateAt = m.agent.now().Add(copyEvery)
	var copied []drover.LayerStatus
	for i, e := range mv.RoundExports {
		spec := LayerSpec{ID: drover.RoundLayer(e.Disk, mv.Migration, mv.Round), Disk: e.Disk, Size: e.Size, Parent: &mv.RoundExports[i], Cipher: e.Cipher}
		mv.layOver(&spec, mv.Round-1)
		m.agent.hit("host.copy.before")
		status, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) { return cfg.Storage.CreateLayer(ctx, spec) })
		if err != nil {
			return fmt.Errorf("cannot clone the disk %q: %w", e.Disk, err)
		}
		m.agent.hit("host.copy.after-create")
		if h := status.Hydration; h != nil && !h.Done {
			copied = append(copied, status)
		}
	}
	limit := mv.limitEach(len(copied))
	for _, layer := range copied {
		if h := layer.Hydration; !h.StartedAt.IsZero() && h.Limit == limit {
			continue
		}
		if _, err := call(ctx, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, cfg.Storage.Hydrate(ctx, layer.ID, limit)
		}); err != nil {
			return err
		}
	}
	if len(copied) > 0 {
		return nil
	}
	for _, e := range mv.RoundExports {
		m.agent.hit("host.copy.before-freeze")
		if _, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) {
			return cfg.Storage.Freeze(ctx, drover.RoundLayer(e.Disk, mv.Migration, mv.Round))
		}); err != nil {
			return fmt.Errorf("cannot freeze the copy of the disk %q: %w", e.Disk, err)
		}
	}
	m.agent.hit("host.copy.after-freeze")
	return m.changeMove(mv.Migration, func(_ *records, _ *boltstore.Tx, now *moveRecord) error {
		if now.Round == mv.Round {
			now.Rounded = mv.Round
		}
		return nil
	})
}

// dropRounds removes the layers that rounds made here. What lies over one takes it in.
func (m *machine) dropRounds(ctx context.Context, mv *moveRecord) error {
	for _, layer := range mv.roundLayers() {
		m.agent.hit("host.rounds.before-delete")
		if err := m.deleteLayer(ctx, layer); err != nil {
			return err
		}
		m.agent.hit("host.rounds.after-delete")
	}
	return nil
}

// abortRounds is dropRounds for a target whose clones are gone. It is noted first that nothing is to be laid over the rounds any more:
// should the machine be handed over after all, all of its data is fetched.
func (m *machine) abortRounds(ctx context.Context, mv *moveRecord) error {
	if mv.Rounded > 0 {
		if err := m.changeMove(mv.Migration, func(_ *records, _ *boltstore.Tx, now *moveRecord) error {
			if now.Ending == endingAbort {
				now.Rounded = 0
			}
			return nil
		}); err != nil {
			return err
		}
		if now := m.rec.Load().Move; now == nil || now.Rounded != 0 {
			return nil // the machine was handed over after all
		}
	}
	return m.dropRounds(ctx, mv)
}
