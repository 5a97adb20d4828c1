package fleet

import (
	"slices"
	"testing"

	"drover"
)

func TestAMoveTakesMachineAndVolume(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	vol := w.volume(n, "h1")
	v := w.machine(n, CreateMachine{Config: drover.MachineConfig{Image: "busybox", Mounts: []drover.Mount{{Volume: vol.Volume.ID, Path: "/data"}}}})
	before := v.Machine
	m, err := n.MoveMachine(ctx, Move{App: "shop", Machine: before.ID, Actor: "ann", Options: drover.MoveOptions{Switch: drover.SwitchLate}})
	if err != nil {
		t.Fatal(err)
	}
	if m.Target != "h2" {
		t.Errorf("the fleet chose %s, which is not in the machine's region", m.Target)
	}
	m = w.ended(n, m.ID)
	if m.Outcome != drover.Succeeded || m.Problem != nil {
		t.Fatalf("%s: %v", m.Outcome, m.Problem)
	}
	w.checkOwner(n, before.ID, "h2", true)
	after, err := n.Machine(ctx, "shop", before.ID)
	if err != nil || after.Machine.Address != before.Address || after.Machine.Instance != before.Instance || after.Migration != nil {
		t.Fatalf("%+v, %v", after, err)
	}
	if got, err := n.Volume(ctx, "shop", vol.Volume.ID); err != nil || got.Volume.Host != "h2" || got.Volume.Epoch != m.ToEpoch || got.Volume.State != drover.VolumeCreated {
		t.Fatalf("%+v, %v", got, err)
	}
	var phases []drover.Phase
	for _, s := range m.Steps {
		phases = append(phases, s.Phase)
		if s.Tries != 1 || s.EndedAt.IsZero() {
			t.Errorf("step %+v", s)
		}
	}
	if !slices.Equal(phases, drover.Phases) {
		t.Errorf("phases %v", phases)
	}
	if m.StoppedAt.IsZero() || !m.RunningAt.After(m.StoppedAt) || len(m.Disks) != 2 || m.ToEpoch <= m.FromEpoch {
		t.Errorf("%+v", m)
	}
	// And back again.
	m, err = n.MoveMachine(ctx, Move{Machine: before.ID, Target: "h1"})
	if err != nil {
		t.Fatal(err)
	}
	if m = w.ended(n, m.ID); m.Outcome != drover.Succeeded {
		t.Fatalf("%s: %v", m.Outcome, m.Problem)
	}
	w.checkOwner(n, before.ID, "h1", true)
}
