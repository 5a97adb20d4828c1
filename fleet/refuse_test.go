package fleet

import (
	"context"
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"drover"
	"drover/migrate"
)

func TestABadConfigIsRefusedByField(t *testing.T) {
	config := func(change func(*drover.MachineConfig)) drover.MachineConfig {
		c := drover.MachineConfig{Image: "busybox"}
		change(&c)
		return c
	}
	check := func(c drover.Check) func(*drover.MachineConfig) {
		return func(m *drover.MachineConfig) { m.Checks = map[string]drover.Check{"web": c} }
	}
	mounts := func(m ...drover.Mount) func(*drover.MachineConfig) {
		return func(c *drover.MachineConfig) { c.Mounts = m }
	}
	files := func(f ...drover.File) func(*drover.MachineConfig) {
		return func(c *drover.MachineConfig) { c.Files = f }
	}
	service := func(text string) func(*drover.MachineConfig) {
		return func(c *drover.MachineConfig) { *c = parsed(t, `{"image":"a","services":[`+text+`]}`) }
	}
	tests := []struct {
		name   string
		change func(*drover.MachineConfig)
		field  string
		text   string
	}{
		{"no image", func(c *drover.MachineConfig) { c.Image = " " }, "config.image", "config.image: is empty: name an image such as docker.io/library/busybox:1.36"},
		{"memory", func(c *drover.MachineConfig) { c.Guest.MemoryMB = 4 }, "config.guest.memory_mb", "config.guest.memory_mb: 4 is too small: at least 96"},
		{"much memory", func(c *drover.MachineConfig) { c.Guest.MemoryMB = 1 << 30 }, "config.guest.memory_mb", ""},
		{"negative cpus", func(c *drover.MachineConfig) { c.Guest.CPUs = -1 }, "config.guest.cpus", "config.guest.cpus: -1 is too few: at least 1"},
		{"cpus", func(c *drover.MachineConfig) { c.Guest.CPUs = 65 }, "config.guest.cpus", "config.guest.cpus: 65 is too many: at most 64"},
		{"disk transport", func(c *drover.MachineConfig) { c.Guest.DiskTransport = "scsi" }, "config.guest.disk_transport",
			`config.guest.disk_transport: "scsi" is unknown: use auto, nbd or vhost-user-blk`},
		{"cpu kind", func(c *drover.MachineConfig) { c.Guest.CPUKind = "quantum" }, "config.guest.cpu_kind", ""},
		{"restart policy", func(c *drover.MachineConfig) { c.Restart.Policy = "maybe" }, "config.restart.policy", `config.restart.policy: "maybe" is unknown: use no, on-failure or always`},
		{"retries", func(c *drover.MachineConfig) { c.Restart.MaxRetries = -1 }, "config.restart.max_retries", ""},
		{"stop signal", func(c *drover.MachineConfig) { c.StopConfig.Signal = "SIGNOPE" }, "config.stop_config.signal", ""},
		{"stop timeout", func(c *drover.MachineConfig) { c.StopConfig.Timeout = drover.Duration(time.Hour) }, "config.stop_config.timeout", ""},
		{"env name", func(c *drover.MachineConfig) { c.Env = map[string]string{"1A": ""} }, "config.env", `config.env: "1A" cannot be the name of a variable: letters, digits and underscores, not beginning with a digit`},
		{"env value", func(c *drover.MachineConfig) { c.Env = map[string]string{"A": "\x00"} }, "config.env", ""},
		{"exec", func(c *drover.MachineConfig) { c.Init.Exec = []string{"", "x"} }, "config.init.exec", ""},
		{"mount without volume", mounts(drover.Mount{Path: "/data"}), "config.mounts[0].volume", ""},
		{"mount without path", mounts(drover.Mount{Volume: "vol_1"}), "config.mounts[0].path", "config.mounts[0].path: is empty: use an absolute path such as /data"},
		{"relative path", mounts(drover.Mount{Volume: "vol_1", Path: "data"}), "config.mounts[0].path", `config.mounts[0].path: "data" is not absolute: it begins with /`},
		{"root path", mounts(drover.Mount{Volume: "vol_1", Path: "/.."}), "config.mounts[0].path", ""},
		{"same path", mounts(drover.Mount{Volume: "vol_1", Path: "/data"}, drover.Mount{Volume: "vol_2", Path: "/data/"}), "config.mounts[1].path", ""},
		{"same volume", mounts(drover.Mount{Volume: "vol_1", Path: "/a"}, drover.Mount{Volume: "vol_1", Path: "/b"}), "config.mounts[1].volume", ""},
		{"check type", check(drover.Check{Type: "icmp", Port: 1}), "config.checks.web.type", ""},
		{"check port", check(drover.Check{Type: drover.CheckTCP, Port: 65536}), "config.checks.web.port", "config.checks.web.port: 65536 is not a port: 1 to 65535"},
		{"spot price", func(c *drover.MachineConfig) { c.Restart.Policy = "spot-price" }, "config.restart.policy",
			"config.restart.policy: nothing is bid for here, so there are no spot prices: use no, on-failure or always"},
		{"gpus", func(c *drover.MachineConfig) { c.Guest.GPUs = 1 }, "config.guest.gpus", ""},
		{"swap", func(c *drover.MachineConfig) { c.Init.SwapSizeMB = -1 }, "config.init.swap_size_mb", ""},
		{"kernel word", func(c *drover.MachineConfig) { c.Init.KernelArgs = []string{"a b"} }, "config.init.kernel_args[0]", ""},
		{"kernel's own word", func(c *drover.MachineConfig) { c.Guest.KernelArgs = []string{"x=1", "rdinit=/bin/sh"} }, "config.guest.kernel_args[1]", ""},
		{"schedule", func(c *drover.MachineConfig) { c.Schedule = "often" }, "config.schedule", `config.schedule: "often" is unknown: use hourly, daily, weekly or monthly`},
		{"standbys", func(c *drover.MachineConfig) { c.Standbys = []drover.MachineID{"No!"} }, "config.standbys[0]", ""},
		{"standby by its name", func(c *drover.MachineConfig) { c.Standbys = []drover.MachineID{"0123456789abcd", "web"} }, "config.standbys[1]",
			`config.standbys[1]: "web" is not the ID of a machine such as 0123456789abcd`},
		{"standby with schedule", func(c *drover.MachineConfig) {
			c.Standbys, c.Schedule = []drover.MachineID{"0123456789abcd"}, drover.Daily
		}, "config.standbys", ""},
		{"file path", files(drover.File{GuestPath: "x", RawValue: "YQ=="}), "config.files[0].guest_path", ""},
		{"file in /proc", files(drover.File{GuestPath: "/proc/x", RawValue: "YQ=="}), "config.files[0].guest_path", ""},
		{"same file", files(drover.File{GuestPath: "/x", RawValue: "YQ=="}, drover.File{GuestPath: "/./x", RawValue: "YQ=="}), "config.files[1].guest_path", ""},
		{"file without content", files(drover.File{GuestPath: "/x"}), "config.files[0].raw_value", ""},
		{"file with two contents", files(drover.File{GuestPath: "/x", RawValue: "YQ==", SecretName: "A"}), "config.files[0].secret_name", ""},
		{"file not in base64", files(drover.File{GuestPath: "/x", RawValue: "%"}), "config.files[0].raw_value", ""},
		{"file mode", files(drover.File{GuestPath: "/x", RawValue: "YQ==", Mode: 0o10000}), "config.files[0].mode", ""},
		{"process", func(c *drover.MachineConfig) { c.Processes = []drover.MachineProcess{{}, {Exec: []string{""}}} }, "config.processes[1].exec", ""},
		{"process variable", func(c *drover.MachineConfig) {
			c.Processes = []drover.MachineProcess{{Env: map[string]string{"=": ""}}}
		}, "config.processes[0].env", ""},
		{"process field", func(c *drover.MachineConfig) {
			c.Processes = []drover.MachineProcess{{EnvFrom: []drover.EnvFrom{{EnvVar: "A", FieldRef: "mood"}}}}
		}, "config.processes[0].env_from[0].field_ref", ""},
		{"terminal for several", func(c *drover.MachineConfig) { c.Processes, c.Init.TTY = []drover.MachineProcess{{}}, true }, "config.init.tty", ""},
		{"containers", func(c *drover.MachineConfig) { *c = parsed(t, `{"image":"a","containers":[{"name":"x"}]}`) }, "config.containers", ""},
		{"service protocol", service(`{"protocol":"sctp"}`), "config.services[0].protocol", ""},
		{"service port", service(`{"internal_port":70000}`), "config.services[0].internal_port", ""},
		{"service range", service(`{"ports":[{"port":1},{"start_port":9,"end_port":3}]}`), "config.services[0].ports[1].end_port", ""},
		{"service limits", service(`{"concurrency":{"type":"requests","soft_limit":9,"hard_limit":3}}`), "config.services[0].concurrency.soft_limit", ""},
		{"service check", service(`{"checks":[{"type":"tcp"}]}`), "config.services[0].checks[0].port", ""},
		{"check protocol", check(drover.Check{Type: drover.CheckHTTP, Port: 1, Protocol: "gopher"}), "config.checks.web.protocol", ""},
		{"check kind", check(drover.Check{Type: drover.CheckHTTP, Port: 1, Kind: "x"}), "config.checks.web.kind", ""},
		{"check header", check(drover.Check{Type: drover.CheckHTTP, Port: 1, Headers: []drover.HTTPHeader{{Name: "a b"}}}), "config.checks.web.headers[0].name", ""},
		{"check header's value", check(drover.Check{Type: drover.CheckHTTP, Port: 1, Headers: []drover.HTTPHeader{{Name: "a", Values: []string{"x\r\nY: z"}}}}),
			"config.checks.web.headers[0].values", ""},
		{"check path", check(drover.Check{Type: drover.CheckHTTP, Port: 1, Path: "x"}), "config.checks.web.path", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantError(t, checkConfig(config(tt.change).WithDefaults(), 100), drover.Invalid, tt.field, tt.text)
		})
	}
	if err := checkConfig(config(func(*drover.MachineConfig) {}).WithDefaults(), 100); err != nil {
		t.Fatal(err)
	}
	err := checkConfig(config(func(c *drover.MachineConfig) { c.Image, c.Guest.MemoryMB = "", 1 }).WithDefaults(), 100)
	if !strings.HasPrefix(err.Error(), "2 things are wrong: config.image: ") || !strings.Contains(err.Error(), "; config.guest.memory_mb: 1 is") {
		t.Fatalf("not all mistakes are told: %v", err)
	}
}

