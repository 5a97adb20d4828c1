package qemu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover"
)

// fakeCgroup makes what looks like a hierarchy with the controllers, as far as plain files can.
func fakeCgroup(t *testing.T, controllers string, dirs ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range append([]string{""}, dirs...) {
		for name, content := range map[string]string{"cgroup.controllers": controllers, "cgroup.subtree_control": "", "cpu.weight": "", "cpu.max": "", "memory.max": "",
			"memory.oom.group": "", "memory.events": "low 0\noom 1\noom_kill 2\n"} {
			path := filepath.Join(root, dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

func TestAGroupHasTheMachinesSizeAndTheEmulatorsOwn(t *testing.T) {
	root := fakeCgroup(t, "cpuset cpu io memory pids\n", "drover", "drover/run_vm", "drover/run_vm/m1")
	c := findCgroups(root, "/run/vm")
	if c.dir != filepath.Join(root, "drover/run_vm") {
		t.Fatalf("groups %+v", c)
	}
	group, err := c.open(drover.VMSpec{Machine: "m1", CPUs: 2, MemoryMB: 256}, 100*drover.MiB)
	if err != nil {
		t.Fatal(err)
	}
	if err := group.Close(); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]string{"cpu.max": "300000 100000", "memory.max": "373293056", "memory.oom.group": "1"} {
		got, err := os.ReadFile(filepath.Join(c.dir, "m1", name))
		if err != nil || string(got) != want {
			t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
	}
	if !c.outOfMemory("m1") || c.outOfMemory("m2") {
		t.Error("what the kernel killed is not told")
	}
}

func TestWithoutControlGroupsTheReasonIsTold(t *testing.T) {
	c := findCgroups(fakeCgroup(t, "hugetlb\n"), "/run/vm")
	if c.dir != "" || !strings.Contains(c.reason, `no controller "cpu"`) {
		t.Errorf("groups %+v", c)
	}
	if group, err := c.open(drover.VMSpec{Machine: "m1"}, 0); group != nil || err != nil {
		t.Errorf("a group all the same: %v, %v", group, err)
	}
	if err := c.remove("m1"); err != nil {
		t.Error(err)
	}
	path := filepath.Join(t.TempDir(), "mountinfo")
	if err := os.WriteFile(path, []byte("22 1 0:21 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if at, err := cgroupMount(path); err != nil || at != "/sys/fs/cgroup/unified" {
		t.Errorf("mounted at %q, %v", at, err)
	}
}
