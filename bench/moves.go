package main

import (
	"context"
	"errors"
	"fmt"

	"drover"
)

// measureMoves compares the interruption of a move with that of a restart on one host, for a small and a large volume with
// the same data, and the bytes that travel with the bytes that are there.
func measureMoves(ctx context.Context, s setup) (results []result, err error) {
	const fillMiB = 512
	f, err := raiseFleet(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.close(ctx)) }()
	small, err := f.startWriter(ctx, "small", "h1", 1, fillMiB)
	if err != nil {
		return nil, err
	}
	defer small.stop()
	large, err := f.startWriter(ctx, "large", "h1", 64, fillMiB)
	if err != nil {
		return nil, err
	}
	defer large.stop()

	var smallMove, largeMove, restart, copied, allocated []float64
	for run := range s.runs {
		to := []string{"h2", "h1"}[run%2]
		move1, m, err := small.move(ctx, to)
		if err != nil {
			return nil, err
		}
		again, err := small.restart(ctx)
		if err != nil {
			return nil, err
		}
		move64, _, err := large.move(ctx, to)
		if err != nil {
			return nil, err
		}
		smallMove, largeMove, restart = append(smallMove, move1.Seconds()), append(largeMove, move64.Seconds()), append(restart, again.Seconds())
		copied, allocated = append(copied, float64(m.Hydration.Copied)), append(allocated, float64(allocatedBytes(m)))
		fmt.Fprintf(s.log, "run %d: move of 1 GiB %.2f s, of 64 GiB %.2f s, restart %.2f s, copied %d of %d bytes\n",
			run+1, move1.Seconds(), move64.Seconds(), again.Seconds(), m.Hydration.Copied, allocatedBytes(m))
	}
	return []result{
		compare("move.interruption", "s", "lower", "restart on one host", smallMove, restart),
		compare("move.interruption.64GiB", "s", "lower", "move of 1 GiB, same data", largeMove, smallMove),
		compare("move.bytes", "B", "lower", "allocated", copied, allocated),
	}, nil
}

func allocatedBytes(m drover.Migration) (n drover.Bytes) {
	for _, d := range m.Disks {
		n += d.Allocated
	}
	return n
}
