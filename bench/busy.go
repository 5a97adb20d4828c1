package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"drover"
	"drover/internal/fleetca"
	"drover/internal/testkit"
	"drover/nbd"
)

const (
	busyBlock = 4096
	busyTime  = 3 * time.Second
	// busyDelay is the round trip of the slow link.
	busyDelay = time.Millisecond
	busySize  = 4 * drover.GiB
	busyData  = 2 * drover.GiB
)

// measureBusy looks at a guest that is at work while its volume is filled from another host, and after: two storage daemons over TLS, a
// load over NBD on the unix socket of the target.
func measureBusy(ctx context.Context, s setup) (results []result, err error) {
	source, err := startDaemon(ctx, s, "a")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, source.stop()) }()
	target, err := startDaemon(ctx, s, "b")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, target.stop()) }()
	raw := filepath.Join(s.dir, "raw")
	if err := writeRandom(raw, busySize, busyData); err != nil {
		return nil, err
	}
	export, err := source.offer(ctx, "vol_bench", raw, busySize, "b")
	if err != nil {
		return nil, err
	}
	b := busy{setup: s, source: source, target: target, export: export}
	for _, measure := range []func(context.Context) ([]result, error){b.local, b.absent, b.hydrated} {
		r, err := measure(ctx)
		if err != nil {
			return results, err
		}
		results = append(results, r...)
	}
	return results, nil
}

// busy is what the measurements share.
type busy struct {
	setup
	source, target *daemon
	export         *drover.Export
	epoch          drover.Epoch
}

// clone makes a layer over the export, opens it and connects to it. Nothing is copied but what is read.
func (b *busy) clone(ctx context.Context, id drover.LayerID, address string) (*nbd.Client, error) {
	export := *b.export
	export.Address = address
	if _, err := b.target.CreateLayer(ctx, drover.LayerSpec{ID: id, Disk: "vol_bench", Size: busySize, Parent: &export}); err != nil {
		return nil, err
	}
	if err := b.target.PauseHydration(ctx, id, true); err != nil {
		return nil, err
	}
	c, err := b.open(ctx, id)
	if err != nil {
		return nil, err
	}
	return c, b.target.Hydrate(ctx, id, 0)
}

func (b *busy) open(ctx context.Context, id drover.LayerID) (*nbd.Client, error) {
	b.epoch++
	at, err := b.target.Open(ctx, id, b.epoch+1)
	if err != nil {
		return nil, err
	}
	return nbd.Dial(ctx, nbd.ClientConfig{Network: "unix", Address: at.Socket, Export: at.Export})
}

// drop ends the use of a layer and removes it.
func (b *busy) drop(ctx context.Context, c *nbd.Client, id drover.LayerID) error {
	return errors.Join(c.Close(), b.target.Close(ctx, id), b.target.Delete(ctx, id))
}

// local compares random reads at depth 1 of blocks that are there while the rest is copied with the same while the copy is paused.
func (b *busy) local(ctx context.Context) ([]result, error) {
	const id, area = "vol_bench.local", int64(64 << 20)
	c, err := b.clone(ctx, id, b.source.address)
	if err != nil {
		return nil, err
	}
	for off := int64(0); off < area; off += 1 << 20 {
		if err := c.ReadAt(ctx, make([]byte, 1<<20), off); err != nil {
			return nil, err
		}
	}
	var with, without, rate []float64
	for run := range b.runs {
		idle, err := readRandomly(ctx, c, area, busyTime)
		if err != nil {
			return nil, err
		}
		before, err := b.target.Layer(ctx, id)
		if err != nil {
			return nil, err
		}
		if err := b.target.PauseHydration(ctx, id, false); err != nil {
			return nil, err
		}
		busy, err := readRandomly(ctx, c, area, busyTime)
		if err != nil {
			return nil, err
		}
		if err := b.target.PauseHydration(ctx, id, true); err != nil {
			return nil, err
		}
		after, err := b.target.Layer(ctx, id)
		if err != nil {
			return nil, err
		}
		if after.Hydration.Done {
			return nil, fmt.Errorf("the copy was over before the reads were")
		}
		with, without = append(with, percentile(busy, 99)), append(without, percentile(idle, 99))
		rate = append(rate, mibPerSecond(after.Hydration.Copied-before.Hydration.Copied, busyTime))
		fmt.Fprintf(b.log, "run %d: p50 %.0f us, p99 %.0f us while copying at %.0f MiB/s; p50 %.0f us, p99 %.0f us without\n", run+1,
			percentile(busy, 50), with[run], rate[run], percentile(idle, 50), without[run])
	}
	return []result{compare("busy.local.p99", "us", "lower", "the same while the copy is paused", with, without)}, b.drop(ctx, c, id)
}

