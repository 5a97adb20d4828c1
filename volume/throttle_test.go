package volume

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"drover"
)

// The tests of this file run on a simulated clock (testing/synctest): what takes seconds here takes none.

// limited is a session of a layer, for what needs nothing of it but its name and its end.
func limited(ctx context.Context) (*session, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	return &session{layer: &layer{id: "vol_a"}, epoch: 1, ctx: ctx, cancel: cancel}, cancel
}

// load sends requests of n bytes on the session, depth at a time, until the context ends, and counts those that went on.
func load(ctx context.Context, t *throttle, s *session, depth int, n int64) *atomic.Int64 {
	var count atomic.Int64
	for range depth {
		go func() {
			for t.wait(ctx, s, n) == nil {
				count.Add(1)
			}
		}()
	}
	return &count
}

// within fails unless got is at most a share away from want.
func within(t *testing.T, what string, got, want int64, share float64) {
	t.Helper()
	if d := float64(got - want); d > share*float64(want) || -d > share*float64(want) {
		t.Errorf("%s: %d, want %d within %.0f %%", what, got, want, 100*share)
	}
}

func TestLimitsHoldOverSeconds(t *testing.T) {
	for _, c := range []struct {
		name   string
		limits drover.Limits
		size   int64
		want   int64 // requests per second
	}{
		{"operations", drover.Limits{IOPS: 500}, 4096, 500},
		{"very many operations", drover.Limits{IOPS: 20_000}, 4096, 20_000},
		{"few operations", drover.Limits{IOPS: 7}, 4096, 7},
		{"bytes", drover.Limits{BytesPerSecond: 50 * drover.MiB}, mib, 50},
		{"bytes in requests larger than the burst", drover.Limits{BytesPerSecond: 8 * drover.MiB}, 4 * mib, 2},
		{"operations before bytes", drover.Limits{IOPS: 100, BytesPerSecond: 50 * drover.MiB}, 4096, 100},
		{"bytes before operations", drover.Limits{IOPS: 100, BytesPerSecond: 5 * drover.MiB}, mib, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const seconds = 10
				throttle := newThrottle(c.limits)
				ctx, cancel := context.WithTimeout(t.Context(), seconds*time.Second)
				defer cancel()
				var counts []*atomic.Int64
				for range 3 {
					s, _ := limited(t.Context())
					counts = append(counts, load(ctx, throttle, s, 4, c.size))
				}
				<-ctx.Done()
				synctest.Wait()
				sum := int64(0)
				for _, n := range counts {
					sum += n.Load()
				}
				within(t, "requests", sum, seconds*c.want, 0.1)
			})
		})
	}
}

func TestBurstsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttle := newThrottle(drover.Limits{IOPS: 400})
		for range 2 { // at the start, and after a rest
			burst := 0
			for throttle.try(4096) {
				burst++
			}
			within(t, "burst", int64(burst), 100, 0.02)
			<-time.After(time.Hour)
		}
	})
}

// A request that was not made after all costs nothing.
func TestGivenBackRequestsCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttle := newThrottle(drover.Limits{IOPS: 4, BytesPerSecond: drover.MiB})
		for range 1000 {
			if !throttle.try(mib) {
				t.Fatal("what was given back was paid for")
			}
			throttle.giveBack(mib)
		}
	})
}

// Many requests in flight do not buy a larger share, and neither do large ones.
func TestConnectionsShareTheLimits(t *testing.T) {
	for _, c := range []struct {
		name         string
		limits       drover.Limits
		heavy, light int   // requests in flight
		large, small int64 // bytes
	}{
		{"deep and shallow", drover.Limits{IOPS: 1000}, 64, 2, 4096, 4096},
		{"large and small", drover.Limits{BytesPerSecond: 16 * drover.MiB}, 8, 8, mib, 64 << 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				throttle := newThrottle(c.limits)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				a, _ := limited(t.Context())
				b, _ := limited(t.Context())
				heavy, light := load(ctx, throttle, a, c.heavy, c.large), load(ctx, throttle, b, c.light, c.small)
				<-ctx.Done()
				synctest.Wait()
				within(t, "bytes of the light connection", light.Load()*c.small, heavy.Load()*c.large, 0.1)
			})
		})
	}
}

func TestLimitsChangeForThoseThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttle := newThrottle(drover.Limits{IOPS: 100})
		ctx, cancel := context.WithCancel(t.Context())
		s, _ := limited(t.Context())
		count := load(ctx, throttle, s, 8, 4096)
		rate := func(limits drover.Limits) int64 {
			throttle.set(limits)
			<-time.After(time.Second) // what is left of the burst
			before := count.Load()
			<-time.After(10 * time.Second)
			return (count.Load() - before) / 10
		}
		within(t, "more", rate(drover.Limits{IOPS: 1000}), 1000, 0.02)
		within(t, "fewer", rate(drover.Limits{IOPS: 10}), 10, 0.1)
		within(t, "in bytes", rate(drover.Limits{BytesPerSecond: 4096 * 50}), 50, 0.05)
		cancel()
		synctest.Wait()
		throttle.set(drover.Limits{})
		if a, b := throttle.try(1<<40), throttle.try(1<<40); !a || !b {
			t.Error("without limits something waits")
		}
	})
}

func TestWhatEndsIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttle := newThrottle(drover.Limits{IOPS: 1})
		a, _ := limited(t.Context())
		b, end := limited(t.Context())
		if err := throttle.wait(t.Context(), a, 0); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		results := make(chan error, 2)
		go func() { results <- throttle.wait(ctx, a, 0) }()
		go func() { results <- throttle.wait(t.Context(), b, 0) }()
		synctest.Wait()
		cancel()
		wantCode(t, <-results, drover.Canceled)
		end(errors.New("the connection has ended"))
		wantCode(t, <-results, drover.Unavailable)
		if len(throttle.lines) != 0 {
			t.Errorf("%d lines are left", len(throttle.lines))
		}
		begun := time.Now()
		if err := throttle.wait(t.Context(), a, 0); err != nil || time.Since(begun) > time.Second {
			t.Errorf("%v after %s: what was not made was paid for", err, time.Since(begun))
		}
	})
}
