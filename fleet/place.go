package fleet

import (
	"context"
	"fmt"
	"slices"

	"drover"
	"drover/plan"
)

// maxPlaced bounds how many machines are placed at once in thought.
const maxPlaced = 1000

// PlaceMachines asks where machines would be placed.
type PlaceMachines struct {
	// CreateMachine is what each of them would be. It needs no image; App may be empty, for machines of no app.
	CreateMachine
	// Count is how many; 0 means 1. Provision is what a new volume of each may grow to.
	Count     int
	Provision drover.Bytes
}

// offerFor asks for room for a machine.
func offerFor(id drover.MachineID, g drover.Guest) drover.OfferRequest {
	return drover.OfferRequest{Machine: id, MemoryMB: g.MemoryMB, CPUs: g.CPUs, CPUKind: g.CPUKind, Dedication: g.HostDedicationID}
}

// offerForNew asks for room for a new machine: what is held with its volumes is for it.
func offerForNew(req CreateMachine) drover.OfferRequest {
	o := offerFor("", req.Config.Guest)
	for _, m := range req.Config.Mounts {
		o.Volumes = append(o.Volumes, m.Volume)
	}
	return o
}

// offerForVolume asks for room for a volume, and for the machine that room is to be held for.
func offerForVolume(req CreateVolume, data drover.Bytes) drover.OfferRequest {
	var o drover.OfferRequest
	if req.Compute != nil {
		o = offerFor("", *req.Compute)
	}
	o.Disk, o.Provision = data, req.Size
	return o
}

func placeRequest(req CreateMachine) plan.Request {
	return plan.Request{What: fmt.Sprintf("machine %q", req.Name), Region: req.Region, Fallback: req.Fallback, MemoryMB: req.Config.Guest.MemoryMB}
}

// checkCompute checks the machine that room is to be held for, and fills in its defaults.
func (f *Fleet) checkCompute(req *CreateVolume) error {
	if req.Compute == nil {
		return nil
	}
	g := drover.MachineConfig{Guest: *req.Compute}.WithDefaults().Guest
	var p problems
	checkGuest(&p, g)
	for i, e := range p {
		p[i] = drover.Errorf(e.Code, "compute: %w", e).WithField("compute")
	}
	if err := p.err(); err != nil {
		return err
	}
	req.Compute = &g
	return f.checkSize("compute", g, nil)
}

// Place tells where machines would be placed now, and of each host why it would take some or none. It keeps nothing.
func (f *Fleet) Place(ctx context.Context, req PlaceMachines) (drover.Place, error) {
	if err := f.await(ctx); err != nil {
		return drover.Place{}, err
	}
	if req.Count == 0 {
		req.Count = 1
	}
	if req.Count < 1 || req.Count > maxPlaced {
		return drover.Place{}, drover.Errorf(drover.Invalid, "count is %d; expected 1 to %d", req.Count, maxPlaced).WithField("count")
	}
	req.Config = req.Config.WithDefaults()
	var p problems
	checkGuest(&p, req.Config.Guest)
	checkMounts(&p, req.Config.Mounts)
	if err := p.err(); err != nil {
		return drover.Place{}, err
	}
	if err := f.checkSize("config.guest", req.Config.Guest, nil); err != nil {
		return drover.Place{}, err
	}
	volumes, err := f.freeVolumes(ctx, req.App, req.Config.Mounts)
	if err != nil {
		return drover.Place{}, err
	}
	if len(volumes) > 0 && req.Count > 1 {
		return drover.Place{}, drover.Errorf(drover.Invalid, "count is %d, and a volume is for one machine", req.Count).WithField("count")
	}
	pinned, err := f.pin(req.CreateMachine, volumes)
	if err != nil {
		return drover.Place{}, err
	}
	return f.placed(ctx, req, pinned)
}

// placed asks all hosts.
func (f *Fleet) placed(ctx context.Context, req PlaceMachines, pinned drover.HostID) (drover.Place, error) {
	opts := plan.Options{Regions: f.regions(), SameApp: f.spread(req.App), Exclude: f.excludeClosed(nil), Silent: map[drover.HostID]string{}}
	regions := map[drover.HostID]drover.Region{}
	var ask []drover.HostID
	for _, h := range f.hostList() {
		if !slices.Contains(h.Roles, drover.RoleWorker) {
			continue
		}
		regions[h.ID] = h.Region
		if pinned != "" && h.ID != pinned && opts.Exclude[h.ID] == "" {
			opts.Exclude[h.ID] = fmt.Sprintf("the machine has to be on host %q", pinned)
		}
		if h.Status == drover.HostUnreachable {
			opts.Silent[h.ID] = "is unreachable"
			continue
		}
		ask = append(ask, h.ID)
	}
	offer := offerForNew(req.CreateMachine)
	offer.Provision = req.Provision
	got, _ := f.offers(ctx, ask, offer, f.timing.Offer, opts.Silent)
	return plan.Place(placeRequest(req.CreateMachine), req.Count, got, opts, regions)
}

// Placements places machines in thought, and refuses when there is no room for all of them, saying what is missing.
func (f *Fleet) Placements(ctx context.Context, req PlaceMachines) (drover.Place, error) {
	p, err := f.Place(ctx, req)
	if err != nil {
		return p, err
	}
	wanted := placeRequest(req.CreateMachine)
	wanted.What = fmt.Sprintf("a machine of %d MiB", wanted.MemoryMB)
	return p, plan.Refusal(wanted, p)
}

// smallMB is the memory of the smallest machine that is documented: what regions count their room in.
const smallMB = 256

// RegionRooms counts for each region how many small machines there is room for, by what its hosts said last. No host is asked.
func (f *Fleet) RegionRooms(ctx context.Context) (map[drover.Region]int, error) {
	if err := f.await(ctx); err != nil {
		return nil, err
	}
	rooms := map[drover.Region]int{}
	for _, r := range f.knownRooms() {
		rooms[r.Region] += 0
		if r.Closed == "" && r.Memory > 0 {
			rooms[r.Region] += int(r.Memory / (smallMB * drover.MiB))
		}
	}
	return rooms, nil
}

// dedicationOf is what a host is dedicated to.
func (f *Fleet) dedicationOf(id drover.HostID) string {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	info, _ := f.hostLocked(id)
	return info.Dedication
}

// Here is the region that this control host is in; empty when it is not known.
func (f *Fleet) Here() drover.Region { return f.regionOf(f.cfg.Host) }
