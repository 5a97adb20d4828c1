package fleet

import (
	"strings"
	"testing"

	"drover"
)

// A disk with blocks that are known to be damaged is not moved without thought: its copy never ends. A host that is suspect is left all the same.
func TestAMachineWithADamagedDiskIsNotMovedWithoutThought(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	vol := w.volume(n, "h1")
	id := w.machine(n, CreateMachine{Config: drover.MachineConfig{Image: "busybox", Mounts: []drover.Mount{{Volume: vol.Volume.ID, Path: "/data"}}}}).Machine.ID
	h := w.hosts["h1"]
	h.set(func() {
		for lid, l := range h.layers {
			if l.Disk == vol.Volume.ID.Disk() {
				l.Verification = &drover.Verification{Damaged: []drover.ByteRange{{Offset: 40960, Length: 4096}, {Offset: 81920, Length: 4096}}}
				h.layers[lid] = l
			}
		}
	})
	check, err := n.CheckMove(t.Context(), Move{Machine: id, Target: "h2"})
	if err != nil || check.Possible {
		t.Fatalf("%+v, %v", check, err)
	}
	_, err = n.MoveMachine(t.Context(), Move{Machine: id, Target: "h2"})
	if e := drover.AsError(err); e == nil || e.Code != drover.Precondition || !strings.Contains(e.Text, "offset 40960, 2 places in all") || !strings.Contains(e.Hint, "--damaged") {
		t.Fatalf("%v", err)
	}
	_, err = n.MoveMachine(t.Context(), Move{Machine: id, Target: "h2", Options: drover.MoveOptions{Damaged: true, Switch: drover.SwitchLate}})
	wantError(t, err, drover.Precondition, "switch", "")

	// The host has not told of it by a condition yet.
	planned, err := n.PlanDrain(t.Context(), StartDrain{Host: "h1", Actor: "ann", Reason: "disk"})
	if err != nil || planned.Problem == nil || planned.Item(id) == nil || !strings.Contains(planned.Item(id).Reason, "is damaged at offset 40960") {
		t.Fatalf("%+v, %v", planned, err)
	}
	_, err = n.CreateDrain(t.Context(), StartDrain{Host: "h1", Actor: "ann", Reason: "disk"})
	wantError(t, err, drover.Precondition, "", "")
	h.set(func() {
		h.conditions = []drover.Condition{{Code: drover.LayerDamaged, Severity: drover.SeverityCritical, Subject: string(vol.Volume.ID), Text: "2 places are damaged"}}
	})
	w.eventually("the control host has heard of it", func() bool {
		planned, err := n.PlanDrain(t.Context(), StartDrain{Host: "h1", Actor: "ann", Reason: "disk"})
		return err == nil && planned.Item(id) != nil && strings.Contains(planned.Item(id).Reason, "2 places are damaged")
	})
	o := brisk()
	o.Suspect = true
	if d := w.drained(n, w.drain(n, "h1", o).ID); d.State != drover.DrainDone || d.Item(id).State != drover.ItemMoved {
		t.Fatalf("%+v", d)
	}
	w.checkOwner(n, id, "h2", true)
}