// absent compares reads of blocks that are still at the source, over a link with a round trip of 1 ms, with reads from the source's
// export by a client that does nothing else.
func (b *busy) absent(ctx context.Context) (results []result, err error) {
	link, err := newDelay(b.source.address, busyDelay)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, link.close()) }()
	cfg, err := fleetca.ClientConfig(filepath.Join(b.dir, "b", "tls"), "a")
	if err != nil {
		return nil, err
	}
	direct, err := nbd.Dial(ctx, nbd.ClientConfig{Network: "tcp", Address: link.address(), Export: b.export.Name, TLS: cfg})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, direct.Close()) }()
	for _, copying := range []bool{false, true} {
		var theirs, ours []float64
		for run := range b.runs {
			id := drover.LayerID(fmt.Sprintf("vol_bench.absent%v%d", copying, run))
			c, err := b.clone(ctx, id, link.address())
			if err != nil {
				return nil, err
			}
			if err := c.ReadAt(ctx, make([]byte, busyBlock), 0); err != nil { // what the parent has is asked once
				return nil, err
			}
			alone, err := readScattered(ctx, direct, uint64(run))
			if err != nil {
				return nil, err
			}
			if copying {
				if err := b.target.PauseHydration(ctx, id, false); err != nil {
					return nil, err
				}
			}
			took, err := readScattered(ctx, c, uint64(run)+100)
			if err != nil {
				return nil, err
			}
			ours, theirs = append(ours, percentile(took, 50)), append(theirs, percentile(alone, 50))
			fmt.Fprintf(b.log, "run %d, copying %v: p50 %.0f us, p99 %.0f us; from the source p50 %.0f us, p99 %.0f us\n", run+1, copying,
				ours[run], percentile(took, 99), theirs[run], percentile(alone, 99))
			if err := b.drop(ctx, c, id); err != nil {
				return nil, err
			}
		}
		name := "busy.absent.paused"
		if copying {
			name = "busy.absent.copying"
		}
		results = append(results, compare(name, "us", "lower", "a read from the source's export", ours, theirs))
	}
	return results, nil
}

