package api

import (
	"cmp"
	"net/http"

	"drover"
	"drover/api/graphql"
)

// graphRegions are the regions as GET /platform/regions has them.
type graphRegions struct {
	Regions []struct {
		Code             string  `json:"code"`
		Name             string  `json:"name"`
		Latitude         float64 `json:"latitude"`
		Longitude        float64 `json:"longitude"`
		GatewayAvailable bool    `json:"gateway_available"`
		RequiresPaidPlan bool    `json:"requires_paid_plan"`
		Deprecated       bool    `json:"deprecated"`
	}
	Nearest string
}

// regions asks which regions there are, and which is the nearest.
func (g *graph) regions() (objects []graphql.Object, nearest string, err error) {
	var answer graphRegions
	if err := g.h.inside(g.c, http.MethodGet, prefix+"/platform/regions", nil, &answer); err != nil {
		return nil, "", err
	}
	for _, r := range answer.Regions {
		o := regionObject(r.Code, cmp.Or(r.Name, r.Code))
		o.Values["latitude"], o.Values["longitude"], o.Values["gatewayAvailable"] = r.Latitude, r.Longitude, r.GatewayAvailable
		o.Values["requiresPaidPlan"], o.Values["deprecated"] = r.RequiresPaidPlan, r.Deprecated
		objects = append(objects, o)
	}
	return objects, answer.Nearest, nil
}

func regionObject(code, name string) graphql.Object {
	return graphql.Object{Type: "Region", Values: map[string]any{"code": code, "name": name, "latitude": 0.0, "longitude": 0.0,
		"gatewayAvailable": false, "requiresPaidPlan": false, "deprecated": false}}
}

func (g *graph) platform() (any, error) {
	regions, nearest, err := g.regions()
	if err != nil {
		return nil, err
	}
	if nearest == "" && len(regions) > 0 {
		nearest, _ = regions[0].Values["code"].(string)
	}
	if regions == nil {
		regions = []graphql.Object{}
	}
	return graphql.Object{Type: "PlatformRegions", Values: map[string]any{"requestRegion": nearest, "regions": regions}}, nil
}

// nearestRegion is an error where there is none: clients break on null.
func (g *graph) nearestRegion() (any, error) {
	regions, nearest, err := g.regions()
	if err != nil {
		return nil, err
	}
	for _, r := range regions {
		if r.Values["code"] == nearest || nearest == "" {
			return r, nil
		}
	}
	if len(regions) > 0 {
		return regions[0], nil
	}
	return nil, drover.Errorf(drover.Unavailable, "the fleet has no region yet: no worker host has joined")
}
