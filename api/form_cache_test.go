package api

import (
	"encoding/json"
	"testing"
	"time"

	"drover"
	"drover/fleet"
)

// TestAListIsWrittenAnewWhenAMachineChanges: whatever of a machine changes, the next list has it.
func TestAListIsWrittenAnewWhenAMachineChanges(t *testing.T) {
	v := fleet.MachineView{Machine: drover.Machine{ID: "3d8d9c2b7e0a15", Name: "web", Goal: drover.GoalStarted}, HostStatus: drover.HostOK,
		Status: drover.MachineStatus{State: drover.StateStarted}, Revisions: fleet.Revisions{Machine: 1, Placement: 2, Status: 3}}
	c := formCache{write: machineForm}
	for name, change := range map[string]func(*fleet.MachineView){
		"nothing":   func(*fleet.MachineView) {},
		"record":    func(v *fleet.MachineView) { v.Machine.Name, v.Revisions.Machine = "db", 4 },
		"placement": func(v *fleet.MachineView) { v.Placement.Host, v.Revisions.Placement = "h2", 5 },
		"status":    func(v *fleet.MachineView) { v.Status.Restarts, v.Revisions.Status = 2, 6 },
		"host":      func(v *fleet.MachineView) { v.HostStatus, v.HostSeenAt = drover.HostUnreachable, time.Unix(1, 0).UTC() },
		"later": func(v *fleet.MachineView) {
			v.HostStatus, v.HostSeenAt = drover.HostUnreachable, time.Unix(2, 0).UTC()
		},
		"destroying": func(v *fleet.MachineView) { v.Status.State = drover.StateDestroying },
		"migration":  func(v *fleet.MachineView) { v.Migration = &drover.Migration{ID: "mig_1", Phase: drover.PhaseReserve} },
		"phase":      func(v *fleet.MachineView) { v.Migration = &drover.Migration{ID: "mig_1", Phase: drover.PhaseHydrate} },
		"nonce":      func(v *fleet.MachineView) { v.Nonce = "n" },
	} {
		changed := v
		change(&changed)
		for range 2 { // made, then found
			got, err := c.list([]fleet.MachineView{changed, v})
			want, werr := json.Marshal([]any{machineForm(changed), machineForm(v)})
			if err != nil || werr != nil || string(got) != string(want) {
				t.Errorf("%s: %s, %v; want %s, %v", name, got, err, want, werr)
			}
		}
	}
	if len(c.all) != 1 || c.bytes != len(c.all[v.Machine.ID].text) {
		t.Errorf("%d machines and %d bytes are kept", len(c.all), c.bytes)
	}
	if got, err := c.list(nil); err != nil || string(got) != "[]" {
		t.Errorf("%s, %v", got, err)
	}
}

func BenchmarkListOfMachines(b *testing.B) {
	var views []fleet.MachineView
	for i := range 10_000 {
		var config drover.MachineConfig
		if err := json.Unmarshal([]byte(`{"image":"debian","guest":{"gpus":0},"services":[{"internal_port":80,"ports":[{"port":443,"handlers":["tls","http"]}]}]}`), &config); err != nil {
			b.Fatal(err)
		}
		views = append(views, fleet.MachineView{Machine: drover.Machine{ID: drover.NewMachineID(), Config: config}, HostStatus: drover.HostOK,
			Status: drover.MachineStatus{State: drover.StateStarted, Events: make([]drover.Event, 5)}, Revisions: fleet.Revisions{Machine: uint64(i + 1)}})
	}
	for _, c := range []struct {
		name  string
		views []fleet.MachineView
	}{{"100", views[:100]}, {"10000", views}} {
		b.Run(c.name, func(b *testing.B) {
			cache := formCache{write: machineForm}
			for b.Loop() {
				if _, err := cache.list(c.views); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
