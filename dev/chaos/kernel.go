package chaos

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// What follows is read from where the kernel shows it: nobody's word is taken.

// tapPrefix begins the name of a machine's tap device.
const tapPrefix = "dm"

// devices compares the taps and routes of the host's network with its machines. Where machines have the VMM's own network there are none.
func (l look) devices() []string {
	proc := fmt.Sprintf("/proc/%d/net", l.host.PID)
	taps, routes := 0, 0
	for line := range lines(filepath.Join(proc, "dev")) {
		if strings.HasPrefix(strings.TrimSpace(line), tapPrefix) {
			taps++
		}
	}
	for line := range lines(filepath.Join(proc, "ipv6_route")) {
		// Destination and its prefix length come first, the device last; machines have addresses in fd00::/8 with a route of their own.
		f := strings.Fields(line)
		if len(f) > 2 && strings.HasPrefix(f[0], "fd") && f[1] == "80" && strings.HasPrefix(f[len(f)-1], tapPrefix) {
			routes++
		}
	}
	var out []string
	if taps > len(l.machines) {
		out = append(out, fmt.Sprintf("has %d taps for %d machines", taps, len(l.machines)))
	}
	if routes > len(l.machines) {
		out = append(out, fmt.Sprintf("has %d routes for %d machines", routes, len(l.machines)))
	}
	return out
}

// vms counts VMs in the process table, of all hosts at once: each machine has one, and it is in this host's network.
func (l look) vms() []string {
	var out []string
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", l.host.PID))
	if err != nil {
		return []string{fmt.Sprintf("cannot be looked into: %v", err)}
	}
	for _, m := range l.machines {
		here, elsewhere := 0, 0
		for _, pid := range processesWith(string(m.id)) {
			if other, err := os.Readlink(filepath.Join("/proc", pid, "ns", "net")); err == nil && other == ns {
				here++
			} else if err == nil {
				elsewhere++
			}
		}
		if here != 1 || elsewhere != 0 {
			out = append(out, fmt.Sprintf("runs %d VMs of machine %s, others %d", here, m.id, elsewhere))
		}
	}
	return out
}

// processesWith lists the VMM processes that have a word in their arguments.
func processesWith(word string) []string {
	var out []string
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		program, rest, _ := bytes.Cut(line, []byte{0})
		if strings.HasPrefix(filepath.Base(string(program)), "qemu-system") && bytes.Contains(rest, []byte(word)) {
			out = append(out, filepath.Base(filepath.Dir(path)))
		}
	}
	return out
}

// tracesOf lists processes, mounts and loop devices that speak of a directory: when the fleet is down there are none. When it was removed
// there is no directory either.
func tracesOf(dir string, removed bool) []string {
	var out []string
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		line, err := os.ReadFile(path)
		text := string(bytes.ReplaceAll(line, []byte{0}, []byte{' '}))
		if err == nil && path != fmt.Sprintf("/proc/%d/cmdline", os.Getpid()) && strings.Contains(text, dir+"/") {
			out = append(out, "the process "+text)
		}
	}
	for line := range lines("/proc/self/mounts") {
		if strings.Contains(line, dir+"/") {
			out = append(out, "the mount "+line)
		}
	}
	backings, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, path := range backings {
		if text, err := os.ReadFile(path); err == nil && strings.HasPrefix(string(text), dir+"/") {
			out = append(out, "the loop device of "+strings.TrimSpace(string(text)))
		}
	}
	if _, err := os.Stat(dir); err == nil && removed {
		out = append(out, "the directory "+dir)
	}
	return out
}

// lines reads a file line by line; one that is not there has none.
func lines(path string) func(yield func(string) bool) {
	content, err := os.ReadFile(path)
	if err != nil {
		return func(func(string) bool) {}
	}
	return strings.Lines(string(content))
}