// parsed reads a config as it is written.
func parsed(t *testing.T, text string) (c drover.MachineConfig) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWhatCannotBeMadeIsRefusedAndLeavesNothing(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	if _, err := n.CreateApp(ctx, drover.App{Name: "other"}); err != nil {
		t.Fatal(err)
	}
	vol, far := w.volume(n, "h1"), w.volume(n, "h3")
	foreign, err := n.CreateVolume(ctx, CreateVolume{App: "other", Name: "data", Size: drover.GiB})
	if err != nil {
		t.Fatal(err)
	}
	holder := w.machine(n, CreateMachine{Name: "holder", Config: drover.MachineConfig{Image: "busybox", Mounts: []drover.Mount{{Volume: vol.Volume.ID, Path: "/data"}}}})
	mount := func(ids ...drover.VolumeID) drover.MachineConfig {
		c := drover.MachineConfig{Image: "busybox"}
		for _, id := range ids {
			c.Mounts = append(c.Mounts, drover.Mount{Volume: id, Path: "/" + string(id)})
		}
		return c
	}
	plain := mount()
	tests := []struct {
		name  string
		req   CreateMachine
		code  drover.Code
		field string
		text  string
	}{
		{"unknown app", CreateMachine{App: "nope", Config: plain}, drover.NotFound, "", `app "nope" does not exist`},
		{"name taken", CreateMachine{App: "shop", Name: "holder", Config: plain}, drover.Exists, "name", ""},
		{"bad name", CreateMachine{App: "shop", Name: "Bad_Name", Config: plain}, drover.Invalid, "name", ""},
		{"bad config", CreateMachine{App: "shop", Config: drover.MachineConfig{}}, drover.Invalid, "config.image", ""},
		{"unknown region", CreateMachine{App: "shop", Region: "mars", Config: plain}, drover.Invalid, "region", `region "mars" is unknown: the fleet has ams, fra`},
		{"unknown host", CreateMachine{App: "shop", Host: "h9", Config: plain}, drover.NotFound, "host", `host "h9" is unknown: the fleet has h1, h2, h3`},
		{"host not of the region", CreateMachine{App: "shop", Host: "h3", Region: "ams", Config: plain}, drover.Invalid, "region", ""},
		{"unknown image", CreateMachine{App: "shop", Config: drover.MachineConfig{Image: "missing"}}, drover.NotFound, "config.image", ""},
		{"unknown volume", CreateMachine{App: "shop", Config: mount("vol_0000000000000000")}, drover.NotFound, "config.mounts[0].volume", ""},
		{"volume of another app", CreateMachine{App: "shop", Config: mount(foreign.Volume.ID)}, drover.NotFound, "config.mounts[0].volume", ""},
		{"attached volume", CreateMachine{App: "shop", Config: mount(vol.Volume.ID)}, drover.Conflict, "config.mounts[0].volume",
			`config.mounts[0].volume: volume "` + string(vol.Volume.ID) + `" is attached to machine "` + string(holder.Machine.ID) + `"`},
		{"volume on another host", CreateMachine{App: "shop", Host: "h1", Config: mount(far.Volume.ID)}, drover.Invalid, "config.mounts[0].volume", ""},
		{"volume in another region", CreateMachine{App: "shop", Region: "ams", Config: mount(far.Volume.ID)}, drover.Invalid, "region", ""},
		{"too much memory", CreateMachine{App: "shop", Region: "fra", Name: "big", Config: drover.MachineConfig{Image: "busybox", Guest: drover.Guest{MemoryMB: 9000}}}, drover.Exhausted, "",
			`no host for machine "big" in region "fra" has room: h3: 8192 MiB of memory free, 9000 MiB needed`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := n.CreateMachine(ctx, tt.req)
			wantError(t, err, tt.code, tt.field, tt.text)
		})
	}
	t.Run("refused by its host", func(t *testing.T) {
		// It refuses for as long as the call takes: the reconciler may be faster than the caller with the same order.
		var called atomic.Bool
		w.hosts["h2"].set(func() {
			w.hosts["h2"].fail = func(o drover.Order) (error, bool) {
				if o == drover.OrderApply && !called.Load() {
					return drover.Errorf(drover.Exhausted, "no room after all"), false
				}
				return nil, false
			}
		})
		_, err := n.CreateMachine(ctx, CreateMachine{App: "shop", Name: "late", Host: "h2", Config: plain})
		called.Store(true)
		wantError(t, err, drover.Exhausted, "", "")
	})
	w.checkOnly(n, holder.Machine.ID)
}

