package main

import (
	"fmt"
	"strings"
	"testing"

	"drover"
	"drover/api/apitest"
)

func TestScaleShowsCountsAndSizes(t *testing.T) {
	t.Chdir(t.TempDir())
	backend := apitest.New()
	r := runner{vars: fleetOf(t, backend)}
	deployedShop(t, backend)
	got := r.run(t.Context(), "scale", "show", "-a", "shop")
	want := `GROUP  COUNT  CPUS  KIND    MEMORY   REGIONS  STATES
old    1      1     shared  256 MiB  north    started
web    1      1     shared  256 MiB  north    started
`
	if got.code != 0 || got.stdout != want || !strings.Contains(got.stderr, "1 machine besides, which no deploy has made") {
		t.Errorf("%+v", got)
	}
	if got := r.run(t.Context(), "scale", "show", "-a", "shop", "--json"); !strings.Contains(got.stdout, `"process_group": "old"`) || !strings.Contains(got.stdout, `"memory_mb": 256`) {
		t.Errorf("%+v", got)
	}
}

// New machines are like those that there are, with volumes of their own, dealt out to regions; those that are too many go, and nothing of others does.
func TestScaleCountMakesAndDestroys(t *testing.T) {
	t.Chdir(t.TempDir())
	backend := apitest.New()
	r := runner{vars: fleetOf(t, backend)}
	deployedShop(t, backend)
	endDeploys(backend, "none")
	newest := func() drover.Deploy {
		t.Helper()
		all, err := backend.Deploys(t.Context(), "shop")
		if err != nil || len(all) == 0 {
			t.Fatal("no deploy: ", err)
		}
		return all[0]
	}
	if got := r.run(t.Context(), "scale", "count", "3", "-a", "shop"); got.code != 2 || !strings.Contains(got.stderr, "the process groups old, web: which one?") {
		t.Errorf("%+v", got)
	}
	got := r.run(t.Context(), "scale", "count", "web=4", "-a", "shop", "--region", "north,south")
	if got.code != 0 || !strings.Contains(got.stdout, "is done: 3 of 3 machines") {
		t.Errorf("%+v", got)
	}
	d := newest()
	regions, volumes := map[drover.Region]int{}, map[drover.VolumeID]bool{}
	for _, i := range d.Items {
		regions[i.Region]++
		if i.Action != drover.DeployCreate || i.Group != "web" || i.Config.Image != "debian:11" || len(i.Config.Mounts) != 1 || i.Config.Mounts[0].Path != "/old" {
			t.Fatalf("%+v", i)
		}
		volumes[i.Config.Mounts[0].Volume] = true
	}
	if fmt.Sprint(regions) != "map[north:1 south:2]" || len(volumes) != 3 || d.Text != "scale: web 1 to 4" {
		t.Errorf("%v, %v, %q", regions, volumes, d.Text)
	}
	if got := r.run(t.Context(), "scale", "count", "web=1", "-a", "shop"); got.code != 0 || !strings.Contains(got.stderr, "has that already") {
		t.Errorf("%+v", got)
	}
	if got := r.run(t.Context(), "scale", "count", "web=0", "old=0", "-a", "shop"); got.code != 5 || !strings.Contains(got.stderr, "destroy 2 machines of app shop") {
		t.Errorf("without a person and --yes: %+v", got)
	}
	if got := r.run(t.Context(), "scale", "count", "0", "-g", "old", "-a", "shop", "--yes"); got.code != 0 {
		t.Errorf("%+v", got)
	}
	if d := newest(); len(d.Items) != 1 || d.Items[0].Action != drover.DeployDestroy || d.Items[0].Name != "mold" {
		t.Errorf("%+v", d.Items)
	}
	if got := r.run(t.Context(), "scale", "count", "web=9", "-a", "shop", "--max-per-region", "3", "--dry-run"); got.code != 5 || !strings.Contains(got.stderr, "no place for 8 more") {
		t.Errorf("%+v", got)
	}
	for args, want := range map[string]string{"web=x": "no number of machines", "web=-1": "no number of machines", "web=1 2": "names no process group", "web=1 web=2": "named twice",
		"nope=2": `has no process group "nope", and no deploy that made one is known`, "web=501": "expected 0 to 500"} {
		got := r.run(t.Context(), append([]string{"scale", "count", "-a", "shop", "--yes"}, strings.Fields(args)...)...)
		if (got.code != 2 && got.code != 3) || !strings.Contains(got.stderr, want) {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

// A group that has no machine left is scaled up again like the last deploy of it, or like the file here.
func TestScaleFromNothing(t *testing.T) {
	inDirectory(t, flyFile)
	backend := apitest.New()
	r := runner{vars: fleetOf(t, backend)}
	endDeploys(backend, "none")
	if got := r.run(t.Context(), "deploy", "--yes"); got.code != 0 { // of which this backend makes no machines
		t.Fatalf("%+v", got)
	}
	got := r.run(t.Context(), "scale", "count", "web=2", "worker=1", "--dry-run")
	if plan := madeUp.ReplaceAllString(got.stdout, "$1-NAME"); got.code != 0 || strings.Count(plan, "  create    web-NAME of the group web in north, with ") != 2 ||
		!strings.Contains(plan, "  create    worker-NAME of the group worker in north\n") {
		t.Errorf("%+v", got)
	}
}

func TestScaleChangesSizes(t *testing.T) {
	t.Chdir(t.TempDir())
	backend := apitest.New()
	r := runner{vars: fleetOf(t, backend)}
	deployedShop(t, backend)
	endDeploys(backend, "none")
	if got := r.run(t.Context(), "scale", "vm", "shared-cpu-2x", "-a", "shop", "-g", "web"); got.code != 0 || !strings.Contains(got.stdout, "is done: 1 of 1 machines") {
		t.Errorf("%+v", got)
	}
	all, _ := backend.Deploys(t.Context(), "shop")
	if i := all[0].Items[0]; i.Name != "mweb" || i.Config.Guest.CPUs != 2 || i.Config.Guest.MemoryMB != 512 || len(i.Config.Mounts) != 1 {
		t.Errorf("%+v", i)
	}
	if got := r.run(t.Context(), "scale", "memory", "1GiB", "-a", "shop", "--detach"); got.code != 0 || !strings.HasPrefix(got.stdout, "dpl_") {
		t.Errorf("%+v", got)
	}
	all, _ = backend.Deploys(t.Context(), "shop")
	if len(all[0].Items) != 2 || all[0].Items[0].Config.Guest.MemoryMB != 1024 || all[0].Options.MaxUnavailable != 1 {
		t.Errorf("%+v", all[0])
	}
	if got := r.run(t.Context(), "scale", "memory", "256", "-a", "shop"); got.code != 0 || !strings.Contains(got.stdout, "have that size already") {
		t.Errorf("%+v", got)
	}
	for args, want := range map[string]string{"vm huge": `size is "huge"; expected one such as shared-cpu-1x`, "memory lots": `"lots" is no amount of memory`, "memory 7": `"7" is 7 MB of memory; expected 96 MB at least`, "vm shared-cpu-1x --vm-memory 64MB": "expected 96 MB at least", "memory 1GiB -g nope": `no process group "nope"`} {
		if got := r.run(t.Context(), append(append([]string{"scale"}, strings.Fields(args)...), "-a", "shop")...); (got.code != 2 && got.code != 3) || !strings.Contains(got.stderr, want) {
			t.Errorf("%s: %+v", args, got)
		}
	}
}
