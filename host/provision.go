package host

import (
	"drover"
	"drover/boltstore"
)

// Volumes take space as they are written, so a host may have more of them than fit at their full size: DiskOvercommit times its disk. A
// host that is nearly full takes no new ones in any case. What comes by a move goes by what it holds: a host in trouble must be left.

// notRoot leaves out root disks: on a host with hundreds of machines they are most of the records, and are not filled and do not grow.
func notRoot(key string) bool { return !drover.DiskID(key).IsRoot() }

// provisioned sums up what the volumes of the host may grow to together, with those that are on their way here.
func (a *Agent) provisioned() (drover.Bytes, error) {
	sizes := map[drover.VolumeID]drover.Bytes{}
	for _, m := range a.list() {
		if t := m.rec.Load().target(); t != nil && t.Reserve != nil && !t.Hydrated {
			for _, v := range t.Reserve.Volumes {
				sizes[v.ID] = v.Size
			}
		}
	}
	err := a.cfg.Store.View(func(tx *boltstore.Tx) error {
		return diskBucket.ForEachOf(tx, notRoot, func(_ string, d diskRecord, err error) error {
			if err == nil && d.Volume != "" {
				sizes[d.Volume] = max(d.Size, sizes[d.Volume])
			}
			return err
		})
	})
	for id, size := range a.promised { // their records are still to come
		sizes[id] = max(size, sizes[id])
	}
	if err == nil {
		err = a.cfg.Store.View(func(tx *boltstore.Tx) error {
			return standbyBucket.ForEach(tx, func(_ string, s standbyRecord, err error) error {
				size := s.Size
				if s.Export != nil {
					size = max(size, s.Export.Size)
				}
				if err == nil && s.DroppedAt.IsZero() {
					sizes[s.Volume] = max(size, sizes[s.Volume])
				}
				return err
			})
		})
	}
	sum := drover.Bytes(0)
	for _, size := range sizes {
		sum += size
	}
	return sum, err
}

// wholeRoom is room with what is provisioned, which is read from the journal: it must not be called while the journal is written, and the
// caller holds the lock of the capacity.
func (a *Agent) wholeRoom(except drover.MachineID, volumes ...drover.VolumeID) (capacity, error) {
	c, err := a.room(except, volumes...)
	if err != nil {
		return c, err
	}
	c.provisioned, err = a.provisioned()
	return c, err
}

// mayProvision is what volumes may grow to together.
func (c capacity) mayProvision(cfg Config) drover.Bytes {
	return drover.Bytes(float64(c.diskTotal) * cfg.DiskOvercommit)
}

// provisionRefusals says in words for the user why volumes may not grow by so much more; none when they may.
func (c capacity) provisionRefusals(cfg Config, more drover.Bytes) []*drover.Error {
	if more <= 0 {
		return nil
	}
	var out []*drover.Error
	if most := c.mayProvision(cfg); c.provisioned+more > most {
		out = append(out, drover.Errorf(drover.Exhausted, "host %q has volumes that may grow to %d MiB, and %d MiB more would be more than %g times its disk of %d MiB",
			cfg.ID, c.provisioned/drover.MiB, more/drover.MiB, cfg.DiskOvercommit, c.diskTotal/drover.MiB).WithField("size_gb"))
	}
	if c.diskTotal > 0 {
		if percent := (c.diskTotal - c.diskRaw) * 100 / c.diskTotal; percent >= fillingCritical {
			out = append(out, drover.Errorf(drover.Exhausted, "the disk of host %q is %d %% full, and takes no new volumes from %d %% on", cfg.ID, percent,
				fillingCritical))
		}
	}
	return out
}

// promise lets a volume grow to a size, or refuses. Until its record has that size, and kept is called, nobody else gets the room.
func (a *Agent) promise(id drover.VolumeID, size drover.Bytes) (kept func(), err error) {
	a.capacity.Lock()
	defer a.capacity.Unlock()
	c, err := a.wholeRoom("")
	if err != nil {
		return nil, err
	}
	has := drover.Bytes(0)
	if old, err := a.disk(id.Disk()); err == nil {
		has = old.Size
	} else if !drover.Is(err, drover.NotFound) {
		return nil, err
	}
	if no := c.provisionRefusals(a.cfg, size-has); len(no) > 0 {
		return nil, no[0].WithHint("use another host, or free something on this one")
	}
	a.promised[id] = size
	return func() {
		a.capacity.Lock()
		defer a.capacity.Unlock()
		delete(a.promised, id)
	}, nil
}