// checkOnly makes sure that the app has this machine only, and nothing is left of any other.
func (w *world) checkOnly(n *node, id drover.MachineID) {
	w.t.Helper()
	w.eventually("what was refused is cleared away", func() bool {
		list, err := n.Machines(w.t.Context(), "shop")
		if err != nil || len(list) != 1 || list[0].Machine.ID != id {
			return false
		}
		n.state.mu.RLock()
		defer n.state.mu.RUnlock()
		return len(n.state.placements.items) == 1 && len(n.state.claims.items) == 1
	})
}

func TestVolumesThatCannotBeMade(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	tests := []struct {
		name  string
		req   CreateVolume
		code  drover.Code
		field string
	}{
		{"unknown app", CreateVolume{App: "nope", Name: "data", Size: drover.GiB}, drover.NotFound, ""},
		{"bad name", CreateVolume{App: "shop", Name: "Data!", Size: drover.GiB}, drover.Invalid, "name"},
		{"too small", CreateVolume{App: "shop", Name: "data", Size: drover.MiB}, drover.Invalid, "size_gb"},
		{"too large", CreateVolume{App: "shop", Name: "data", Size: 1 << 60}, drover.Invalid, "size_gb"},
		{"no room", CreateVolume{App: "shop", Name: "data", Size: 500 * drover.GiB}, drover.Exhausted, ""},
		{"unknown region", CreateVolume{App: "shop", Name: "data", Size: drover.GiB, Region: "mars"}, drover.Invalid, "region"},
		{"unknown host", CreateVolume{App: "shop", Name: "data", Size: drover.GiB, Host: "h9"}, drover.NotFound, "host"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := n.CreateVolume(t.Context(), tt.req)
			wantError(t, err, tt.code, tt.field, "")
		})
	}
	w.hosts["h3"].failing(drover.Exhausted, false, drover.OrderVolumeCreate)
	_, err := n.CreateVolume(t.Context(), CreateVolume{App: "shop", Name: "data", Size: drover.GiB, Host: "h3"})
	wantError(t, err, drover.Exhausted, "", "")
	if list, err := n.Volumes(t.Context(), "shop"); err != nil || len(list) != 0 {
		t.Fatalf("left: %+v, %v", list, err)
	}
	_, err = n.DestroyVolume(t.Context(), "shop", "vol_0000000000000000")
	wantError(t, err, drover.NotFound, "", "")
}

