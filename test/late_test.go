package test

import (
	"bufio"
	"io"
	"strings"
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
	undoneOnTheWay(t, w, "--bandwidth", "64KiB")
	// The bandwidth of a move bounds the memory, too, of which there is more; the target's own limit does not.
	ask[drover.StorageSettings](t, "host", "storage", "h1", "--hydration-limit", "64KiB")
	defer ask[drover.StorageSettings](t, "host", "storage", "h1", "--hydration-limit", "none")
	if m := undoneOnTheWay(t, w, "--live"); !m.Live || m.Memory == nil {
		t.Errorf("migration %+v", m)
	}
}

// undoneOnTheWay takes a move from h2 to h1 back whose data would be on the way for long. What was acknowledged before the move is there afterwards.
func undoneOnTheWay(t *testing.T, w *writer, how ...string) drover.Migration {
	t.Helper()
	before := w.verify(t)
	m := ask[drover.Migration](t, append([]string{"machine", "move", string(w.id), "--to", "h1", "--switch", "early", "--detach"}, how...)...)
	eventually(t, boundBoot, "it runs while its data is on the way", func() bool {
		m = ask[drover.Migration](t, "migration", "show", string(m.ID))
		return m.Phase == drover.PhaseHydrate && !m.RunningAt.IsZero()
	})
	boot := w.Now().Boot
	back := ask[drover.Migration](t, "migration", "undo", string(m.ID), "--yes")
	if back.Outcome != drover.Succeeded || back.Undoes != m.ID || !back.Interrupts || back.Target != "h2" || back.RunningAt.IsZero() {
		t.Fatalf("migration %+v", back)
	}
	w.comesBack(t, boot)
	if m = ask[drover.Migration](t, "migration", "show", string(m.ID)); m.Outcome != drover.Aborted || m.UndoneBy != back.ID {
		t.Fatalf("migration %+v", m)
	}
	if after := w.verify(t); after.Records < before.Records || after.Blocks < before.Blocks || after.BadRecords+after.BadBlocks != 0 {
		t.Errorf("before %+v, and when it was taken back %+v", before, after)
	}
	for _, l := range ask[[]drover.LayerStatus](t, "host", "layers", "h1") {
		for _, d := range m.Disks {
			if l.ID == d.Target {
				t.Errorf("left on h1: %+v", l)
			}
		}
	}
	return m
}

// A connection from another host stays open while the machine at its end moves with its memory.
func TestAConnectionOutlivesALiveMove(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	m := shell(t, app, "exec busybox nc -ll -p 7777 -e cat", "--host", "h1")
	reachedFromEverywhere(t, m.PrivateIP)
	eventually(t, boundBoot, "an echo", func() bool {
		out, _ := onHost(t, "h3", "sh", "-c", "echo hello | busybox nc -w 2 "+m.PrivateIP+" 7777")
		return strings.Contains(out, "hello")
	})
	// The client is on a host that the machine is never on.
	client := fleet.cli.Command(t.Context(), "dev", "exec", "h3", "--", "busybox", "nc", m.PrivateIP, "7777")
	in, err := client.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := client.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewScanner(out)
	echoed := func(text string) {
		t.Helper()
		if _, err := io.WriteString(in, text+"\n"); err != nil {
			t.Fatal(err)
		}
		if !answers.Scan() || answers.Text() != text {
			t.Fatalf("asked for %q, got %q, %v", text, answers.Text(), answers.Err())
		}
	}
	echoed("before")
	for _, to := range []string{"h2", "h1"} {
		moved := ask[drover.Migration](t, "machine", "move", string(m.ID), "--to", to, "--live", "--switch", "early")
		if moved.Outcome != drover.Succeeded || !moved.Live {
			t.Fatalf("migration %+v", moved)
		}
		echoed("on " + to)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if err := client.Wait(); err != nil {
		t.Error(err)
	}
}
