package api

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

// placeBackend is the part of Backend that is about where things are placed.
type placeBackend interface {
	// Place tells where machines would be placed, and of each host why it would take some or none.
	Place(ctx context.Context, req fleet.PlaceMachines) (drover.Place, error)
	// Placements is Place that refuses with Exhausted when there is no room for all.
	Placements(ctx context.Context, req fleet.PlaceMachines) (drover.Place, error)
	// RegionRooms counts for each region how many machines of 256 MB there is room for, about.
	RegionRooms(ctx context.Context) (map[drover.Region]int, error)
	// Here is the region that answers; empty when it is not known.
	Here() drover.Region
}

func placeRoutes() []route {
	return []route{
		{method: "GET", path: "/platform/regions", id: "Platform_regions", summary: "List the regions, and how much room they have", access: tenants,
			status: http.StatusOK, response: apiv1.RegionsResponse{}, handle: (*handler).listRegions},
		{method: "POST", path: "/platform/placements", id: "Platform_placements", summary: "Tell in which regions machines would be placed; refuse when there is no room",
			access: tenants, request: apiv1.PlacementsRequest{}, status: http.StatusOK, response: apiv1.PlacementsResponse{}, handle: (*handler).placements},
		{method: "POST", path: "/apps/{app_name}/machines/place", id: "Machines_place", summary: "Tell on which hosts machines of the app would be placed, and why not on others",
			access: tenants, request: apiv1.PlaceRequest{}, status: http.StatusOK, response: drover.Place{}, handle: (*handler).placeMachines},
	}
}

func (h *handler) listRegions(c *call) (any, error) {
	rooms, err := h.backend.RegionRooms(c.ctx())
	if err != nil {
		return nil, err
	}
	codes := slices.Sorted(maps.Keys(rooms))
	answer := apiv1.RegionsResponse{Regions: []apiv1.Region{}}
	for _, code := range codes {
		answer.Regions = append(answer.Regions, regionForm(code, rooms[code]))
	}
	here := h.backend.Here()
	if _, ok := rooms[here]; !ok && len(codes) > 0 {
		here = codes[0]
	}
	answer.Nearest = string(here)
	return answer, nil
}

func (h *handler) placements(c *call) (any, error) {
	var req apiv1.PlacementsRequest
	if err := readBody(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	region, fallback, err := regionList("region", req.Region)
	if err != nil {
		return nil, err
	}
	if req.VolumeSizeBytes < 0 {
		return nil, badField("volume_size_bytes", "is %d; expected 0 or more", req.VolumeSizeBytes)
	}
	ask := fleet.PlaceMachines{CreateMachine: fleet.CreateMachine{Region: region, Fallback: fallback}, Count: req.Count, Provision: req.VolumeSizeBytes}
	if req.Compute != nil {
		ask.Config.Guest = *req.Compute
	}
	p, err := h.backend.Placements(c.ctx(), ask)
	if err != nil {
		return nil, err
	}
	count, hosts := map[drover.Region]int{}, map[drover.Region]int{}
	for _, host := range p.Hosts {
		if host.Placed > 0 {
			count[host.Region] += host.Placed
			hosts[host.Region]++
		}
	}
	answer := apiv1.PlacementsResponse{Regions: []apiv1.RegionPlacement{}}
	for region, n := range count {
		answer.Regions = append(answer.Regions, apiv1.RegionPlacement{Region: string(region), Count: n, Concurrency: hosts[region]})
	}
	slices.SortFunc(answer.Regions, func(a, b apiv1.RegionPlacement) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Region, b.Region))
	})
	return answer, nil
}

func (h *handler) placeMachines(c *call) (any, error) {
	var req apiv1.PlaceRequest
	if err := readBody(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	region, fallback, err := regionList("region", req.Region)
	if err != nil {
		return nil, err
	}
	if err := needName("host", req.Host, true); err != nil {
		return nil, err
	}
	return h.backend.Place(c.ctx(), fleet.PlaceMachines{Count: req.Count,
		CreateMachine: fleet.CreateMachine{App: c.app.Name, Region: region, Fallback: fallback, Host: drover.HostID(req.Host), Config: req.Config}})
}