func TestMovesThatCannotBeMade(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	id := w.machine(n, CreateMachine{Host: "h1", Config: drover.MachineConfig{Image: "busybox", Guest: drover.Guest{MemoryMB: 4096}}}).Machine.ID
	w.machine(n, CreateMachine{Host: "h2", Config: drover.MachineConfig{Image: "busybox", Guest: drover.Guest{MemoryMB: 6000}}})
	w.hosts["h3"].halt()
	w.eventually("h3 is unreachable", func() bool { return !n.reachable("h3") })
	tests := []struct {
		name  string
		req   Move
		code  drover.Code
		field string
		text  string
	}{
		{"unknown machine", Move{Machine: "00000000000000"}, drover.NotFound, "", ""},
		{"of another app", Move{App: "other", Machine: id}, drover.NotFound, "", ""},
		{"to the source", Move{Machine: id, Target: "h1"}, drover.Invalid, "target", `target: machine "` + string(id) + `" is on host "h1" already`},
		{"to nowhere", Move{Machine: id, Target: "h9"}, drover.NotFound, "target", `host "h9" is unknown: the fleet has h1, h2, h3`},
		{"to a dead host", Move{Machine: id, Target: "h3"}, drover.Unavailable, "target", ""},
		{"to a full host", Move{Machine: id, Target: "h2"}, drover.Exhausted, "target", `no host for machine "` + string(id) + `" has room: h2: 2192 MiB of memory free, 4096 MiB needed`},
		{"to wherever there is room", Move{Machine: id}, drover.Exhausted, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := n.MoveMachine(ctx, tt.req)
			wantError(t, err, tt.code, tt.field, tt.text)
		})
	}
	_, err := n.Migration(ctx, "mig_0000000000000000")
	wantError(t, err, drover.NotFound, "", "")
	_, err = n.AbortMigration(ctx, "mig_0000000000000000")
	wantError(t, err, drover.NotFound, "", "")
	if list, err := n.Migrations(ctx); err != nil || len(list) != 0 {
		t.Fatalf("%v, %v", list, err)
	}
}

