package api

import (
	"encoding/json"
	"fmt"
	"strings"
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
			got, err := read(c.list([]fleet.MachineView{changed, v}))
			want, werr := json.Marshal([]any{machineForm(changed), machineForm(v)})
			if err != nil || werr != nil || string(got) != string(want) {
				t.Errorf("%s: %s, %v; want %s, %v", name, got, err, want, werr)
			}
		}
	}
	if len(c.all) != 1 || c.bytes != len(c.all[v.Machine.ID].text) {
		t.Errorf("%d machines and %d bytes are kept", len(c.all), c.bytes)
	}
	if got, err := read(c.list(nil)); err != nil || string(got) != "[]" {
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

// read is the answer as a client gets it.
func read(a array, err error) (string, error) {
	var out strings.Builder
	if err == nil {
		err = a.write(&out)
	}
	if err == nil && a.length() != out.Len() {
		err = fmt.Errorf("%d bytes are announced, %d written", a.length(), out.Len())
	}
	return out.String(), err
}

// TestTheListsKeptAreThoseAskedForLast: what is kept is bounded, and what nobody asks for goes first.
func TestTheListsKeptAreThoseAskedForLast(t *testing.T) {
	c := formCache{write: machineForm}
	ask := func(app drover.AppName) (asked int) {
		t.Helper()
		v := fleet.MachineView{Machine: drover.Machine{ID: drover.MachineID(app), Name: strings.Repeat("x", maxLists/3)}, HostStatus: drover.HostOK,
			Status: drover.MachineStatus{State: drover.StateStarted}, Revisions: fleet.Revisions{Machine: 1}}
		key := v.Key()
		if _, err := c.whole(app, []*fleet.MachineKey{&key}, true, func(drover.MachineID) (fleet.MachineView, error) { asked++; return v, nil }); err != nil {
			t.Fatal(err)
		}
		if c.listBytes > maxLists {
			t.Errorf("%d bytes are kept", c.listBytes)
		}
		return asked
	}
	for i, step := range []struct {
		app   drover.AppName
		asked int
	}{{"a", 1}, {"b", 1}, {"a", 0}, {"c", 1}, {"a", 0}, {"c", 0}, {"b", 1}} {
		if got := ask(step.app); got != step.asked {
			t.Errorf("step %d, app %s: %d machines were looked at, not %d", i, step.app, got, step.asked)
		}
	}
}

// TestAWholeListFollowsItsMachines: a list that is answered again is the last one only while every machine is as it was then.
func TestAWholeListFollowsItsMachines(t *testing.T) {
	machine := func(id drover.MachineID, status uint64) fleet.MachineView {
		return fleet.MachineView{Machine: drover.Machine{ID: id, Name: string(id), Goal: drover.GoalStarted}, HostStatus: drover.HostOK,
			Status: drover.MachineStatus{State: drover.StateStarted, Restarts: int(status)}, Revisions: fleet.Revisions{Machine: 1, Placement: 2, Status: status}}
	}
	c := formCache{write: machineForm}
	asked := 0
	check := func(what string, asks int, views ...fleet.MachineView) {
		t.Helper()
		asked = 0
		var keys []*fleet.MachineKey
		forms := []any{}
		for _, v := range views {
			key := v.Key()
			keys = append(keys, &key)
			forms = append(forms, machineForm(v))
		}
		got, err := read(c.whole("shop", keys, true, func(id drover.MachineID) (fleet.MachineView, error) {
			asked++
			for _, v := range views {
				if v.Machine.ID == id {
					return v, nil
				}
			}
			return fleet.MachineView{}, drover.Errorf(drover.NotFound, "no machine %q", id)
		}))
		want, werr := json.Marshal(forms)
		if err != nil || werr != nil || string(got) != string(want) {
			t.Errorf("%s: %s, %v; want %s", what, got, err, want)
		}
		if asked != asks {
			t.Errorf("%s: %d machines were looked at, not %d", what, asked, asks)
		}
	}
	a, b := machine("a", 3), machine("b", 4)
	check("new", 2, a, b)
	check("the same", 0, a, b)
	b = machine("b", 5)
	check("one has changed", 1, a, b)
	check("one is gone", 0, a)
	check("it is back", 1, a, b)
	away := b
	away.HostStatus, away.HostSeenAt = drover.HostUnreachable, time.Unix(1, 0).UTC()
	check("its host is away", 1, a, away)
	away.HostSeenAt = time.Unix(2, 0).UTC()
	check("and for longer", 1, a, away)
	check("and is heard of again", 1, a, b)
	c2, d := machine("c", 7), machine("0", 8)
	d.Machine.CreatedAt = time.Unix(1, 0)
	check("two more, one of them between", 2, a, b, c2, d)
	check("the oldest is gone", 0, b, c2, d)
	check("none", 0)
	if c.listBytes != 0 {
		t.Errorf("%d bytes of no machines are kept", c.listBytes)
	}
}
