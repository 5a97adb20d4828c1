package apitest

import (
	"context"
	"fmt"

	"drover"
	"drover/fleet"
)

// Place puts all machines on the first host of the region that has the memory.
func (b *Backend) Place(_ context.Context, req fleet.PlaceMachines) (drover.Place, error) {
	if err := b.begin("Place"); err != nil {
		return drover.Place{}, err
	}
	defer b.mu.Unlock()
	return b.placeLocked(req), nil
}

func (b *Backend) placeLocked(req fleet.PlaceMachines) drover.Place {
	guest := req.Config.WithDefaults().Guest
	need := drover.Bytes(guest.MemoryMB) * drover.MiB
	p := drover.Place{Count: max(req.Count, 1), Hosts: []drover.PlaceHost{}}
	for _, info := range b.hosts {
		h := drover.PlaceHost{Host: info.ID, Region: info.Region, Reasons: []string{}, MemoryFree: info.Memory - info.MemoryUsed, CPUsFree: 1.5,
			DiskFree: info.Disk - info.DiskUsed, Machines: info.Machines}
		switch {
		case req.Region != "" && req.Region != info.Region:
			h.Reasons = append(h.Reasons, fmt.Sprintf("it is in region %q", info.Region))
		case need > h.MemoryFree:
			h.Reasons = append(h.Reasons, fmt.Sprintf("host %q has %d MiB of memory left, the machine needs %d MiB", info.ID, h.MemoryFree/drover.MiB, guest.MemoryMB))
		default:
			h.Fits = int(h.MemoryFree / need)
			h.Placed = min(h.Fits, p.Count-p.Placed)
			p.Placed += h.Placed
		}
		p.Hosts = append(p.Hosts, h)
	}
	if left := p.Count - p.Placed; left > 0 {
		p.Missing = fmt.Sprintf("%d more %d MiB machines", left, guest.MemoryMB)
	}
	return p
}

// Placements is Place that refuses.
func (b *Backend) Placements(_ context.Context, req fleet.PlaceMachines) (drover.Place, error) {
	if err := b.begin("Placements"); err != nil {
		return drover.Place{}, err
	}
	defer b.mu.Unlock()
	p := b.placeLocked(req)
	if p.Missing != "" {
		return p, drover.Errorf(drover.Exhausted, "there is room for %d of %d machines; %s would need room that is not there", p.Placed, p.Count, p.Missing)
	}
	return p, nil
}

// RegionRooms counts memory.
func (b *Backend) RegionRooms(context.Context) (map[drover.Region]int, error) {
	if err := b.begin("RegionRooms"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	rooms := map[drover.Region]int{}
	for _, h := range b.hosts {
		rooms[h.Region] += int((h.Memory - h.MemoryUsed) / (256 * drover.MiB))
	}
	return rooms, nil
}

// Here is the first host's region.
func (b *Backend) Here() drover.Region { return b.hosts[0].Region }