func TestAMachineThatIsBeingMovedIsLeftAlone(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	n.kill()
	w.tune = func(_ *Timing, r *migrate.Rules) { r.Silence = time.Minute } // the test needs time to look around
	n = w.control("c1", nil)
	ctx := t.Context()
	v := w.machine(n, CreateMachine{Host: "h1"})
	id := v.Machine.ID
	w.hosts["h2"].failing(drover.Unavailable, false, drover.OrderMoveClone)
	w.hosts["h2"].set(func() { w.hosts["h2"].polls = 1 << 30 })
	m, err := n.MoveMachine(ctx, Move{Machine: id, Target: "h2"})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := n.Machine(ctx, "shop", id); err != nil || v.Migration == nil || v.Migration.ID != m.ID {
		t.Fatalf("%+v, %v", v, err)
	}
	_, err = n.MoveMachine(ctx, Move{Machine: id, Target: "h3"})
	wantError(t, err, drover.Conflict, "", "")
	if !strings.Contains(err.Error(), string(m.ID)) {
		t.Fatalf("the migration is not named: %v", err)
	}
	_, err = n.StopMachine(ctx, "shop", id, drover.StopConfig{})
	wantError(t, err, drover.Conflict, "", "")
	_, err = n.UpdateMachine(ctx, UpdateMachine{App: "shop", Machine: id, Config: v.Machine.Config})
	wantError(t, err, drover.Conflict, "", "")
	wantError(t, n.DestroyMachine(ctx, "shop", id, true), drover.Conflict, "", "")

	w.hosts["h2"].failing("", false)
	w.eventually("it hydrates", func() bool {
		m, err = n.Migration(ctx, m.ID)
		return err == nil && m.Phase == drover.PhaseHydrate && m.Hydration != nil
	})
	// While it hydrates, it can be stopped and started, but neither moved nor destroyed.
	if _, err = n.StopMachine(ctx, "shop", id, drover.StopConfig{}); err != nil {
		t.Fatal(err)
	}
	_, err = n.MoveMachine(ctx, Move{Machine: id, Target: "h3"})
	wantError(t, err, drover.Conflict, "", "")
	wantError(t, n.DestroyMachine(ctx, "shop", id, true), drover.Conflict, "", "")
	w.hosts["h2"].set(func() { w.hosts["h2"].moves[m.ID].left = 1 })
	if m = w.ended(n, m.ID); m.Outcome != drover.Succeeded {
		t.Fatalf("%s: %v", m.Outcome, m.Problem)
	}
	w.checkOwner(n, id, "h2", false)
}

