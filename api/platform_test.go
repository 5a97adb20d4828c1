package api_test

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"drover"
	"drover/api"
	"drover/api/apitest"
	"drover/apiv1"
	"drover/fleet"
)

// everyOperationOfPlaces asks what there is to ask of places.
func everyOperationOfPlaces(s *server) {
	s.tb.Helper()
	s.want(200, "GET", "/v1/platform/regions", "")
	s.want(200, "POST", "/v1/platform/placements", `{"compute":{"cpu_kind":"shared","cpus":1,"memory_mb":512},"region":"","count":2,"volume_name":"data","volume_size_bytes":1073741824,"weights":null,"org_slug":"acme"}`)
	s.want(200, "POST", "/v1/apps/ledger/machines/place", `{"region":"north","count":2,"config":{"image":"debian"}}`)
}

func TestRegionsAndPlacements(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New()})
	s.want(201, "POST", "/v1/apps", `{"name":"ledger"}`)
	body := s.want(200, "GET", "/v1/platform/regions", "").Body.Bytes()
	var exact map[string]json.RawMessage
	if err := json.Unmarshal(body, &exact); err != nil || exact["Regions"] == nil || string(exact["Nearest"]) != `"north"` {
		t.Errorf("%s, %v", body, err)
	}
	if !strings.Contains(string(body), `"gateway_available":false`) || !strings.Contains(string(body), `"geo_region":""`) || !strings.Contains(string(body), `"capacity":12`) {
		t.Errorf("%s", body)
	}
	got := decode[apiv1.PlacementsResponse](t, s.want(200, "POST", "/v1/platform/placements", `{"count":4,"compute":{"memory_mb":1024}}`))
	want := []apiv1.RegionPlacement{{Region: "north", Count: 3, Concurrency: 1}, {Region: "south", Count: 1, Concurrency: 1}}
	if !slices.Equal(got.Regions, want) {
		t.Errorf("%+v", got)
	}
	if r := s.refused(422, "POST", "/v1/platform/placements", `{"count":8,"compute":{"memory_mb":1024}}`); r.Status != apiv1.StatusCapacity || !strings.Contains(r.Error, "2 more 1024 MiB machines") {
		t.Errorf("%+v", r)
	}
	if r := s.refused(400, "POST", "/v1/platform/placements", `{"region":"ams, F"}`); r.Field != "region" {
		t.Errorf("%+v", r)
	}
	s.refused(400, "POST", "/v1/platform/placements", `{"volume_size_bytes":-1}`)
	p := decode[drover.Place](t, s.want(200, "POST", "/v1/apps/ledger/machines/place", `{"region":"south","config":{"guest":{"memory_mb":9999}}}`))
	if p.Placed != 0 || p.Missing == "" || len(p.Hosts) != 2 || len(p.Hosts[0].Reasons) != 1 || len(p.Hosts[1].Reasons) != 1 {
		t.Errorf("%+v", p)
	}
}

// asked remembers what reached the fleet.
type asked struct {
	*apitest.Backend
	machine fleet.CreateMachine
	volume  fleet.CreateVolume
}

func (a *asked) CreateMachine(ctx context.Context, req fleet.CreateMachine) (fleet.MachineView, error) {
	a.machine = req
	return a.Backend.CreateMachine(ctx, req)
}

func (a *asked) CreateVolume(ctx context.Context, req fleet.CreateVolume) (fleet.VolumeView, error) {
	a.volume = req
	return a.Backend.CreateVolume(ctx, req)
}

func TestRegionListsAndComputeReachTheFleet(t *testing.T) {
	backend := &asked{Backend: apitest.New()}
	s := newServer(t, api.Config{Backend: backend})
	s.want(201, "POST", "/v1/apps", `{"name":"ledger"}`)
	s.want(200, "POST", "/v1/apps/ledger/machines", `{"region":"ams,fra, lhr","config":{"image":"debian","guest":{"host_dedication_id":"acme"}}}`)
	if m := backend.machine; m.Region != "ams" || !slices.Equal(m.Fallback, []drover.Region{"fra", "lhr"}) || m.Config.Guest.HostDedicationID != "acme" {
		t.Errorf("%+v", m)
	}
	if r := s.refused(400, "POST", "/v1/apps/ledger/machines", `{"region":"ams,,fra","config":{"image":"debian"}}`); r.Field != "region" {
		t.Errorf("%+v", r)
	}
	s.want(200, "POST", "/v1/apps/ledger/volumes", `{"name":"data","size_gb":1,"region":"ams,fra","compute":{"cpu_kind":"performance","cpus":2,"memory_mb":4096,"gpu_kind":"","host_dedication_id":"acme"}}`)
	v := backend.volume
	if v.Region != "ams" || !slices.Equal(v.Fallback, []drover.Region{"fra"}) || v.Compute == nil || !reflect.DeepEqual(*v.Compute, drover.Guest{CPUKind: "performance", CPUs: 2, MemoryMB: 4096, HostDedicationID: "acme"}) {
		t.Errorf("%+v", v)
	}
	s.want(200, "POST", "/v1/apps/ledger/volumes", `{"name":"data","size_gb":1,"compute":null}`)
	if backend.volume.Compute != nil {
		t.Errorf("%+v", backend.volume.Compute)
	}
	if r := s.refused(400, "POST", "/v1/apps/ledger/volumes", `{"name":"data","size_gb":1,"compute":{"cpus":"two"}}`); r.Field != "compute.cpus" {
		t.Errorf("%+v", r)
	}
}
