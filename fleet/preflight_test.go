package fleet

import (
	"strings"
	"testing"

	"drover"
)

func TestACheckTellsEverythingInOneAnswer(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
	check, err := n.CheckMove(t.Context(), Move{Machine: id, Target: "h2"})
	if err != nil || !check.Possible || check.Source != "h1" || check.Target != "h2" || check.Copies == 0 || len(check.Findings) < 5 {
		t.Fatalf("%+v, %v", check, err)
	}
	w.hosts["h2"].set(func() {
		w.hosts["h2"].findings = []drover.MoveFinding{{Check: "network", Host: "h2", Text: "h2 does not reach h1", Hint: "mend it"},
			{Check: "credentials", Host: "h2", Text: "the certificate is old"}}
	})
	w.hosts["h1"].set(func() {
		w.hosts["h1"].findings = []drover.MoveFinding{{Check: "network", Host: "h1", Text: "h1 does not reach h2"},
			{Check: "cpu", Host: "h1", Text: "it has a device that cannot move", LiveOnly: true}}
	})
	if check, err = n.CheckMove(t.Context(), Move{Machine: id, Target: "h2"}); err != nil || check.Possible {
		t.Fatalf("%+v, %v", check, err)
	}
	_, err = n.MoveMachine(t.Context(), Move{Machine: id, Target: "h2"})
	for _, text := range []string{"h2 does not reach h1", "h1 does not reach h2", "the certificate is old"} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q is not in %v", text, err)
		}
	}
	if list, err := n.Migrations(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("a refused move left %+v, %v", list, err)
	}
	w.hosts["h2"].set(func() { w.hosts["h2"].findings = nil })
	w.hosts["h1"].set(func() { w.hosts["h1"].findings = w.hosts["h1"].findings[1:] })
	_, err = n.MoveMachine(t.Context(), Move{Machine: id, Target: "h2", Options: drover.MoveOptions{Live: true}})
	wantError(t, err, drover.Precondition, "live", "")
	if hint := drover.AsError(err).Hint; !strings.Contains(hint, "cold") {
		t.Errorf("the hint is %q", hint)
	}
	m, err := n.MoveMachine(t.Context(), Move{Machine: id, Target: "h2", Options: drover.MoveOptions{LiveOrCold: true}})
	if err != nil {
		t.Fatal(err)
	}
	if m = w.ended(n, m.ID); m.Outcome != drover.Succeeded || m.Live || m.ColdReason != "it has a device that cannot move" {
		t.Fatalf("%+v", m)
	}
}

func TestBadMoveOptionsAreNamed(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Host: "h1"}).Machine.ID
	for field, o := range map[string]drover.MoveOptions{"switch": {Switch: "soon"}, "bandwidth": {Bandwidth: -1}, "deadline": {Deadline: -1}, "no_progress": {NoProgress: -1}} {
		_, err := n.MoveMachine(t.Context(), Move{Machine: id, Options: o})
		wantError(t, err, drover.Invalid, field, "")
	}
}
