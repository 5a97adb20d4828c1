package main

import (
	"time"

	"golang.org/x/sys/unix"

	"drover"
	"drover/guest"
)

// setClock sets the wall clock. One that is nearly right stays: a jump costs programs more than the difference.
func setClock(now time.Time) error {
	if now.Unix() <= 0 {
		return drover.Errorf(drover.Invalid, "%s is no time that a clock could be set to", now)
	}
	if off := time.Since(now.Round(0)); off.Abs() < guest.ClockSlack {
		return nil
	}
	ts := unix.NsecToTimespec(now.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return drover.Errorf(drover.Internal, "cannot set the clock: %w", err)
	}
	return nil
}
