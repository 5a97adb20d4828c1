package host

import (
	"fmt"
	"slices"
	"time"

	"drover"
	"drover/boltstore"
)

// A volume can be made together with room for the machine that is to have it. The room is held until a machine mounts the volume, or a time
// that its record says.

// reservation is the room that is held with a volume.
type reservation struct {
	size  drover.Guest
	until time.Time
}

// loadReserved reads what is held from the records of the volumes.
func (a *Agent) loadReserved() error {
	a.capacity.Lock()
	defer a.capacity.Unlock()
	return a.cfg.Store.View(func(tx *boltstore.Tx) error {
		return diskBucket.ForEach(tx, func(_ string, d diskRecord, err error) error {
			if err == nil && d.Reserve != nil {
				a.reserved[d.Volume] = reservation{*d.Reserve, d.ReserveUntil}
			}
			return err
		})
	})
}

// held adds up what is held with volumes, but for those that are named. The caller holds capacity.
func (a *Agent) held(except []drover.VolumeID) (memory drover.Bytes, cpu int) {
	for id, r := range a.reserved {
		if !a.now().Before(r.until) {
			delete(a.reserved, id)
			continue
		}
		if slices.Contains(except, id) {
			continue
		}
		memory += drover.Bytes(r.size.MemoryMB) * drover.MiB
		cpu += a.cfg.cpuNeed(r.size)
	}
	return memory, cpu
}

// hold promises room with a volume, or refuses.
func (a *Agent) hold(v drover.Volume) error {
	if v.Compute == nil || !a.now().Before(v.ReservedUntil) {
		return nil
	}
	a.capacity.Lock()
	defer a.capacity.Unlock()
	c, err := a.room("", v.ID)
	if err != nil {
		return err
	}
	if no := c.refusals(a.cfg, *v.Compute, 0); len(no) > 0 {
		return no[0]
	}
	a.reserved[v.ID] = reservation{*v.Compute, v.ReservedUntil}
	return nil
}

// takeReserved turns what is held with a machine's volumes into the machine's own, in the records.
func (a *Agent) takeReserved(tx *boltstore.Tx, m drover.Machine) error {
	for _, id := range mountsOf(m) {
		d, ok, err := diskBucket.Get(tx, string(id.Disk()))
		if err != nil {
			return err
		}
		if !ok || d.Reserve == nil {
			continue
		}
		d.Reserve, d.ReserveUntil = nil, time.Time{}
		if err := diskBucket.Put(tx, string(id.Disk()), d); err != nil {
			return err
		}
	}
	return nil
}

// letGo gives up what is held with a volume.
func (a *Agent) letGo(id drover.VolumeID) {
	a.capacity.Lock()
	defer a.capacity.Unlock()
	delete(a.reserved, id)
}

// cpuUnit is one CPU, in the thousandths that CPUs are counted in.
const cpuUnit = 1000

// cpuNeed is what a machine takes of the host's CPUs, in thousandths of one: a performance CPU is one for itself, shared ones share.
func (c Config) cpuNeed(g drover.Guest) int {
	if g.CPUKind == drover.CPUPerformance {
		return g.CPUs * cpuUnit
	}
	return max(1, g.CPUs*cpuUnit/c.SharedPerCPU)
}

// cpuTotal is what the host promises in all, in thousandths.
func (c Config) cpuTotal() int { return int(float64(c.CPUs) * c.CPUOvercommit * cpuUnit) }

// fits counts how many machines of a size fit beside what is there, with provision bytes of volumes each.
func (c capacity) fits(cfg Config, g drover.Guest, provision drover.Bytes) int {
	const most = 1 << 20
	n := min(most, max(c.cpuTotal-c.cpuUsed, 0)/max(cfg.cpuNeed(g), 1))
	if need := drover.Bytes(g.MemoryMB) * drover.MiB; need > 0 {
		n = min(n, int(c.memoryFree()/need))
	}
	if provision > 0 {
		n = min(n, int(max(c.mayProvision(cfg)-c.provisioned, 0)/provision))
	}
	return n
}

// mountsOf lists the volumes that a machine mounts.
func mountsOf(m drover.Machine) []drover.VolumeID {
	var ids []drover.VolumeID
	for _, mount := range m.Config.Mounts {
		ids = append(ids, mount.Volume)
	}
	return ids
}

// dedicated says in words why the host is not for a machine or volume that is to be on hosts of a dedication; empty when it is.
func (c Config) dedicated(to string) string {
	switch {
	case c.Dedication == to:
		return ""
	case to == "":
		return fmt.Sprintf("host %q is dedicated to %q", c.ID, c.Dedication)
	}
	return fmt.Sprintf("host %q is not dedicated to %q", c.ID, to)
}
