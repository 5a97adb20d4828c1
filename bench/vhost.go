package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"drover"
	"drover/vhostuser/vhosttest"
)

const (
	// vhostTime is how long one workload is measured on one disk before the next has its turn, vhostRounds how often for each of the runs.
	vhostTime   = 50 * time.Millisecond
	vhostRounds = 20
	// vhostRing is how many descriptors a ring has: three for each of 32 requests, and some.
	vhostRing = 128
)

// measureVhost measures disks by their rings: this process has the memory and the ring of a guest, so that what a VM adds, which under emulation is ten times
// what it asks for, is left out. Drover's disk and those of qemu-storage-daemon have equal files, and their turns one after another.
func measureVhost(ctx context.Context, s setup) (results []result, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d, err := startDaemon(ctx, s, "a")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	raw := filepath.Join(s.dir, "raw")
	if err := writeData(raw, guestDisk); err != nil {
		return nil, err
	}
	if _, err := d.fillVolume(ctx, "vol_vhost", raw, guestDisk); err != nil {
		return nil, err
	}
	at, err := d.Open(ctx, "vol_vhost", 1)
	if err != nil {
		return nil, err
	}
	sockets := []string{at.VhostSocket}
	// In a guest no thread pool was the fastest at anything; without one they might be.
	peers := append(guestPeers(), guestPeer{name: "threads"}, guestPeer{name: "threads, iothread", export: ",iothread=io", args: guestPeers()[1].args})
	var running []*exec.Cmd
	defer func() {
		cancel() // which ends them by a signal
		for _, cmd := range running {
			_ = cmd.Wait()
		}
	}()
	for i, p := range peers {
		cmd, listens, err := p.start(ctx, s, fmt.Sprintf("peer%d", i), raw)
		if cmd != nil {
			running = append(running, cmd)
		}
		if err != nil {
			return nil, err
		}
		sockets = append(sockets, listens)
	}
	return driveRings(sockets, peers, s.runs*vhostRounds)
}

// ringWork is a workload: requests of 4 KiB at random places.
type ringWork struct {
	name  string
	kind  uint32
	depth int
}

// driveRings measures every workload on every disk, the first of which is Drover's.
func driveRings(sockets []string, peers []guestPeer, rounds int) (results []result, err error) {
	tb := &ringTB{}
	defer func() {
		if failed, ok := recover().(ringFailure); ok {
			err = failed.err
		}
		tb.end()
	}()
	var disks []*vhosttest.Frontend
	for i, socket := range sockets {
		f := vhosttest.NewFrontend(vhosttest.NewGuest(tb, vhostRing))
		if err := f.Accept(socket); err != nil {
			return nil, err
		}
		if i == 0 {
			f.Begin(0)
		} else { // a peer that is not to be restarted has nothing in flight to keep
			f.Hello()
			f.Set(vhosttest.SetMemTable, vhosttest.MemTable(), f.FD(), f.FD())
			f.BeginRing(0, 0)
		}
		disks = append(disks, f)
	}
	random := rand.New(rand.NewPCG(1, 1))
	for _, w := range []ringWork{{"randread-1", vhosttest.In, 1}, {"randread-32", vhosttest.In, 32}, {"randwrite-1", vhosttest.Out, 1}, {"randwrite-32", vhosttest.Out, 32}} {
		rates, p99 := make([][]float64, len(disks)), make([][]float64, len(disks))
		for round := range rounds {
			for n := range disks {
				i := (n + round) % len(disks)
				rate, slow, err := w.turn(disks[i], random)
				if err != nil {
					return results, err
				}
				rates[i], p99[i] = append(rates[i], rate), append(p99[i], slow)
			}
		}
		best := 1
		for i := range peers {
			if median(rates[1+i]) > median(rates[best]) {
				best = 1 + i
			}
		}
		name := "qemu-storage-daemon " + peers[best-1].name
		results = append(results, comparePairs("vhost."+w.name, "1/s", "higher", name, rates[0], rates[best]),
			comparePairs("vhost."+w.name+".p99", "us", "lower", name, p99[0], p99[best]))
	}
	return results, nil
}

// turn keeps so many requests in flight for a while, and returns how many were done per second and the 99th percentile of how long they took.
func (w ringWork) turn(f *vhosttest.Frontend, random *rand.Rand) (perSecond, p99us float64, err error) {
	slots, begun := map[uint16]*vhosttest.Slot{}, map[uint16]time.Time{}
	submit := func(s *vhosttest.Slot) {
		at := time.Now()
		head := s.Submit(w.kind, uint64(random.Int64N(int64(guestDisk)/int64(drover.BlockSize))*int64(drover.BlockSize)/512))
		slots[head], begun[head] = s, at
	}
	start := time.Now()
	for i := range w.depth {
		submit(f.Slot(i, int(drover.BlockSize)))
	}
	var took []float64
	for len(slots) > 0 {
		head, _ := f.Await()
		s := slots[head]
		if s.Status() != vhosttest.OK {
			return 0, 0, fmt.Errorf("%s: a request ended with status %d", w.name, s.Status())
		}
		took = append(took, float64(time.Since(begun[head]).Nanoseconds())/1000)
		delete(slots, head)
		if time.Since(start) < vhostTime {
			submit(s)
		}
	}
	elapsed := time.Since(start)
	slices.Sort(took)
	return float64(len(took)) / elapsed.Seconds(), percentile(took, 99), nil
}

// ringTB is what a vhosttest.Guest needs where there is no test: a failure ends the bench by a panic with a ringFailure.
type ringTB struct{ cleanups []func() }

type ringFailure struct{ err error }

var _ vhosttest.TB = (*ringTB)(nil)

func (*ringTB) Helper()                           {}
func (*ringTB) Fatal(args ...any)                 { panic(ringFailure{errors.New(fmt.Sprint(args...))}) }
func (*ringTB) Fatalf(format string, args ...any) { panic(ringFailure{fmt.Errorf(format, args...)}) }
func (t *ringTB) Cleanup(f func())                { t.cleanups = append(t.cleanups, f) }

// end does what was to be done at the end, the last first.
func (t *ringTB) end() {
	for _, f := range slices.Backward(t.cleanups) {
		f()
	}
}
