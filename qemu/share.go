package qemu

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"drover"
)

const (
	// sharedWeight and performanceWeight are those of one CPU (cpu.weight; 100 is what a process without a group of its own has).
	sharedWeight      = 25
	performanceWeight = 400
	// hurryFactor is how much more a VM gets that somebody waits for: one that boots beside nine others that are busy took three times as long.
	hurryFactor = 4
	// maxWeight is the kernel's bound.
	maxWeight = 10_000
	// sharedNice stands for sharedWeight where there are no control groups: a quarter of what a process has that is not nice (sched(7)).
	sharedNice = 6
)

// weight is a share as a control group's.
func weight(s drover.VMShare) int {
	w := sharedWeight
	if s.Kind == drover.CPUPerformance {
		w = performanceWeight
	}
	w *= max(s.CPUs, 1)
	if s.Hurry {
		w *= hurryFactor
	}
	return min(w, maxWeight)
}

// nice is a share as a priority. Those of performance VMs are all the same.
func nice(s drover.VMShare) int {
	if s.Hurry || s.Kind == drover.CPUPerformance {
		return 0
	}
	return sharedNice
}

// SetShare changes what the VM gets of the host's CPUs. Without control groups, more than before takes a privilege, without which it stays as it is.
func (vm *VM) SetShare(s drover.VMShare) error {
	if vm.ended() {
		return nil
	}
	if dir := vm.d.groups.dir; dir != "" {
		err := set(filepath.Join(dir, string(vm.id)), "cpu.weight", strconv.Itoa(weight(s)))
		if errors.Is(err, fs.ErrNotExist) { // of a VM that was started before there were groups
			err = nil
		}
		return vm.shareError(err)
	}
	err := unix.Setpriority(unix.PRIO_PGRP, vm.proc.pid, nice(s)) // the VM is a session of its own; all of its threads
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ESRCH) {
		err = nil
	}
	return vm.shareError(err)
}

func (vm *VM) shareError(err error) error {
	if err == nil {
		return nil
	}
	return drover.Errorf(drover.Internal, "machine %q: cannot change its share of the host's CPUs: %w", vm.id, err)
}
