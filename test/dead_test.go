package test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"drover"
	"drover/apiv1"
)

// records are what the writer finds on its volume.
func records(t *testing.T, id drover.MachineID) (n uint64) {
	t.Helper()
	var r struct {
		Records    uint64 `json:"records"`
		BadRecords uint64 `json:"bad_records"`
		BadBlocks  uint64 `json:"bad_blocks"`
	}
	eventually(t, boundBoot, "exec", func() bool {
		return fleet.cli.Ask(t.Context(), nil, "machine", "exec", string(id), "--", "true") == nil
	})
	if printed := inside(t, id, "/writer", "verify"); json.Unmarshal([]byte(printed), &r) != nil || r.BadRecords+r.BadBlocks != 0 {
		t.Errorf("verify printed %q", printed)
	}
	return r.Records
}

// reach waits until the fleet judges a host so.
func reach(t *testing.T, host string, want drover.HostReach) {
	t.Helper()
	eventually(t, boundBoot, host+" is "+string(want), func() bool {
		var h drover.HostInfo
		return fleet.cli.Ask(t.Context(), &h, "host", "show", host) == nil && h.Reach == want && (want != drover.ReachOK || h.Status == drover.HostOK)
	})
}

// TestAMachineOutlivesItsHost cuts the power of a host with two machines: one has a standby of its volume, one a snapshot. Both go on elsewhere
// once a person has said that the host is off, with all that was acknowledged before the copy was taken. When the host is back it starts
// neither, and keeps what it has aside.
func TestAMachineOutlivesItsHost(t *testing.T) {
	app := newApp(t)
	followed, snapped := newWriter(t, app, "h1"), newWriter(t, app, "h1")
	standby := ask[drover.Standby](t, "volume", "standby", "create", string(followed.volume), "--app", app, "--host", "h2", "--every", "2s")
	snapshot := ask[apiv1.Snapshot](t, "volume", "snapshot", "create", string(snapped.volume))
	snappedAt := uint64(0)
	if snapshot.Status == drover.SnapshotCreated {
		snappedAt = 1
	}
	marked, at := followed.Now().Acked, time.Now()
	eventually(t, boundMove, "two steps after the mark", func() bool {
		s := ask[drover.Standby](t, "volume", "standby", "show", string(standby.ID), "--app", app)
		return s.Complete > 1 && s.CompleteAt.After(at)
	})
	followed.goesOn(t)
	if exit, said := refused(t, "host", "confirm-off", "h1", "--reason", "test", "--yes"); exit != 5 || !strings.Contains(said, "is not off") {
		t.Errorf("a host that runs is confirmed to be off: %d, %s", exit, said)
	}

	run(t, "dev", "kill", "h1")
	reach(t, "h1", drover.ReachNone)
	if exit, said := refused(t, "recovery", "start", "h1", "--yes"); exit != 5 || !strings.Contains(said, "not certain") {
		t.Errorf("recovered without a fence: %d, %s", exit, said)
	}
	run(t, "host", "fence", "h1", "--reason", "the test cut its power", "--yes") // by the fleet's rack
	started := ask[apiv1.RecoveryStarted](t, "recovery", "start", "h1", "--yes")
	if len(started.Recoveries) != 2 || len(started.Left) != 0 {
		t.Fatalf("%+v", started)
	}
	for _, r := range started.Recoveries {
		want := map[drover.MachineID]drover.SourceKind{followed.id: drover.FromStandby, snapped.id: drover.FromSnapshot}[r.Machine]
		if r.State != drover.RecoveryDone || r.Target != "h2" || len(r.Sources) != 1 || r.Sources[0].Kind != want {
			t.Errorf("%+v", r)
		}
	}
	if n := records(t, followed.id); n < marked {
		t.Errorf("from the standby there are %d records, %d were acknowledged before its last step", n, marked)
	}
	if n := records(t, snapped.id); n < snappedAt {
		t.Errorf("from the snapshot there are %d records", n)
	}

	run(t, "dev", "start", "h1")
	reach(t, "h1", drover.ReachOK)
	eventually(t, boundBoot, "h1 has found out", func() bool {
		return len(ask[[]drover.KeptLayer](t, "host", "kept", "h1")) == 4
	})
	for _, k := range ask[[]drover.KeptLayer](t, "host", "kept", "h1") {
		if k.Owner != "h2" || k.LaterKnown && k.Later == 0 {
			t.Errorf("kept aside: %+v", k)
		}
	}
	for _, w := range []*writer{followed, snapped} {
		if m := machine(t, w.id); m.Host != "h2" || m.State != drover.StateStarted {
			t.Errorf("machine %s is %s on %s", w.id, m.State, m.Host)
		}
		if now := w.Now(); now.TwoRunners != 0 {
			t.Errorf("machine %s ran in two places %d times", w.id, now.TwoRunners)
		}
	}
	eventually(t, boundMove, "the standby goes elsewhere", func() bool {
		list := ask[[]drover.Standby](t, "volume", "standby", "list", "--app", app)
		return len(list) == 1 && list[0].Host != "h2" && list[0].Complete > 0
	})
	records(t, followed.id)
	for _, s := range ask[[]drover.Standby](t, "volume", "standby", "list", "--app", app) {
		run(t, "volume", "standby", "delete", string(s.ID), "--app", app, "--yes")
	}
}
