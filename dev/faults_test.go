package dev

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"drover"
	"drover/internal/fault"
)

func TestCutBetweenHostsLeavesTheOthersAlone(t *testing.T) {
	f := namespacesOnly(t)
	if err := f.CutBetween(t.Context(), "h1", "c1"); err != nil {
		t.Fatal(err)
	}
	awaitRegistered(t, f, "h2", "h3")
	if h := host(t, f, "h1"); h.Link != "nothing to or from c1" {
		t.Errorf("h1: %+v", h)
	}
	if err := f.CutBetween(t.Context(), "h1", "h2", "h3"); err != nil {
		t.Fatal(err)
	}
	awaitRegistered(t, f, "h1", "h2", "h3") // the way to the control host is whole again
	if err := f.Heal(t.Context(), "h1"); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{"itself": f.CutBetween(t.Context(), "h1", "h1"), "a stranger": f.CutBetween(t.Context(), "h1", "h9")} {
		if err == nil {
			t.Errorf("h1 could be cut from %s", name)
		}
	}
}

func TestFullDisk(t *testing.T) {
	if _, _, err := chooseMode(t.Context(), os.Args[0], ModeNamespaces); err != nil {
		t.Skip(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("disks of their own need root")
	}
	dir, port := shortDir(t), 0
	before := lookAround(t, dir)
	up := func(disk drover.Bytes) (*Fleet, error) {
		return Up(t.Context(), Config{Dir: dir, Exe: os.Args[0], Workers: 1, Mode: ModeNamespaces, APIPort: &port, Wait: patience, Disk: disk})
	}
	f, err := up(minDisk)
	t.Cleanup(func() {
		if err := Down(context.WithoutCancel(t.Context()), dir, false); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	writes := func(where string) bool {
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		code, err := f.Exec(t.Context(), "h1", []string{"dd", "if=/dev/zero", "of=" + filepath.Join(paths(dir).data("h1"), where), "bs=1M", "count=40"}, null, null, null)
		if err != nil {
			t.Fatal(err)
		}
		return code == 0
	}
	if !writes("a") {
		t.Fatal("the disk cannot be written to")
	}
	if err := f.Fill(t.Context(), "h1", 20*drover.MiB); err != nil {
		t.Fatal(err)
	}
	if writes("b") {
		t.Error("40 MiB went into 20")
	}
	if err := f.Kill(t.Context(), "h1"); err != nil {
		t.Fatal(err)
	}
	if err := f.Start(t.Context(), "h1"); err != nil {
		t.Fatal(err)
	}
	if h := host(t, f, "h1"); h.Filled == 0 {
		t.Errorf("a power cut emptied the disk: %+v", h)
	}
	if err := f.Unfill(t.Context(), "h1"); err != nil {
		t.Fatal(err)
	}
	if !writes("b") {
		t.Error("the disk has no room again")
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	// It hangs: a write ends when the disk goes on, or its host loses its power.
	for _, end := range []func(context.Context, drover.HostID) error{f.Unhang, f.Kill} {
		if err := f.Hang(t.Context(), "h1"); err != nil {
			t.Fatal(err)
		}
		if h := host(t, f, "h1"); !h.DiskHangs {
			t.Errorf("the disk does not hang: %+v", h)
		}
		wrote := make(chan bool, 1)
		go func() {
			code, err := f.Exec(t.Context(), "h1", []string{"dd", "if=/dev/zero", "of=" + filepath.Join(paths(dir).data("h1"), "c"), "count=1"}, null, null, null)
			wrote <- err == nil && code == 0 // its host may lose its power meanwhile
		}()
		select {
		case ok := <-wrote:
			t.Errorf("something was written to a disk that hangs: %v", ok)
		case <-time.After(200 * time.Millisecond):
		}
		if err := end(t.Context(), "h1"); err != nil {
			t.Fatal(err)
		}
		<-wrote
		if h := host(t, f, "h1"); h.DiskHangs {
			t.Errorf("the disk hangs still: %+v", h)
		}
	}
	if err := f.Start(t.Context(), "h1"); err != nil {
		t.Fatal(err)
	}
	if !writes("b") {
		t.Error("the disk does not go on")
	}
	if _, err := up(2 * minDisk); !drover.Is(err, drover.Precondition) {
		t.Errorf("another disk: %v", err)
	}
	pids := paths(dir).fleetMembers().members()
	spaces := namespaces(pids)
	if err := f.Down(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	checkNothingLeft(t, dir, before, pids, spaces)
	if f, err = up(0); err != nil {
		t.Fatal(err)
	}
	if err := f.Fill(t.Context(), "h1", 0); err != nil {
		t.Errorf("the disk is not there again: %v", err)
	}
}

func TestAFleetWithoutDisksCannotBeFilled(t *testing.T) {
	f := bringUp(t, shortDir(t), ModeLoopback)
	if err := f.Fill(t.Context(), "h1", 0); !drover.Is(err, drover.Precondition) {
		t.Error(err)
	}
	if err := f.KillVM(t.Context(), "h1", "nobody"); !drover.Is(err, drover.NotFound) {
		t.Error(err)
	}
	if err := f.SetClock("h1", -time.Hour); err != nil {
		t.Fatal(err)
	}
	if h := host(t, f, "h1"); time.Duration(h.ClockOff) != -time.Hour || fault.ClockOffset(f.p.faults("h2")) != 0 {
		t.Errorf("%+v", h)
	}
	if err := f.SetClock("h1", 48*time.Hour); !drover.Is(err, drover.Invalid) {
		t.Error(err)
	}
	if err := f.Fault("h1", "a.b", "hold"); err != nil {
		t.Fatal(err)
	}
	if err := f.Release("h1", "a.b"); err != nil || f.Held("h1", "a.b") {
		t.Error(err)
	}
}
