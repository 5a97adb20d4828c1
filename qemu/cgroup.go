package qemu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"drover"
)

// cgroups bounds what the process of a VM may take of its host: each has a group of its own in the control group hierarchy, version 2.
// Where there is none to be had, the weight of a VM's CPUs is all that is kept, by its priority (share.go).
type cgroups struct {
	// dir is the parent of the groups; empty where there are none, for the reason.
	dir, reason string
}

const (
	// cpuPeriod is that of cpu.max, in microseconds.
	cpuPeriod = 100_000
	// ownCPUs is what the emulator needs besides the guest's CPUs: disks and network are served by threads of its own.
	ownCPUs = 1
	// overheadMB is what the emulator may take besides the guest's memory: its own code and buffers, and page tables. With TCG comes
	// what it keeps of translated code.
	overheadMB = 192
)

// Overhead is the memory that a VM's process may take of its host besides the guest's own.
func (d *Driver) Overhead() drover.Bytes {
	size := drover.Bytes(overheadMB)
	if d.accel == drover.AccelTCG {
		size += codeCacheMiB
	}
	return size * drover.MiB
}

// findCgroups looks for a hierarchy in which groups can be made. root is where it is mounted; "" looks for it. Each run directory has a group of
// its own, so that two agents of one machine, as in a fleet for development, do not mix.
func findCgroups(root, runDir string) cgroups {
	if root == "" {
		var err error
		if root, err = cgroupMount("/proc/self/mountinfo"); err != nil {
			return cgroups{reason: err.Error()}
		}
	}
	dir := root
	for _, name := range []string{"drover", strings.ReplaceAll(strings.Trim(runDir, "/"), "/", "_")} {
		if err := enable(dir); err != nil {
			return cgroups{reason: err.Error()}
		}
		dir = filepath.Join(dir, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return cgroups{reason: fmt.Sprintf("no group can be made: %v", err)}
		}
	}
	if err := enable(dir); err != nil {
		return cgroups{reason: err.Error()}
	}
	return cgroups{dir: dir}
}

// cgroupMount returns where version 2 is mounted (proc_pid_mountinfo(5)).
func cgroupMount(mountinfo string) (string, error) {
	data, err := os.ReadFile(mountinfo)
	if err != nil {
		return "", fmt.Errorf("mounts cannot be read: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		before, after, ok := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if ok && len(fields) >= 5 && strings.HasPrefix(after, "cgroup2 ") {
			return fields[4], nil
		}
	}
	return "", errors.New("control groups of version 2 are not mounted")
}

// enable lets the groups below dir have CPU and memory controllers.
func enable(dir string) error {
	has, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("the controllers of %s cannot be read: %w", dir, err)
	}
	for _, name := range []string{"cpu", "memory"} {
		if !slices.Contains(strings.Fields(string(has)), name) {
			return fmt.Errorf("%s has no controller %q: it is used by version 1, or switched off", dir, name)
		}
	}
	if err := set(dir, "cgroup.subtree_control", "+cpu +memory"); err != nil {
		return fmt.Errorf("the controllers of %s cannot be passed on: %w", dir, err)
	}
	return nil
}

func set(dir, name, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// limits are the settings of a VM's group for all of its life; its weight is its share.
func limits(spec drover.VMSpec, overhead drover.Bytes) [][2]string {
	memory := drover.Bytes(spec.MemoryMB)*drover.MiB + overhead
	return [][2]string{
		{"cpu.max", fmt.Sprintf("%d %d", (spec.CPUs+ownCPUs)*cpuPeriod, cpuPeriod)},
		{"memory.max", strconv.FormatInt(int64(memory), 10)},
		{"memory.oom.group", "1"},
	}
}

// open makes the group of a VM and returns it for a start; nil where there are none.
func (c cgroups) open(spec drover.VMSpec, overhead drover.Bytes) (*os.File, error) {
	if c.dir == "" {
		return nil, nil
	}
	dir := filepath.Join(c.dir, string(spec.Machine))
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("cannot make a control group: %w", err)
	}
	for _, l := range limits(spec, overhead) {
		if err := set(dir, l[0], l[1]); err != nil {
			return nil, fmt.Errorf("cannot set %s of the control group: %w", l[0], err)
		}
	}
	return os.Open(dir)
}

// remove takes the group of a VM that has ended away.
func (c cgroups) remove(id drover.MachineID) error {
	if c.dir == "" {
		return nil
	}
	err := unix.Rmdir(filepath.Join(c.dir, string(id)))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// outOfMemory reports whether the kernel has killed a VM because its process took more than its bound.
func (c cgroups) outOfMemory(id drover.MachineID) bool {
	if c.dir == "" {
		return false
	}
	data, err := os.ReadFile(filepath.Join(c.dir, string(id), "memory.events"))
	if err != nil {
		return false // no group, or gone: nothing can be told
	}
	for line := range strings.Lines(string(data)) {
		if count, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return strings.TrimSpace(count) != "0"
		}
	}
	return false
}
