package guest

import (
	"context"
	"time"

	"drover"
)

// Freeze flushes the file system of a volume and holds all writes to it, until Thaw or until the time is over: then the guest goes on by
// itself. Conflict when it is frozen already, Precondition when the guest is too old to know how.
func (c *Client) Freeze(ctx context.Context, volume drover.VolumeID, most time.Duration) error {
	_, err := c.call(ctx, Request{Op: OpFreeze, Volume: string(volume), Timeout: drover.Duration(most)})
	return tooOld(err, "freeze a file system")
}

// Thaw ends a Freeze. Precondition when its time was over before: the file system may have been written since.
func (c *Client) Thaw(ctx context.Context, volume drover.VolumeID) error {
	_, err := c.call(ctx, Request{Op: OpThaw, Volume: string(volume)})
	return tooOld(err, "thaw a file system")
}

// Grow makes the file system of a volume as large as its disk, once the guest sees that the disk has that size: Unavailable when it does
// not within seconds. Precondition when the guest is too old to know how.
func (c *Client) Grow(ctx context.Context, volume drover.VolumeID, size drover.Bytes) error {
	_, err := c.call(ctx, Request{Op: OpGrow, Volume: string(volume), Size: size})
	return tooOld(err, "make a file system larger while it runs")
}

// SetClock sets the guest's wall clock. Precondition when the guest is too old to know how.
func (c *Client) SetClock(ctx context.Context, now time.Time) error {
	_, err := c.call(ctx, Request{Op: OpClock, Time: now})
	return tooOld(err, "set its clock")
}

// tooOld translates the refusal of a request that the guest does not know. Nothing else in these requests can be Invalid.
func tooOld(err error, what string) error {
	if !drover.Is(err, drover.Invalid) {
		return err
	}
	return drover.Errorf(drover.Precondition, "the machine was started with an older guest, which cannot %s", what).
		WithHint("restart the machine: it gets the present guest then")
}
