package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"drover"
)

// liveSize is a volume that is moved live, and how much of it is filled.
type liveSize struct {
	name         string
	gib, fillMiB int
	// peer: QEMU's own live migration is measured with it, too.
	peer bool
}

// measureLive moves a machine that writes and flushes all the time, with its memory, and compares that with QEMU's own live migration with
// storage (blockdev-mirror and migrate, as libvirt's --copy-storage-all does it) of the same guest with the same load.
func measureLive(ctx context.Context, s setup) (results []result, err error) {
	f, err := raiseFleet(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.close(ctx)) }()
	sizes := []liveSize{{"1GiB", 1, 256, true}, {"8GiB", 8, 2048, true}, {"64GiB", 64, 256, false}}
	if s.size >= 8*drover.GiB {
		sizes = append(sizes, liveSize{"8GiB.full", 8, 7 << 10, true})
	}
	var smallest []float64
	for _, size := range sizes {
		mine, err := f.liveMoves(ctx, s, size)
		if err != nil {
			return results, err
		}
		if smallest == nil {
			smallest = mine.left
		}
		if !size.peer {
			results = append(results, compare("live.left."+size.name, "s", "lower", "1 GiB", mine.left, smallest))
			continue
		}
		peer, err := peerMoves(ctx, s, size)
		if err != nil {
			return results, err
		}
		const qemu = "QEMU mirror + migrate"
		results = append(results, compare("live.interruption."+size.name, "s", "lower", qemu, mine.gap, peer.gap),
			compare("live.left."+size.name, "s", "lower", qemu, mine.left, peer.left),
			compare("live.bytes."+size.name, "B", "lower", qemu, mine.bytes, peer.bytes))
	}
	return results, nil
}

// liveRuns are the numbers of some moves: the longest time without an acknowledged record, the time until the source executes nothing any
// more, and what was copied.
type liveRuns struct{ gap, left, bytes []float64 }

// settleTime is how long a machine is watched after it has moved.
const settleTime = 2 * time.Second

func (f *fleet) liveMoves(ctx context.Context, s setup, size liveSize) (runs liveRuns, err error) {
	w, err := f.startWriter(ctx, "live"+fmt.Sprint(size.gib), "h1", size.gib, size.fillMiB)
	if err != nil {
		return runs, err
	}
	defer w.stop()
	for run := range s.runs {
		before := w.watch.Now()
		w.watch.ResetGap()
		var m drover.Migration
		err := f.cli.Ask(ctx, &m, "machine", "move", w.id, "--live", "--switch", "early", "--to", []string{"h2", "h1"}[run%2])
		if err == nil && (m.Outcome != drover.Succeeded || !m.Live || m.ColdReason != "") {
			err = fmt.Errorf("migration %s ended as %s, with the memory: %v %s", m.ID, m.Outcome, m.Live, m.ColdReason)
		}
		if err == nil {
			err = pause(ctx, settleTime)
		}
		if err != nil {
			return runs, err
		}
		now := w.watch.Now()
		if now.Boot != before.Boot || now.Err != nil {
			return runs, fmt.Errorf("the machine began anew (%s, before %s): %w", now.Boot, before.Boot, now.Err)
		}
		left, bytes := m.RunningAt.Sub(m.CreatedAt).Seconds(), float64(m.Memory.Transferred+m.Hydration.Copied)
		runs.gap, runs.left, runs.bytes = append(runs.gap, now.Gap.Seconds()), append(runs.left, left), append(runs.bytes, bytes)
		fmt.Fprintf(s.log, "drover %s: interruption %.0f ms, which began %.0f ms before the pause of %.0f ms; left after %.2f s\n", size.name,
			1000*now.Gap.Seconds(), 1000*m.StoppedAt.Sub(now.GapFrom).Seconds(), 1000*m.RunningAt.Sub(m.StoppedAt).Seconds(), left)
	}
	return runs, f.cli.Run(ctx, s.log, "machine", "stop", w.id)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
