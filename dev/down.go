package dev

import (
	"context"
	"errors"
	"os"

	"drover"
	"drover/internal/durable"
)

// Down shuts the fleet down and returns when nothing of it is left but its directory, whatever happened to its processes before.
// It may be repeated. Data stays, unless purge is set: then the directory is removed.
func Down(ctx context.Context, dir string, purge bool) error {
	p, err := absolute(dir)
	if err != nil {
		return err
	}
	if _, err := os.Stat(p.dir()); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if _, err := loadLayout(p); err != nil && purge {
		// Never remove a directory that is not a fleet's.
		if entries, readErr := os.ReadDir(p.dir()); readErr == nil && len(entries) > 0 && drover.Is(err, drover.NotFound) {
			return drover.Errorf(drover.Precondition, "%q holds no fleet and is not removed: %w", p.dir(), err)
		}
	}
	return (&Fleet{p: p}).Down(ctx, purge)
}

// Down is the same for a fleet that is at hand.
func (f *Fleet) Down(ctx context.Context, purge bool) error {
	unlock, err := lock(ctx, f.p)
	if err != nil {
		return err
	}
	defer unlock()
	if err := f.endAll(ctx); err != nil {
		return err
	}
	if err := f.removeRunState(); err != nil {
		return err
	}
	if !purge {
		return nil
	}
	if err := durable.Remove(f.p.dir()); err != nil {
		return drover.Errorf(drover.Internal, "cannot remove the fleet's directory: %w", err)
	}
	return nil
}

// endAll ends every process of the fleet: in order if the rack answers, by SIGKILL if not.
func (f *Fleet) endAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, downTimeout)
	defer cancel()
	conn, err := dialDir(ctx, f.p.dir(), rackSocketName)
	if err == nil {
		pid, pidErr := peerPID(conn)
		conn.Close()
		if pidErr != nil {
			return drover.Errorf(drover.Internal, "cannot tell the rack's process: %w", pidErr)
		}
		if err := f.askRack(ctx, ctlDeadline, request{Op: "down"}); err == nil {
			if err := waitGone(ctx, pid); err != nil {
				return err
			}
		}
	}
	// The rack's end took everything with it, or it was gone before; what it could not take is found and killed.
	if err := f.p.fleetMembers().sweep(ctx); err != nil {
		return err
	}
	if f.rackEnded != nil {
		<-f.rackEnded
	}
	return nil
}

// removeRunState removes sockets and run directories: what a power cut takes away.
func (f *Fleet) removeRunState() error {
	errs := []error{durable.Remove(f.p.dir() + "/" + rackSocketName)}
	entries, err := os.ReadDir(f.p.hosts())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		id := drover.HostID(e.Name())
		errs = append(errs, durable.Remove(f.p.run(id, ModeLoopback)), durable.Remove(f.p.host(id)+"/"+hostSocketName))
	}
	if err := errors.Join(errs...); err != nil {
		return drover.Errorf(drover.Internal, "cannot remove the fleet's run state: %w", err)
	}
	return nil
}
