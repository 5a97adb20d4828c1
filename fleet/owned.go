package fleet

import (
	"context"
	"time"

	"drover"
	"drover/natsbus"
)

// serveOwned tells hosts whether what they have is theirs, until ctx ends.
func (f *Fleet) serveOwned(ctx context.Context) {
	for ctx.Err() == nil {
		if err := natsbus.ServeOwned(ctx, f.conn, f.doubted); err != nil && ctx.Err() == nil {
			f.log.Warn("hosts are not told for a moment what is theirs", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(f.timing.Repair):
		}
	}
}

// doubted lists the machines that are not the host's at the epoch, as far as memory knows. What it knows may be old, so a host takes it for a reason to read
// the placement and for nothing else.
func (f *Fleet) doubted(host drover.HostID, has map[drover.MachineID]drover.Epoch) []drover.MachineID {
	list := []drover.MachineID{}
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	for id, epoch := range has {
		if p, ok := f.state.placements.items[string(id)]; !ok || p.value.Host != host || drover.Epoch(p.rev) != epoch {
			list = append(list, id)
		}
	}
	return list
}