// hydrated compares the throughput of a layer that was filled from another host with that of one that was written here.
func (b *busy) hydrated(ctx context.Context) ([]result, error) {
	const moved, stayed, area = "vol_bench.moved", "vol_stayed", int64(1 << 30)
	mc, err := b.clone(ctx, moved, b.source.address)
	if err != nil {
		return nil, err
	}
	if err := b.target.PauseHydration(ctx, moved, false); err != nil {
		return nil, err
	}
	if _, err := b.target.CreateLayer(ctx, drover.LayerSpec{ID: stayed, Disk: stayed, Size: busySize}); err != nil {
		return nil, err
	}
	sc, err := b.open(ctx, stayed)
	if err != nil {
		return nil, err
	}
	err = testkit.Eventually(ctx, 5*time.Minute, "hydration", func() (bool, error) {
		status, err := b.target.Layer(ctx, moved)
		return err == nil && status.Hydration.Done, err
	})
	if err != nil {
		return nil, err
	}
	p := make([]byte, 1<<20)
	for off := int64(0); off < area; off += 2 << 20 { // the same content in both; data is in every other MiB
		if err := mc.ReadAt(ctx, p, off); err != nil {
			return nil, err
		}
		if err := sc.WriteAt(ctx, p, off, false); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(sc.Flush(ctx), mc.Flush(ctx)); err != nil {
		return nil, err
	}
	// Both come into the page cache in one way. What was written here is there in larger pieces than what was read, for as long as it stays.
	if err := dropCaches(); err != nil {
		return nil, err
	}
	for off := int64(0); off < area; off += 2 << 20 {
		if err := errors.Join(mc.ReadAt(ctx, p, off), sc.ReadAt(ctx, p, off)); err != nil {
			return nil, err
		}
	}
	var results []result
	for _, write := range []bool{false, true} {
		var ours, theirs []float64
		for run := range 2 * b.runs {
			var rates [2]float64
			for i := range rates { // each is first as often as the other
				c := []*nbd.Client{mc, sc}[(i+run)%2]
				if rates[(i+run)%2], err = throughput(ctx, c, area, write); err != nil {
					return nil, err
				}
			}
			a, o := rates[0], rates[1]
			ours, theirs = append(ours, a), append(theirs, o)
			fmt.Fprintf(b.log, "run %d, writes %v: %.0f/s after a move, %.0f/s without\n", run+1, write, a, o)
		}
		name := "busy.hydrated.reads"
		if write {
			name = "busy.hydrated.writes"
		}
		results = append(results, compare(name, "1/s", "higher", "a layer that was never moved", ours, theirs))
	}
	return results, errors.Join(b.drop(ctx, mc, moved), b.drop(ctx, sc, stayed))
}

// dropCaches empties the page cache of what is on disk already.
func dropCaches() (err error) {
	f, err := os.OpenFile("/proc/sys/vm/drop_caches", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.WriteString("1")
	return err
}

// readRandomly reads blocks at depth 1 for a time, and returns how long each took, in microseconds.
func readRandomly(ctx context.Context, c *nbd.Client, area int64, d time.Duration) ([]float64, error) {
	var took []float64
	p := make([]byte, busyBlock)
	for begun := time.Now(); time.Since(begun) < d; {
		at := time.Now()
		if err := c.ReadAt(ctx, p, rand.Int64N(area/busyBlock)*busyBlock); err != nil {
			return nil, err
		}
		took = append(took, float64(time.Since(at).Nanoseconds())/1e3)
	}
	return took, nil
}

// readScattered reads single blocks of data that are far from each other.
func readScattered(ctx context.Context, c *nbd.Client, seed uint64) ([]float64, error) {
	r := rand.New(rand.NewPCG(seed, 1))
	var took []float64
	p := make([]byte, busyBlock)
	for _, slot := range r.Perm(int(busyData / drover.MiB))[:400] { // data is in every other MiB
		at := time.Now()
		if err := c.ReadAt(ctx, p, int64(slot)*(2<<20)+r.Int64N(200)*busyBlock); err != nil {
			return nil, err
		}
		took = append(took, float64(time.Since(at).Nanoseconds())/1e3)
	}
	return took, nil
}

// throughput is how many random blocks per second are read or written at depth 32.
func throughput(ctx context.Context, c *nbd.Client, area int64, write bool) (float64, error) {
	group, ctx := errgroup.WithContext(ctx)
	var mu sync.Mutex
	total, begun := 0, time.Now()
	for range 32 {
		group.Go(func() error {
			p, n := make([]byte, busyBlock), 0
			for ; time.Since(begun) < busyTime/2; n++ {
				off := rand.Int64N(area>>21)<<21 + rand.Int64N(256)*busyBlock
				err := error(nil)
				if write {
					err = c.WriteAt(ctx, p, off, false)
				} else {
					err = c.ReadAt(ctx, p, off)
				}
				if err != nil {
					return err
				}
			}
			mu.Lock()
			defer mu.Unlock()
			total += n
			return nil
		})
	}
	err := group.Wait()
	return float64(total) / time.Since(begun).Seconds(), err
}

func percentile(values []float64, p int) float64 {
	s := slices.Sorted(slices.Values(values))
	return s[max((len(s)*p+99)/100, 1)-1]
}
