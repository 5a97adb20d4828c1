package test

import (
	"testing"

	"drover"
)

// A machine that writes all the time moves in rounds, with its memory, and back again by an undo.
func TestMoveLateLiveAndUndone(t *testing.T) {
	app := newApp(t)
	w := newWriter(t, app, "h1")
	check := ask[drover.MoveCheck](t, "machine", "check-move", string(w.id), "--to", "h2", "--live")
	if !check.Possible || len(check.Findings) == 0 {
		t.Fatalf("%+v", check)
	}
	boot := w.Now().Boot
	m := ask[drover.Migration](t, "machine", "move", string(w.id), "--to", "h2", "--live", "--switch", "late")
	if m.Outcome != drover.Succeeded || !m.Live || !m.Late || m.Convergence == nil || m.Convergence.Round < 1 || m.Memory == nil {
		t.Fatalf("migration %+v", m)
	}
	t.Logf("paused for %v, %+v", m.Memory.PausedFor, m.Convergence)
	w.goesOn(t)
	if now := w.Now().Boot; now != boot {
		t.Errorf("the machine was restarted: %s, before %s", now, boot)
	}
	w.intact(t)
	m = ask[drover.Migration](t, "machine", "move", string(w.id), "--to", "h3", "--switch", "late")
	if m.Outcome != drover.Succeeded || m.Live || !m.Late {
		t.Fatalf("migration %+v", m)
	}
	w.comesBack(t, boot)
	w.intact(t)
	// Without a terminal an undo needs to be confirmed.
	back := ask[drover.Migration](t, "migration", "undo", string(m.ID), "--yes")
	if back.Outcome != drover.Succeeded || back.Undoes != m.ID || back.Target != "h2" {
		t.Fatalf("migration %+v", back)
	}
}
