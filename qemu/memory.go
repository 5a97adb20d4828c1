package qemu

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"drover"
)

// memoryLink begins the name of the memory of a VM among the files that its process has open: QEMU names a memfd by the kind of its object.
const memoryLink = "/memfd:memory-backend-memfd"

// memory opens the guest's memory, as the VM's process has it: nothing of it is on a disk, and it is gone with the last process that has it open. Precondition
// when the VM's memory is not shared.
func (vm *VM) memory(flag int) (f *os.File, size drover.Bytes, err error) {
	dir := "/proc/" + strconv.Itoa(vm.proc.pid) + "/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, 0, drover.Errorf(drover.Unavailable, "machine %q: the memory of its VM cannot be found: %w", vm.id, err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if link, err := os.Readlink(path); err != nil || !strings.HasPrefix(link, memoryLink) {
			continue
		}
		if f, err = os.OpenFile(path, flag, 0); err != nil {
			return nil, 0, drover.Errorf(drover.Unavailable, "machine %q: the memory of its VM cannot be opened: %w", vm.id, err)
		}
		st, err := f.Stat()
		if err == nil && !vm.ended() { // the process ID is still the VM's
			return f, drover.Bytes(st.Size()), nil
		}
		return nil, 0, drover.Errorf(drover.Unavailable, "machine %q: its VM has ended", vm.id)
	}
	return nil, 0, drover.Errorf(drover.Precondition, "machine %q: the memory of its VM is not shared with other processes", vm.id)
}

// copiesMemory reports whether this package copies the memory of VMs that move, and QEMU the rest of their state only. An emulated processor that writes
// a page while QEMU copies it can write past QEMU's list of changed pages (seen with 7.2): the guest would go on with a page of before. So nothing is
// asked of that list: package ramcopy compares. A real processor keeps the list itself.
func (d *Driver) copiesMemory() bool { return d.accel == drover.AccelTCG }
