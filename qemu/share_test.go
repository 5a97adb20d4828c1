package qemu

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"drover"
)

func TestAShareIsAGroupsWeight(t *testing.T) {
	for _, c := range []struct {
		share drover.VMShare
		want  string
	}{
		{drover.VMShare{CPUs: 2, Kind: drover.CPUShared}, "50"},
		{drover.VMShare{CPUs: 2, Kind: drover.CPUShared, Hurry: true}, "200"},
		{drover.VMShare{CPUs: 2, Kind: drover.CPUPerformance}, "800"},
		{drover.VMShare{CPUs: 16, Kind: drover.CPUPerformance, Hurry: true}, "10000"},
	} {
		root := fakeCgroup(t, "cpu memory\n", "drover", "drover/run_vm", "drover/run_vm/m1")
		vm := &VM{d: &Driver{groups: findCgroups(root, "/run/vm")}, id: "m1", done: make(chan struct{})}
		if err := vm.SetShare(c.share); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(root, "drover/run_vm/m1/cpu.weight")); err != nil || string(got) != c.want {
			t.Errorf("%+v: %q, %v; want %q", c.share, got, err, c.want)
		}
	}
}

// Without groups it is a priority, of every thread: the emulator has one for each of the guest's CPUs, and others.
func TestAShareIsAPriorityWithoutGroups(t *testing.T) {
	m := newMachine(t, runDir(t), testID, "echo up\n"+untilTold)
	d := newDriver(t, runDir(t))
	d.groups = cgroups{reason: "the test wants none"}
	vm := start(t, d, m)
	m.waitConsole(t, "up")
	for _, c := range []struct {
		share drover.VMShare
		want  int
	}{
		{drover.VMShare{CPUs: 1, Kind: drover.CPUShared, Hurry: true}, 0},
		{drover.VMShare{CPUs: 1, Kind: drover.CPUPerformance}, 0},
		{drover.VMShare{CPUs: 1, Kind: drover.CPUShared}, sharedNice},
	} {
		if err := vm.SetShare(c.share); err != nil {
			t.Fatal(err)
		}
		threads, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(vm.PID()), "task"))
		if err != nil || len(threads) < 2 {
			t.Fatalf("%d threads, %v", len(threads), err)
		}
		for _, thread := range threads {
			id, err := strconv.Atoi(thread.Name())
			if err != nil {
				t.Fatal(err)
			}
			got, err := unix.Getpriority(unix.PRIO_PROCESS, id) // the system call's own answer: 20 - nice
			if err != nil || 20-got != c.want {
				t.Errorf("%+v: thread %d has %d, %v; want %d", c.share, id, 20-got, err, c.want)
			}
		}
	}
	m.tell(t, "go")
	waitEnd(t, vm, "guest-shutdown")
}
