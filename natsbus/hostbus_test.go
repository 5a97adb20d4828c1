package natsbus

import (
	"context"
	"testing"

	"drover"
)

func TestAStatusOfAnOlderEpochNeverReplacesANewer(t *testing.T) {
	conn := connect(t, startServer(t, t.TempDir(), 0).ClientURL())
	b := open[drover.MachineStatus](t, conn, BucketStatus)
	old, niu := NewHostBus(conn, "h1"), NewHostBus(conn, "h2")
	ctx := t.Context()
	publish := func(bus *HostBus, host drover.HostID, epoch drover.Epoch, state drover.MachineState) error {
		return bus.PublishStatus(ctx, drover.MachineStatus{Machine: "m1", Host: host, Epoch: epoch, State: state})
	}
	if err := publish(old, "h1", 5, drover.StateStarted); err != nil {
		t.Fatal(err)
	}
	if err := publish(niu, "h2", 9, drover.StateStarting); err != nil {
		t.Fatal(err)
	}
	wantCode(t, publish(old, "h1", 5, drover.StateStopped), drover.Conflict)
	if err := publish(niu, "h2", 9, drover.StateStarted); err != nil {
		t.Fatal(err)
	}
	wantCode(t, publish(old, "h1", 5, drover.StateFailed), drover.Conflict)
	wantCode(t, publish(niu, "h2", 8, drover.StateFailed), drover.Conflict)
	s, _, err := b.Get(ctx, StatusKey("m1", "h2"))
	if err != nil || s.Host != "h2" || s.State != drover.StateStarted {
		t.Fatalf("status is %+v, %v", s, err)
	}
}

func TestAStatusIsWrittenAgainAfterItWasRemoved(t *testing.T) {
	conn := connect(t, startServer(t, t.TempDir(), 0).ClientURL())
	b := open[drover.MachineStatus](t, conn, BucketStatus)
	ctx := t.Context()
	bus, key := NewHostBus(conn, "h1"), StatusKey("m1", "h1")
	for _, state := range []drover.MachineState{drover.StateCreated, drover.StateStarting, drover.StateStarted} {
		if err := bus.PublishStatus(ctx, drover.MachineStatus{Machine: "m1", Host: "h1", Epoch: 5, State: state}); err != nil {
			t.Fatal(err)
		}
		if s, _, err := b.Get(ctx, key); err != nil || s.State != state {
			t.Fatalf("status is %+v, %v", s, err)
		}
		if state == drover.StateStarting {
			if _, err := b.Delete(ctx, key, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	// An agent that starts anew does not know what the one before it wrote.
	if err := NewHostBus(conn, "h1").PublishStatus(ctx, drover.MachineStatus{Machine: "m1", Host: "h1", Epoch: 6, State: drover.StateStopped}); err != nil {
		t.Fatal(err)
	}
	if s, _, err := b.Get(ctx, key); err != nil || s.State != drover.StateStopped {
		t.Fatalf("status is %+v, %v", s, err)
	}
}

func TestPlacementHasItsRevisionAsEpoch(t *testing.T) {
	conn := connect(t, startServer(t, t.TempDir(), 0).ClientURL())
	b := open[drover.Placement](t, conn, BucketPlacements)
	rev := mustCreate(t, b, "m1", drover.Placement{Machine: "m1", Host: "h1"})
	bus := NewHostBus(conn, "h1")
	if p, err := bus.Placement(t.Context(), "m1"); err != nil || p.Epoch != drover.Epoch(rev) || p.Host != "h1" {
		t.Fatalf("placement is %+v, %v", p, err)
	}
	next, err := b.Update(t.Context(), "m1", drover.Placement{Machine: "m1", Host: "h2", Migration: "mig_1"}, rev)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := bus.Placement(t.Context(), "m1"); err != nil || p.Epoch != drover.Epoch(next) || p.Host != "h2" {
		t.Fatalf("placement is %+v, %v", p, err)
	}
}

func TestInfoIsStoredOnChangeAndSeenEachTime(t *testing.T) {
	conn := connect(t, startServer(t, t.TempDir(), 0).ClientURL())
	b := open[drover.HostInfo](t, conn, BucketHosts)
	ctx, cancel := context.WithCancel(t.Context())
	seen, ended := make(chan drover.HostInfo, 100), make(chan error, 1)
	go func() { ended <- WatchSeen(ctx, conn, func(i drover.HostInfo) { seen <- i }) }()
	bus := NewHostBus(conn, "h1")
	info := drover.HostInfo{ID: "h1", Region: "ams", Memory: 8 * drover.GiB}
	eventually(t, "a sign of life is heard", func() bool {
		if err := bus.PublishInfo(ctx, info); err != nil {
			t.Fatal(err)
		}
		return len(seen) > 0
	})
	for len(seen) > 0 {
		<-seen
	}
	_, first, err := b.Get(ctx, "h1")
	if err != nil {
		t.Fatal(err)
	}
	info.MemoryUsed = drover.GiB
	if err := bus.PublishInfo(ctx, info); err != nil {
		t.Fatal(err)
	}
	for got := range seen { // a sign of before may still be under way
		if got.MemoryUsed == drover.GiB {
			break
		}
	}
	if _, rev, err := b.Get(ctx, "h1"); err != nil || rev != first {
		t.Fatalf("a change of use alone was stored: revision %d after %d, %v", rev, first, err)
	}
	info.Region = "fra"
	if err := bus.PublishInfo(ctx, info); err != nil {
		t.Fatal(err)
	}
	if got, rev, err := b.Get(ctx, "h1"); err != nil || rev == first || got.Region != "fra" {
		t.Fatalf("stored: %+v at %d, %v", got, rev, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}
