package qemu

import (
	"context"
	"net"
	"time"

	"drover"
)

// awaitDisks waits until the sockets of disks over vhost-user-blk can be connected to, for diskWait at most. QEMU itself would wait for
// ever, without a word.
func (d *Driver) awaitDisks(ctx context.Context, spec drover.VMSpec) error {
	ctx, cancel := context.WithTimeout(ctx, d.diskWait)
	defer cancel()
	for _, at := range disks(spec) {
		if at.Transport != drover.TransportVhost {
			continue
		}
		for {
			c, err := net.Dial("unix", at.Socket)
			if err == nil {
				if err := c.Close(); err != nil {
					d.cfg.Log.Debug("a connection that was only tried ended with an error", "err", err)
				}
				break
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return drover.Errorf(drover.Unavailable, "machine %q: the storage daemon does not serve its disk at %s: %w", spec.Machine, at.Socket, err)
			}
		}
	}
	return nil
}
