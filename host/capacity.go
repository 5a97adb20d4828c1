package host

import (
	"drover"
)

// capacity is what the host has left. What was promised counts as used: memory of machines that are stopped, and memory and disk of
// migrations that are on their way here. A suspended machine has given its memory back, and must find room again when it is started.
type capacity struct {
	memoryTotal, memoryUsed drover.Bytes
	// diskRaw is what the file system has free, diskFree what is left of it after the reserve and the promises.
	diskTotal, diskRaw, diskFree drover.Bytes
	// provisioned is what the volumes may grow to together (see wholeRoom).
	provisioned drover.Bytes
	machines    int
	// disk is why the disk is not to be trusted with anything new; nil when it is.
	disk *drover.Error
	// cpuTotal and cpuUsed are in thousandths of a CPU.
	cpuTotal, cpuUsed int
}

func (c capacity) memoryFree() drover.Bytes { return max(c.memoryTotal-c.memoryUsed, 0) }

// room counts what is used, as if the machine except were not there, nor what is held with the volumes. The caller holds
// capacity.
func (a *Agent) room(except drover.MachineID, volumes ...drover.VolumeID) (capacity, error) {
	c := capacity{memoryTotal: a.cfg.Memory, cpuTotal: a.cfg.cpuTotal(), disk: a.trial.refusal(a.cfg.ID)}
	c.memoryUsed, c.cpuUsed = a.held(volumes)
	promised := drover.Bytes(0)
	for _, m := range a.list() {
		r := m.rec.Load()
		spec, ok := r.spec()
		if !ok || m.id == except || r.Obs.Status.State == drover.StateDestroyed {
			continue
		}
		if r.Desired != nil {
			c.machines++
		}
		if !r.asleep() {
			c.memoryUsed += drover.Bytes(spec.Config.WithDefaults().Guest.MemoryMB) * drover.MiB
			c.cpuUsed += a.cfg.cpuNeed(spec.Config.WithDefaults().Guest)
		}
		if t := r.target(); t != nil && t.Reserve != nil && !t.Hydrated {
			promised += t.Reserve.Disk
		}
	}
	var err error
	c.diskTotal, c.diskRaw, err = a.cfg.DiskSpace(a.cfg.DataDir)
	c.diskFree = max(c.diskRaw-a.cfg.DiskReserve-promised, 0)
	return c, err
}

// refusals says in words for the user why a machine of the size does not fit; none when it does.
func (c capacity) refusals(cfg Config, size drover.Guest, disk drover.Bytes) []*drover.Error {
	var out []*drover.Error
	need := drover.Bytes(size.MemoryMB) * drover.MiB
	if free := c.memoryFree(); need > free {
		out = append(out, drover.Errorf(drover.Exhausted, "host %q has %d MiB of memory left of %d MiB, the machine needs %d MiB", cfg.ID,
			free/drover.MiB, c.memoryTotal/drover.MiB, size.MemoryMB).WithField("config.guest.memory_mb"))
	}
	if size.CPUs > cfg.CPUs {
		out = append(out, drover.Errorf(drover.Exhausted, "host %q has %d CPUs, the machine needs %d", cfg.ID, cfg.CPUs, size.CPUs).
			WithField("config.guest.cpus"))
	}
	if need := cfg.cpuNeed(size); size.CPUs > 0 && size.CPUs <= cfg.CPUs && need > c.cpuTotal-c.cpuUsed {
		out = append(out, drover.Errorf(drover.Exhausted, "host %q has %.2f of its %.2f CPUs left, the machine needs %.2f", cfg.ID,
			float64(max(c.cpuTotal-c.cpuUsed, 0))/cpuUnit, float64(c.cpuTotal)/cpuUnit, float64(need)/cpuUnit).WithField("config.guest.cpus"))
	}
	if why := cfg.dedicated(size.HostDedicationID); why != "" {
		out = append(out, drover.Errorf(drover.Exhausted, "%s", why).WithField("config.guest.host_dedication_id"))
	}
	if c.disk != nil {
		out = append(out, c.disk)
	}
	switch {
	case c.diskFree == 0:
		out = append(out, drover.Errorf(drover.Exhausted, "host %q has no disk left: what is free of it is promised or kept for the host itself", cfg.ID))
	case disk > c.diskFree:
		out = append(out, drover.Errorf(drover.Exhausted, "host %q has %d MiB of disk left, %d MiB are needed", cfg.ID,
			c.diskFree/drover.MiB, disk/drover.MiB))
	}
	return out
}

// checkMachine refuses a machine that does not fit. The caller holds capacity.
func (a *Agent) checkMachine(m drover.Machine) error { return a.checkRoom(m, 0) }

// checkRoom refuses a machine that does not fit with what its disks hold. The caller holds capacity.
func (a *Agent) checkRoom(m drover.Machine, disk drover.Bytes) error {
	c, err := a.room(m.ID, mountsOf(m)...)
	if err != nil {
		return err
	}
	if no := c.refusals(a.cfg, m.Config.WithDefaults().Guest, disk); len(no) > 0 {
		return no[0]
	}
	return nil
}
