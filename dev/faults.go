package dev

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"drover"
	"drover/internal/fault"
)

// maxClockOff bounds how wrong a host's clock may be made: certificates hold for longer.
const maxClockOff = 24 * time.Hour

// CutBetween drops everything between the host and others, in both directions, until Heal of the host.
func (f *Fleet) CutBetween(ctx context.Context, id drover.HostID, others ...drover.HostID) error {
	return f.SetLink(ctx, id, Link{Without: others})
}

// Fill fills the host's disk until only so much is left free. Precondition when the host has no disk of its own.
func (f *Fleet) Fill(ctx context.Context, id drover.HostID, leave drover.Bytes) error {
	return f.askRack(ctx, killTimeout, request{Op: "fill", Host: id, Leave: leave})
}

// Unfill takes away what Fill put there.
func (f *Fleet) Unfill(ctx context.Context, id drover.HostID) error {
	return f.askRack(ctx, killTimeout, request{Op: "unfill", Host: id})
}

// SetClock makes the clock of the host's agent and controller wrong by an offset, from now on and after power cuts too; 0 makes it right.
// Only these two read it (see fault.Clock): the storage daemon decides nothing by the time of day, and guests have clocks of their own.
func (f *Fleet) SetClock(id drover.HostID, offset time.Duration) error {
	layout, err := loadLayout(f.p)
	if err != nil {
		return err
	}
	if _, err := layout.host(id); err != nil {
		return err
	}
	if offset.Abs() > maxClockOff {
		return drover.Errorf(drover.Invalid, "a clock that is %s off is not between %s and %s", offset, -maxClockOff, maxClockOff).WithField("off")
	}
	if err := fault.SetClock(f.p.faults(id), offset); err != nil {
		return drover.Errorf(drover.Internal, "cannot set the clock of host %q: %w", id, err)
	}
	return nil
}

// Release disarms a fault point of a host, and lets the process that is held there go on.
func (f *Fleet) Release(id drover.HostID, point string) error {
	layout, err := loadLayout(f.p)
	if err != nil {
		return err
	}
	if _, err := layout.host(id); err != nil {
		return err
	}
	if err := fault.Release(f.p.faults(id), filepath.Base(point)); err != nil {
		return drover.Errorf(drover.Internal, "cannot release %q on host %q: %w", point, id, err)
	}
	return nil
}

// Held reports whether a process of the host is held at the fault point.
func (f *Fleet) Held(id drover.HostID, point string) bool { return fault.Held(f.p.faults(id), point) }

// KillVM ends the VM of a machine on the host by SIGKILL, as a crash of the VMM does. NotFound when the host runs none.
func (f *Fleet) KillVM(ctx context.Context, id drover.HostID, machine drover.MachineID) error {
	rack, err := f.rack(ctx)
	if err != nil {
		return drover.Errorf(drover.Precondition, "the fleet in %q is not up: %w", f.p.dir(), err).WithHint("drover dev up")
	}
	layout, err := loadLayout(f.p)
	if err != nil {
		return err
	}
	if _, err := layout.host(id); err != nil {
		return err
	}
	for _, v := range rack.Hosts {
		if v.ID != id || v.PID == 0 {
			continue
		}
		var vms []int
		for _, pid := range descendants(v.PID)[1:] {
			if isVMOf(pid, machine) {
				vms = append(vms, pid)
			}
		}
		if len(vms) > 0 {
			if err := killAll(vms); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, killTimeout)
			defer cancel()
			return waitGone(ctx, vms...)
		}
	}
	return drover.Errorf(drover.NotFound, "host %q runs no VM of machine %q", id, machine)
}

// isVMOf reports whether a process is a VMM that was started for the machine.
func isVMOf(pid int, machine drover.MachineID) bool {
	line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return false
	}
	program, rest, _ := bytes.Cut(line, []byte{0})
	return strings.HasPrefix(filepath.Base(string(program)), "qemu-system") && machine != "" && bytes.Contains(rest, []byte(machine))
}
