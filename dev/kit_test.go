package dev

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"drover"
)

// patience bounds every wait of the tests; it is for slow machines, nothing is measured against it.
const patience = 60 * time.Second

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-ctx.Done():
			t.Fatalf("did not happen: %s", what)
		case <-tick.C:
		}
	}
}

// eachMode runs a test in every mode that this machine allows.
func eachMode(t *testing.T, test func(t *testing.T, mode Mode)) {
	for _, mode := range []Mode{ModeNamespaces, ModeLoopback} {
		t.Run(string(mode), func(t *testing.T) {
			if _, _, err := chooseMode(t.Context(), os.Args[0], mode); err != nil {
				t.Skip(err)
			}
			test(t, mode)
		})
	}
}

// shortDir is a directory whose path leaves room for sockets in it; t.TempDir has the test's name in it.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// bringUp brings a fleet of three workers up on any port, and ends it with the test.
func bringUp(t *testing.T, dir string, mode Mode) *Fleet {
	t.Helper()
	port := 0
	f, err := Up(t.Context(), Config{Dir: dir, Exe: os.Args[0], Mode: mode, APIPort: &port, Wait: patience,
		Progress: func(text string) { t.Log(text) }})
	t.Cleanup(func() {
		if t.Failed() {
			showLogs(t, dir)
		}
		if err := Down(context.WithoutCancel(t.Context()), dir, false); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func showLogs(t *testing.T, dir string) {
	logs, _ := filepath.Glob(filepath.Join(dir, "hosts/*/log/*.log"))
	for _, path := range append(logs, filepath.Join(dir, "rack.log")) {
		data, _ := os.ReadFile(path)
		t.Logf("%s:\n%s", path, data)
	}
}

func status(t *testing.T, f *Fleet) Status {
	t.Helper()
	s, err := f.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func host(t *testing.T, f *Fleet, id drover.HostID) HostStatus {
	t.Helper()
	for _, h := range status(t, f).Hosts {
		if h.ID == id {
			return h
		}
	}
	t.Fatalf("no host %q", id)
	return HostStatus{}
}

// registered lists the workers that the control host hears of now.
func registered(t *testing.T, f *Fleet) []drover.HostID {
	t.Helper()
	info, err := ReadAPIInfo(f.Dir())
	if err != nil {
		t.Fatal(err)
	}
	hosts, err := askHosts(t.Context(), info)
	if err != nil {
		return nil
	}
	var ids []drover.HostID
	for _, h := range hosts {
		ids = append(ids, h.ID)
	}
	slices.Sort(ids)
	return ids
}

func awaitRegistered(t *testing.T, f *Fleet, want ...drover.HostID) {
	t.Helper()
	eventually(t, fmt.Sprintf("registered are %v", want), func() bool { return slices.Equal(registered(t, f), want) })
}

// world is what a fleet may not change outside of its directory.
type world struct {
	mounts string
	links  []string
	run    []string
	around []string
}

func lookAround(t *testing.T, dir string) world {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	w := world{mounts: string(mounts), run: names(t, "/run"), around: names(t, filepath.Dir(dir))}
	for _, l := range links {
		w.links = append(w.links, l.Attrs().Name)
	}
	return w
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// namespaces lists the namespaces that the processes are in, but for those that the test itself is in.
func namespaces(pids []int) []string {
	mine := namespacesOf(os.Getpid())
	found := map[string]bool{}
	for _, pid := range pids {
		for _, ns := range namespacesOf(pid) {
			if !slices.Contains(mine, ns) {
				found[ns] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func namespacesOf(pid int) []string {
	var out []string
	for _, kind := range []string{"net", "pid", "mnt", "uts", "user"} {
		if link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind)); err == nil {
			out = append(out, link)
		}
	}
	return out
}

// checkNothingLeft compares the world with what it was, and looks for the fleet's processes and namespaces.
func checkNothingLeft(t *testing.T, dir string, before world, pids []int, spaces []string) {
	t.Helper()
	after := lookAround(t, dir)
	if after.mounts != before.mounts {
		t.Errorf("mounts changed from\n%s\nto\n%s", before.mounts, after.mounts)
	}
	if !slices.Equal(after.links, before.links) {
		t.Errorf("links changed from %v to %v", before.links, after.links)
	}
	if !slices.Equal(after.run, before.run) {
		t.Errorf("/run changed from %v to %v", before.run, after.run)
	}
	if left := paths(dir).fleetMembers().members(); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d is left", pid)
		}
	}
	now := namespaces(processes())
	for _, ns := range spaces {
		if slices.Contains(now, ns) {
			t.Errorf("namespace %s is left", ns)
		}
	}
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type()&os.ModeSocket != 0 {
			t.Errorf("a socket is left: %s", path)
		}
		return nil
	})
}

func starts(t *testing.T, f *Fleet, id drover.HostID) int {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(f.p.data(id), "starts"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(data), "\n")
}
