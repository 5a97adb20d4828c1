package main

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"drover"
	"drover/api/apitest"
	"drover/fleet"
)

const flyFile = `app = "shop"
primary_region = "north"
[build]
  image = "debian:12"
[processes]
  web = "/bin/web"
  worker = "/bin/work"
[[mounts]]
  source = "data"
  destination = "/data"
  processes = ["web"]
`

// inDirectory makes a fly.toml and goes to it.
func inDirectory(t *testing.T, file string) {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile(filepath.Join(dir, appFileName), []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
}

// endDeploys moves each deploy one machine on at each look; fail says which fails.
func endDeploys(backend *apitest.Backend, fail string) {
	backend.Fail = func(method string) error {
		if method != "Deploy" {
			return nil
		}
		all, _ := backend.Deploys(context.Background(), "shop")
		if len(all) == 0 || all[0].Ended() {
			return nil
		}
		backend.ChangeDeploy(all[0].ID, func(d *drover.Deploy) {
			for k := range d.Items {
				i := &d.Items[k]
				switch {
				case d.Problem != nil && i.State == drover.DeployItemWaiting:
					i.State = drover.DeployItemLeft
				case i.State == drover.DeployItemWaiting:
					i.State = drover.DeployItemChanging
					d.Waits = "machine " + i.Called()
					return
				case i.State == drover.DeployItemChanging && i.Group == fail:
					i.State, i.Reason = drover.DeployItemFailed, "its check fails"
					d.Problem = drover.Errorf(drover.Precondition, "machine %s: its check fails", i.Called())
				case i.State == drover.DeployItemChanging:
					i.State = drover.DeployItemDone
					return
				}
			}
			d.Waits, d.State = "", drover.DeployDone
			if d.Problem != nil {
				d.State = drover.DeployFailed
			}
		})
		return nil
	}
}

var madeUp = regexp.MustCompile(`(web|worker)-[a-z0-9]{6}`)

func TestTheFirstDeployMakesEverything(t *testing.T) {
	inDirectory(t, flyFile)
	backend := apitest.New()
	r := runner{vars: fleetOf(t, backend)}
	got := r.run(t.Context(), "deploy", "--dry-run")
	want := `App shop, image debian:12
  create    the app
  create    web-NAME of the group web, with a new volume data of 1 GiB
  create    worker-NAME of the group worker
`
	if plan := madeUp.ReplaceAllString(got.stdout, "$1-NAME"); got.code != 0 || plan != want {
		t.Errorf("code %d, %s, %s", got.code, plan, got.stderr)
	}
	if apps, machines, volumes := backend.Count(); apps+machines+volumes != 0 {
		t.Error("a dry run made something")
	}
	if got := r.run(t.Context(), "deploy"); got.code != 5 || !strings.Contains(got.stderr, "create the app shop") {
		t.Errorf("without a person and --yes: %+v", got)
	}
	endDeploys(backend, "none")
	got = r.run(t.Context(), "deploy", "--yes")
	if got.code != 0 || !strings.HasSuffix(got.stdout, "of app shop is done: 2 of 2 machines\n") || !strings.Contains(got.stderr, "is created and well") {
		t.Errorf("%+v", got)
	}
	all, _ := backend.Deploys(t.Context(), "shop")
	if apps, _, volumes := backend.Count(); apps != 1 || volumes != 1 || len(all) != 1 {
		t.Fatalf("%d apps, %d volumes, %d deploys", apps, volumes, len(all))
	}
	web := all[0].Items[0].Config
	if len(web.Mounts) != 1 || web.Mounts[0].Path != "/data" || web.Init.Cmd[0] != "/bin/web" || all[0].Items[0].Region != "north" || all[0].Items[1].Config.Mounts != nil {
		t.Errorf("%+v", all[0].Items)
	}
	if got := r.run(t.Context(), "deploy", "list"); got.code != 0 || !strings.Contains(got.stdout, "done") || !strings.Contains(got.stdout, "debian:12") {
		t.Errorf("%+v", got)
	}
	if got := r.run(t.Context(), "deploy", "show"); got.code != 0 || !strings.Contains(got.stdout, "worker") {
		t.Errorf("%+v", got)
	}
}

// deployedShop is an app with a machine of the group web that has a volume, one of a group that is gone, and one that no deploy has made.
func deployedShop(t *testing.T, backend *apitest.Backend) (web drover.MachineID) {
	t.Helper()
	ctx := t.Context()
	_, err := backend.CreateApp(ctx, drover.App{Name: "shop", Organization: "acme"})
	v, verr := backend.CreateVolume(ctx, fleet.CreateVolume{App: "shop", Name: "data", Size: drover.GiB})
	if err != nil || verr != nil {
		t.Fatal(err, verr)
	}
	for _, name := range []string{"web", "old", ""} {
		config := drover.MachineConfig{Image: "debian:11"}
		if name != "" {
			config.Metadata = map[string]string{drover.LabelProcessGroup: name}
		}
		if name == "web" {
			config.Mounts = []drover.Mount{{Volume: v.Volume.ID, Path: "/old"}}
		}
		m, err := backend.CreateMachine(ctx, fleet.CreateMachine{App: "shop", Name: "m" + name, Config: config})
		if err != nil {
			t.Fatal(err)
		}
		if name == "web" {
			web = m.Machine.ID
		}
	}
	return web
}

func TestALaterDeployKeepsVolumesAndTellsWhatFailed(t *testing.T) {
	inDirectory(t, flyFile)
	backend := apitest.New()
	r := runner{vars: fleetOf(t, backend)}
	web := deployedShop(t, backend)
	got := r.run(t.Context(), "deploy", "--dry-run", "--image", "debian:13")
	want := `App shop, image debian:13
  update    ` + string(web) + ` (mweb) of the group web
  create    worker-NAME of the group worker
  destroy   d0000000000003 (mold) of the group old
  left      1 machine that no deploy has made
`
	if plan := madeUp.ReplaceAllString(got.stdout, "$1-NAME"); plan != want {
		t.Errorf("code %d, %s, %s", got.code, plan, got.stderr)
	}
	endDeploys(backend, "web")
	got = r.run(t.Context(), "deploy", "--yes", "--strategy", "immediate", "--wait-timeout", "9m")
	if got.code != 5 || !strings.Contains(got.stderr, "its check fails") || !strings.Contains(got.stderr, "Hint: 'drover deploy show dpl_") {
		t.Errorf("%+v", got)
	}
	all, _ := backend.Deploys(t.Context(), "shop")
	config := all[0].Items[0].Config
	if len(config.Mounts) != 1 || config.Mounts[0].Path != "/data" || all[0].Options.Strategy != drover.StrategyImmediate || all[0].Items[0].Name != "mweb" {
		t.Errorf("%+v", all[0])
	}
	// A file whose volumes are others is refused before anything is asked.
	inDirectory(t, strings.Replace(flyFile, `"data"`, `"other"`, 1))
	if got := r.run(t.Context(), "deploy", "--yes"); got.code != 5 || !strings.Contains(got.stderr, `has the volume "data"`) {
		t.Errorf("%+v", got)
	}
}

func TestAFileThatDroverCannotDeploy(t *testing.T) {
	backend := apitest.New()
	r := runner{vars: fleetOf(t, backend)}
	t.Chdir(t.TempDir())
	if got := r.run(t.Context(), "deploy"); got.code != 3 || !strings.Contains(got.stderr, "there is no file fly.toml here") {
		t.Errorf("%+v", got)
	}
	inDirectory(t, flyFile+"[[statics]]\nguest_path = \"/x\"\n")
	if got := r.run(t.Context(), "deploy", "--yes"); got.code != 2 || !strings.Contains(got.stderr, "fly.toml:12: [statics] is not supported") {
		t.Errorf("%+v", got)
	}
	if got := r.run(t.Context(), "deploy", "--dry-run", "--ignore-unsupported"); got.code != 0 || !strings.Contains(got.stderr, "Ignored:\nfly.toml:12") {
		t.Errorf("%+v", got)
	}
}

func TestLeavingADeployLeavesItRunning(t *testing.T) {
	inDirectory(t, flyFile)
	backend := apitest.New()
	r := runner{vars: fleetOf(t, backend)}
	deployedShop(t, backend)
	ctx, cancel := context.WithCancel(t.Context())
	onRead(backend, "Deploy", func(n int) {
		if n == 3 {
			cancel()
		}
	})
	if got := r.run(ctx, "deploy", "--yes"); got.code != 130 || !strings.Contains(got.stderr, "it goes on by itself") {
		t.Errorf("%+v", got)
	}
	if got := r.run(t.Context(), "deploy", "--yes", "--detach"); got.code != 4 {
		t.Errorf("a second one: %+v", got)
	}
	if got := r.run(t.Context(), "deploy", "abort"); got.code != 0 || !strings.Contains(got.stdout, "aborted") {
		t.Errorf("%+v", got)
	}
	endDeploys(backend, "none")
	if got := r.run(t.Context(), "app", "restart", "shop"); got.code != 0 || !strings.Contains(got.stdout, "3 of 3 machines") {
		t.Errorf("%+v", got)
	}
}

// The release command is planned first, what it writes is shown once, and how it ended is told.
func TestADeployShowsItsReleaseCommand(t *testing.T) {
	inDirectory(t, strings.Replace(flyFile, "[processes]", "[deploy]\nrelease_command = \"/bin/migrate --all\"\n[processes]", 1))
	backend := apitest.New()
	r := runner{vars: fleetOf(t, backend)}
	got := r.run(t.Context(), "deploy", "--dry-run")
	if got.code != 0 || !strings.Contains(got.stdout, "  create    the app\n  run       /bin/migrate --all, in a machine of its own, before all else\n  create    web-") {
		t.Errorf("%+v", got)
	}
	if got := r.run(t.Context(), "deploy", "--dry-run", "--skip-release-command"); strings.Contains(got.stdout, "migrate") {
		t.Errorf("%+v", got)
	}
	line := func(text string) drover.LogLine {
		return drover.LogLine{At: backend.Now(), Stream: "stdout", Text: text}
	}
	onRead(backend, "Deploy", func(n int) {
		all, _ := backend.Deploys(context.Background(), "shop")
		var m fleet.MachineView
		if n == 1 {
			var err error
			if m, err = backend.CreateMachine(context.Background(), fleet.CreateMachine{App: "shop", Config: drover.MachineConfig{Image: "debian:12"}}); err != nil {
				t.Error(err)
			}
			backend.Log("table one", "table two")
		}
		backend.ChangeDeploy(all[0].ID, func(d *drover.Deploy) {
			i := &d.Items[0]
			switch n {
			case 1:
				i.Machine, i.State = m.Machine.ID, drover.DeployItemChecking
			case 3:
				code := 4
				i.State, i.LogRead, i.ExitCode = drover.DeployItemFailed, true, &code
				i.Reason = "its command ended with exit code 4"
				i.Log = []drover.LogLine{line("table one"), line("table two"), line("table three is wrong")}
				d.State, d.Problem = drover.DeployFailed, drover.Errorf(drover.Precondition, "machine %s: %s", i.Called(), i.Reason)
				d.Items[1].State, d.Items[2].State = drover.DeployItemLeft, drover.DeployItemLeft
			}
		})
	})
	got = r.run(t.Context(), "deploy", "--yes")
	if got.code != 5 || !strings.Contains(got.stderr, "its command ended with exit code 4") || !strings.Contains(got.stdout, "0 of 2 machines") {
		t.Errorf("%+v", got)
	}
	for _, text := range []string{"| table one\n", "| table two\n", "| table three is wrong\n"} {
		if strings.Count(got.stderr, text) != 1 {
			t.Errorf("%q is not shown once:\n%s", text, got.stderr)
		}
	}
	if got := r.run(t.Context(), "deploy", "show"); got.code != 0 || !strings.Contains(got.stdout, "The last that \"/bin/migrate --all\" wrote:\ntable one\n") {
		t.Errorf("%+v", got)
	}
}
