package dev

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"drover"
)

// processPoll is how often the end of a process is looked for where the kernel does not tell.
const processPoll = 10 * time.Millisecond

// waitGone waits until the process has ended and its parent has noticed, or is a zombie whose parent is not us to wait for.
func waitGone(ctx context.Context, pids ...int) error {
	tick := time.NewTicker(processPoll)
	defer tick.Stop()
	for {
		pids = slices.DeleteFunc(pids, func(pid int) bool { return !alive(pid) })
		if len(pids) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return drover.Errorf(drover.Unavailable, "process %d does not end: %w", pids[0], context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// alive reports whether the process exists and is not a zombie.
func alive(pid int) bool {
	state, _ := stat(pid)
	return state != 0 && state != 'Z' && state != 'X'
}

// stat reads a process's state and parent; state 0 means that there is no such process.
func stat(pid int) (state byte, parent int) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, 0
	}
	// The name is in parentheses and may hold anything (proc(5)): go on after the last one.
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(fields) < 2 {
		return 0, 0
	}
	parent, err = strconv.Atoi(string(fields[1]))
	if err != nil {
		return 0, 0
	}
	return fields[0][0], parent
}

// processes lists the IDs of all processes.
func processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// membership tells which processes belong to a fleet or to a host: those that have the variable ("NAME=value") in their environment, and
// those that have a file in the directory open for writing. VMs are started with an environment of their own and are found by the
// latter; somebody who only looks at a log is not.
type membership struct{ variable, dir string }

// members lists the living processes that belong, this one apart.
func (m membership) members() []int {
	dir := m.dir
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		dir = resolved // as the kernel names open files
	}
	var pids []int
	for _, pid := range processes() {
		if pid != os.Getpid() && (hasVariable(pid, m.variable) || writesIn(pid, dir)) && alive(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// hasVariable reports whether the process was started with the variable; a process that is gone or somebody else's was not.
func hasVariable(pid int, variable string) bool {
	env, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool { return string(v) == variable })
}

// writesIn reports whether the process has a file in the directory open for writing, be it removed or not.
func writesIn(pid int, dir string) bool {
	fds := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(fds)
	if err != nil {
		return false
	}
	for _, e := range entries {
		link := filepath.Join(fds, e.Name())
		if target, err := os.Readlink(link); err != nil || !strings.HasPrefix(target, dir+"/") {
			continue
		}
		// The link's own mode tells how the file was opened (proc(5)).
		if st, err := os.Lstat(link); err == nil && st.Mode().Perm()&0o200 != 0 {
			return true
		}
	}
	return false
}

// sweep kills every process that belongs, until there is none.
func (m membership) sweep(ctx context.Context) error {
	for {
		pids := m.members()
		if len(pids) == 0 {
			return nil
		}
		if err := killAll(pids); err != nil {
			return err
		}
		if err := waitGone(ctx, pids...); err != nil {
			return err
		}
	}
}

func killAll(pids []int) error {
	var errs []error
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, drover.Errorf(drover.Internal, "cannot kill process %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

// cutPower kills all descendants of a process, and with self the process too, without letting any of them do anything more: they are
// stopped first, until no new ones appear (a stopped process makes none), and killed then. Errors mean that a process was gone already.
func cutPower(root int, self bool) {
	frozen := map[int]bool{}
	for fresh := true; fresh; {
		fresh = false
		tree := descendants(root)
		if !self {
			tree = tree[1:]
		}
		for _, pid := range tree {
			if !frozen[pid] {
				unix.Kill(pid, unix.SIGSTOP)
				frozen[pid], fresh = true, true
			}
		}
	}
	for pid := range frozen {
		unix.Kill(pid, unix.SIGKILL)
	}
}

func descendants(root int) []int {
	parents := map[int]int{}
	for _, pid := range processes() {
		if _, parent := stat(pid); parent != 0 {
			parents[pid] = parent
		}
	}
	out := []int{root}
	for i := 0; i < len(out); i++ {
		for pid, parent := range parents {
			if parent == out[i] {
				out = append(out, pid)
			}
		}
	}
	return out
}

// outerPID finds the process that is called inner in the PID namespace of the process parent, among parent's children. 0 when
// there is none.
func outerPID(parent, inner int) int {
	for _, pid := range descendants(parent)[1:] {
		data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			ids, ok := strings.CutPrefix(line, "NSpid:")
			if fields := strings.Fields(ids); ok && len(fields) > 0 && fields[len(fields)-1] == strconv.Itoa(inner) {
				return pid
			}
		}
	}
	return 0
}
