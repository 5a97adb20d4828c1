package apiv1

import "drover"

// RegionsResponse is the regions of the fleet. The names of its fields are those that clients read.
type RegionsResponse struct {
	Regions []Region `json:"Regions"`
	// Nearest is the code of a region near whoever asks, as far as that is known.
	Nearest string `json:"Nearest"`
}

// Region is one region.
type Region struct {
	Code             string  `json:"code"`
	Name             string  `json:"name"`
	Latitude         float64 `json:"latitude"`
	Longitude        float64 `json:"longitude"`
	GatewayAvailable bool    `json:"gateway_available"`
	RequiresPaidPlan bool    `json:"requires_paid_plan"`
	Deprecated       bool    `json:"deprecated"`
	// Capacity is about how many machines of 256 MB there is room for.
	Capacity     int    `json:"capacity"`
	GeoRegion    string `json:"geo_region"`
	MPGAvailable bool   `json:"mpg_available"`
}

// PlacementsRequest asks in which regions machines would be placed.
type PlacementsRequest struct {
	Compute *drover.Guest `json:"compute,omitempty"`
	// Region is a region, several with commas between them in the order in which they are to be tried, or empty for any.
	Region          string       `json:"region,omitempty"`
	Count           int          `json:"count,omitempty"`
	VolumeName      string       `json:"volume_name,omitempty"`
	VolumeSizeBytes drover.Bytes `json:"volume_size_bytes,omitempty"`
	// Weights is read and has no effect: machines are spread over hosts.
	Weights map[string]any `json:"weights,omitempty"`
	OrgSlug string         `json:"org_slug,omitempty"`
}

// PlacementsResponse is where they would be placed.
type PlacementsResponse struct {
	Regions []RegionPlacement `json:"Regions"`
}

// RegionPlacement is how many would be placed in a region, on how many hosts.
type RegionPlacement struct {
	Region      string `json:"Region"`
	Count       int    `json:"Count"`
	Concurrency int    `json:"Concurrency"`
}

// PlaceRequest asks where machines of an app would be placed, and why not elsewhere.
type PlaceRequest struct {
	// Region is as for a machine that is created.
	Region string `json:"region,omitempty"`
	Host   string `json:"host,omitempty"`
	// Count is how many; default 1.
	Count  int                  `json:"count,omitempty"`
	Config drover.MachineConfig `json:"config"`
}
