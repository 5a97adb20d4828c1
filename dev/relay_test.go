package dev

import (
	"testing"
	"time"

	"drover"
)

// send offers frames of a size at one moment and returns when each is due; dropped ones are not in the result.
func send(l *lane, now time.Time, count, size int) []time.Duration {
	var due []time.Duration
	for range count {
		if at, ok := l.admit(now, size); ok {
			due = append(due, at.Sub(now))
		}
	}
	return due
}

func TestLaneDelaysEachFrame(t *testing.T) {
	l := &lane{delay: 30 * time.Millisecond}
	for _, due := range send(l, time.Now(), 100, 1500) {
		if due != 30*time.Millisecond {
			t.Fatalf("due after %s", due)
		}
	}
}

func TestLaneKeepsTheRateAndDropsWhatWouldWait(t *testing.T) {
	l := &lane{rate: drover.MiB}
	now := time.Now()
	due := send(l, now, 1000, 16<<10)
	// The bound is a backlog of 200 ms: twelve frames of 16 KiB at 1 MiB/s, and the one that goes beyond.
	if len(due) != 13 {
		t.Errorf("%d frames were taken", len(due))
	}
	if last := due[len(due)-1]; last <= maxBacklog || last > maxBacklog+20*time.Millisecond {
		t.Errorf("the last frame is due after %s", last)
	}
	// Half a second later the wire is free again.
	if later := send(l, now.Add(500*time.Millisecond), 1, 16<<10); len(later) != 1 || later[0] != 15625*time.Microsecond {
		t.Errorf("later: %v", later)
	}
}

func TestLaneIsBounded(t *testing.T) {
	l := &lane{delay: time.Second}
	taken := len(send(l, time.Now(), 3000, 64<<10))
	if taken*(64<<10) > maxQueued || taken == 0 {
		t.Errorf("%d frames of 64 KiB were taken", taken)
	}
	l.drop(64 << 10)
	if n := len(send(l, time.Now(), 2, 64<<10)); n != 1 {
		t.Errorf("%d frames fit where one had left", n)
	}
}
