package fleet

import (
	"context"
	"fmt"

	"drover"
	"drover/internal/units"
	"drover/migrate"
)

// ExtendVolume makes a volume larger, while its machine runs. The record says first what it is to become, so that whatever was begun is
// ended by the lease holder.
func (f *Fleet) ExtendVolume(ctx context.Context, req ExtendVolume) (Extended, error) {
	if err := f.await(ctx); err != nil {
		return Extended{}, err
	}
	v, err := f.readVolume(ctx, req.App, req.Volume)
	if err != nil {
		return Extended{}, err
	}
	if err := checkExtension(v, req.Size); err != nil {
		return Extended{}, err
	}
	if v.Machine != "" {
		if m, err := f.holder(ctx, v.Machine); err != nil {
			return Extended{}, err
		} else if m != nil && migrate.Blocks(*m) {
			return Extended{}, moving(m)
		}
	}
	host, err := f.hostOfVolume(ctx, v)
	if err != nil {
		return Extended{}, err
	}
	if err := f.answers(v, host); err != nil {
		return Extended{}, err
	}
	v, err = f.changeVolume(ctx, v.ID, func(v *drover.Volume) error {
		if err := checkExtension(*v, req.Size); err != nil {
			return err
		}
		v.Grow = req.Size
		return nil
	})
	if err != nil {
		return Extended{}, err
	}
	f.hit("fleet.volume.grow.record.after")
	resized, err := f.growVolume(ctx, v, host)
	if err != nil {
		return Extended{}, err
	}
	f.log.Info("volume extended", "volume", v.ID, "size", req.Size, "needs_restart", resized.NeedsRestart)
	view, err := f.Volume(ctx, req.App, v.ID)
	return Extended{Volume: view, NeedsRestart: resized.NeedsRestart}, err
}

// checkExtension tells why a volume cannot become that large.
func checkExtension(v drover.Volume, size drover.Bytes) error {
	bad := func(format string, args ...any) error {
		return drover.Errorf(drover.Invalid, "size_gb: "+format, args...).WithField("size_gb")
	}
	switch {
	case v.State != drover.VolumeCreated && v.State != drover.VolumeHydrating:
		return inState(v)
	case size < v.Size:
		return bad("%s are less than the %s that volume %q has: it cannot be made smaller", units.Size(size), units.Size(v.Size), v.ID)
	case size < v.Grow:
		return bad("%s are less than the %s that volume %q is being extended to: it cannot be made smaller", units.Size(size), units.Size(v.Grow), v.ID)
	case size > maxVolume:
		return bad("%d GiB are too many: at most %d", size/drover.GiB, maxVolume/drover.GiB)
	case size%drover.BlockSize != 0:
		return bad("%d bytes are no multiple of %d", size, drover.BlockSize)
	}
	return nil
}

// growVolume makes the host do what the record asks for, and notes that it is done. What the host refuses for good is taken back.
func (f *Fleet) growVolume(ctx context.Context, v drover.Volume, host drover.HostID) (drover.Resized, error) {
	var resized drover.Resized
	size := v.Grow
	err := f.order(ctx, f.timing.Apply, host, drover.OrderVolumeResize, drover.ResizeRequest{Volume: v, Size: size}, &resized)
	final := drover.Is(err, drover.Invalid) || drover.Is(err, drover.Exhausted)
	if err != nil && !final {
		return resized, drover.AsError(fmt.Errorf("volume %q is extended later: %w", v.ID, err)).
			WithHint("the extension goes on by itself; see `drover volume show %s`", v.ID)
	}
	if err == nil {
		f.hit("fleet.volume.grow.order.after")
	}
	if _, cerr := f.changeVolume(ctx, v.ID, func(now *drover.Volume) error {
		if err == nil {
			now.Size = max(now.Size, size)
		}
		if now.Grow == size {
			now.Grow = 0
		}
		return nil
	}); cerr != nil {
		return resized, cerr
	}
	return resized, err
}