func TestAStoppedMachineMovesAndStaysStopped(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machine(n, CreateMachine{Host: "h1", SkipLaunch: true}).Machine.ID
	m, err := n.MoveMachine(t.Context(), Move{Machine: id, Target: "h3"})
	if err != nil {
		t.Fatal(err)
	}
	m = w.ended(n, m.ID)
	if m.Outcome != drover.Succeeded || m.WasRunning || !m.RunningAt.IsZero() || !m.StoppedAt.IsZero() {
		t.Fatalf("%+v", m)
	}
	w.checkOwner(n, id, "h3", false)
}

func TestRequestsOfOthersAndOfNobody(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	id := w.machine(n, CreateMachine{}).Machine.ID
	_, err := n.Machine(ctx, "other", id)
	wantError(t, err, drover.NotFound, "", "")
	_, err = n.StartMachine(ctx, "other", id)
	wantError(t, err, drover.NotFound, "", "")
	_, err = n.UpdateMachine(ctx, UpdateMachine{App: "shop", Machine: id, CurrentVersion: "old", Config: drover.MachineConfig{Image: "busybox"}})
	wantError(t, err, drover.Conflict, "current_version", "")
	_, err = n.StopMachine(ctx, "shop", id, drover.StopConfig{Signal: "SIGNOPE"})
	wantError(t, err, drover.Invalid, "stop.signal", "")
	_, err = n.ExecMachine(ctx, "shop", drover.ExecRequest{Machine: id})
	wantError(t, err, drover.Invalid, "command", "")
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	_, err = n.WaitMachine(short, "shop", id, drover.StateStopped, "")
	wantError(t, err, drover.Unavailable, "", "")

	_, err = n.CreateApp(ctx, drover.App{Name: "shop"})
	wantError(t, err, drover.Exists, "app_name", "")
	_, err = n.CreateApp(ctx, drover.App{Name: "Shop"})
	wantError(t, err, drover.Invalid, "app_name", "")
	_, _, err = n.DestroyApp(ctx, DestroyApp{App: "nope"})
	wantError(t, err, drover.NotFound, "", "")

	const token = "a-token-of-ann-1"
	if err := n.PutToken(ctx, token, Principal{Name: "ann", Organization: "acme"}); err != nil {
		t.Fatal(err)
	}
	if p, err := n.Authenticate(ctx, token); err != nil || p.Name != "ann" || p.Organization != "acme" || p.Operator {
		t.Fatalf("%+v, %v", p, err)
	}
	_, err = n.Authenticate(ctx, "wrong")
	wantError(t, err, drover.Denied, "", "")
	wantError(t, n.PutToken(ctx, "short", Principal{Name: "x", Operator: true}), drover.Invalid, "", "")
}

func TestASlowHostIsWaitedForWhenNoOtherCanTakeIt(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	n.kill()
	w.tune = func(timing *Timing, _ *migrate.Rules) { timing.Offer = 50 * time.Millisecond }
	n = w.control("c1", nil)
	for _, h := range w.hosts {
		var asked atomic.Int32
		again := make(chan struct{})
		h.set(func() {
			h.fail = func(o drover.Order) (error, bool) {
				if o != drover.OrderOffer {
					return nil, false
				}
				if asked.Add(1) == 1 {
					<-again // it answers the first request when the second comes
				} else {
					close(again)
				}
				return nil, false
			}
		})
	}
	w.machine(n, CreateMachine{})
}
