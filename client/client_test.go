package client_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"drover"
	"drover/api"
	"drover/api/apitest"
	"drover/apiv1"
	"drover/client"
	"drover/fleet"
)

// serve runs the API over a backend that has the app ledger with one machine, and returns a client of it.
func serve(t *testing.T) (*apitest.Backend, *client.Client, drover.MachineID) {
	t.Helper()
	backend := apitest.New()
	handler, err := api.New(api.Config{Backend: backend})
	if err != nil {
		t.Fatal(err)
	}
	c := connect(t, handler, client.Config{Token: apitest.OperatorToken})
	if _, err := c.CreateApp(t.Context(), apiv1.CreateAppRequest{Name: "ledger"}); err != nil {
		t.Fatal(err)
	}
	m, err := c.CreateMachine(t.Context(), "ledger", apiv1.CreateMachineRequest{Name: "one", Config: drover.MachineConfig{Image: "debian"}})
	if err != nil {
		t.Fatal(err)
	}
	return backend, c, m.ID
}

func connect(t *testing.T, handler http.Handler, config client.Config) *client.Client {
	t.Helper()
	server := httptest.NewServer(handler)
	config.BaseURL, config.Interval = server.URL, time.Millisecond
	c, err := client.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		server.Close()
	})
	return c
}

// TestEveryCall makes every call once and looks at what came back.
func TestEveryCall(t *testing.T) {
	backend, c, id := serve(t)
	ctx := t.Context()
	check := func(name string, ok bool, err error) {
		t.Helper()
		if err != nil || !ok {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
	}
	health, err := c.Health(ctx)
	check("Health", health.Status == "ok", err)
	apps, err := c.Apps(ctx, "")
	check("Apps", len(apps) == 1 && apps[0].MachineCount == 1, err)
	app, err := c.App(ctx, "ledger")
	check("App", app.Status == "deployed", err)
	volume, err := c.CreateVolume(ctx, "ledger", apiv1.CreateVolumeRequest{Name: "data", Size: 8 * drover.MiB})
	check("CreateVolume", volume.Size == 8*drover.MiB && volume.SizeGB == 1, err)
	volumes, err := c.Volumes(ctx, "ledger")
	check("Volumes", len(volumes) == 1, err)
	again, err := c.Volume(ctx, "ledger", volume.ID)
	check("Volume", again.ID == volume.ID, err)
	found, err := c.FindVolume(ctx, "", "data")
	check("FindVolume", found.ID == volume.ID, err)
	gone, err := c.DestroyVolume(ctx, "ledger", volume.ID)
	check("DestroyVolume", gone.State == drover.VolumeDestroyed, err)
	everyCallOfVolumes(t, backend, c, volume.ID, check)

	machines, err := c.Machines(ctx, "ledger")
	check("Machines", len(machines) == 1, err)
	m, err := c.Machine(ctx, "ledger", id)
	check("Machine", m.Config.Image == "debian", err)
	m, err = c.UpdateMachine(ctx, "ledger", id, apiv1.UpdateMachineRequest{Config: drover.MachineConfig{Image: "alpine"}, CurrentVersion: string(m.InstanceID)})
	check("UpdateMachine", m.Config.Image == "alpine", err)
	check("StopMachine", true, c.StopMachine(ctx, "ledger", id, apiv1.StopRequest{Signal: "term", Timeout: drover.Duration(time.Second)}))
	started, err := c.StartMachine(ctx, "ledger", id)
	check("StartMachine", started.PreviousState == drover.StateStopped, err)
	check("SuspendMachine", true, c.SuspendMachine(ctx, "ledger", id))
	started, err = c.StartMachine(ctx, "ledger", id)
	check("StartMachine", started.PreviousState == drover.StateSuspended, err)
	check("RestartMachine", true, c.RestartMachine(ctx, "ledger", id, client.RestartOptions{}))
	m, err = c.WaitMachine(ctx, "ledger", id, drover.StateStarted, m.InstanceID)
	check("WaitMachine", m.State == drover.StateStarted, err)
	result, err := c.Exec(ctx, "ledger", id, apiv1.ExecRequest{Command: []string{"echo", "a b"}})
	check("Exec", result.Stdout == "echo a b\n", err)
	check("Signal", true, c.Signal(ctx, "ledger", id, "HUP"))
	events, err := c.Events(ctx, "ledger", id)
	check("Events", len(events) == 7 && events[0].Type == "restart", err)
	backend.Log("one", "two")
	logs, err := c.Logs(ctx, "ledger", id, client.LogsQuery{Offset: 1})
	check("Logs", len(logs.Lines) == 1 && logs.Lines[0].Text == "two" && logs.Next == 2, err)

	hosts, err := c.Hosts(ctx)
	check("Hosts", len(hosts) == 2, err)
	host, err := c.Host(ctx, "h1")
	check("Host", host.Accel == drover.AccelTCG, err)
	_, err = c.HostLayers(ctx, "h1")
	check("HostLayers", true, err)
	on, err := c.HostMachines(ctx, "h1")
	check("HostMachines", len(on) == 1, err)
	move, err := c.Move(ctx, apiv1.MoveRequest{Machine: string(id), Target: "h2"})
	check("Move", move.Target == "h2" && move.Actor == "operator", err)
	migrations, err := c.Migrations(ctx, id)
	check("Migrations", len(migrations) == 1, err)
	phases, err := c.Phases(ctx, client.PhasesQuery{Since: time.Hour, App: "ledger", Host: "h2"})
	check("Phases", phases.Migrations == 1 && phases.Slowest == drover.PhaseReserve, err)
	migration, err := c.Migration(ctx, move.ID)
	check("Migration", migration.ID == move.ID, err)
	aborted, err := c.AbortMigration(ctx, move.ID)
	check("AbortMigration", aborted.Outcome == drover.Aborted, err)
	could, err := c.CheckMove(ctx, apiv1.MoveRequest{Machine: string(id), Target: "h2"})
	check("CheckMove", could.Possible && could.Target == "h2", err)
	undo, err := c.UndoMigration(ctx, move.ID, true)
	check("UndoMigration", undo.Undoes == move.ID && undo.Migration != nil && undo.Migration.Undoes == move.ID, err)
	lost, err := c.WriteOff(ctx, move.ID, true, "it has burnt")
	check("WriteOff", lost.Migration == move.ID && lost.WriteOff != nil && lost.WriteOff.Reason == "it has burnt", err)
	check("DestroyMachine", true, c.DestroyMachine(ctx, "ledger", id, true))
	_, err = c.CreateApp(ctx, apiv1.CreateAppRequest{AppName: "empty"})
	check("CreateApp", true, err)
	end, err := c.DestroyApp(ctx, "empty", false)
	check("DestroyApp", end.Gone, err)
	end, err = c.DestroyApp(ctx, "ledger", false)
	check("DestroyApp with a volume", !end.Gone && end.WipeAt.After(end.DestroyedAt), err)
	kept, err := c.DestroyedApps(ctx, "")
	check("DestroyedApps", len(kept) == 1 && kept[0].Name == "ledger" && kept[0].Status == "destroyed", err)
	app, err = c.UndeleteApp(ctx, "ledger")
	check("UndeleteApp", app.Name == "ledger" && app.DestroyedAt.IsZero(), err)
	end, err = c.DestroyApp(ctx, "ledger", true)
	check("DestroyApp now", end.Gone, err)
}

func TestErrorsKeepCodeHintAndField(t *testing.T) {
	backend, c, id := serve(t)
	for _, code := range drover.Codes {
		backend.Fail = func(method string) error {
			if method == "StopMachine" {
				return drover.Errorf(code, "it is so").WithHint("do this").WithField("timeout")
			}
			return nil
		}
		var e *drover.Error
		err := c.StopMachine(t.Context(), "ledger", id, apiv1.StopRequest{})
		if !errors.As(err, &e) || e.Code != code {
			t.Errorf("%s: %v", code, err)
			continue
		}
		whole := e.Text == "it is so" && e.Hint == "do this" && e.Field == "timeout"
		if hidden := code == drover.Internal || code == drover.NotFound; !whole && !hidden {
			t.Errorf("%s: %+v", code, e)
		}
	}
}

// everyCallOfVolumes goes on with a volume that was destroyed.
func everyCallOfVolumes(t *testing.T, backend *apitest.Backend, c *client.Client, id drover.VolumeID, check func(string, bool, error)) {
	t.Helper()
	ctx := t.Context()
	destroyed, err := c.DestroyedVolumes(ctx, "ledger")
	check("DestroyedVolumes", len(destroyed) == 1, err)
	found, err := c.FindDestroyedVolume(ctx, "", "data")
	check("FindDestroyedVolume", found.ID == id, err)
	back, err := c.UndeleteVolume(ctx, "ledger", id)
	check("UndeleteVolume", back.State == drover.VolumeCreated, err)
	days, iops := 9, 500
	updated, err := c.UpdateVolume(ctx, "ledger", id, apiv1.UpdateVolumeRequest{SnapshotRetention: &days, Limits: &apiv1.LimitsRequest{IOPS: &iops}})
	check("UpdateVolume", updated.SnapshotRetention == 9 && updated.Limits.IOPS == 500, err)
	extended, err := c.ExtendVolume(ctx, "ledger", id, 16*drover.MiB)
	check("ExtendVolume", extended.Volume.Size == 16*drover.MiB && !extended.NeedsRestart, err)
	v, err := c.VerifyVolume(ctx, "ledger", id, "")
	check("VerifyVolume", v.Done && v.Against == "checksums", err)
	v, err = c.Verification(ctx, "ledger", id)
	check("Verification", v.Done, err)
	snapshot, err := c.CreateSnapshot(ctx, "ledger", id, apiv1.CreateSnapshotRequest{Quiesce: true})
	check("CreateSnapshot", snapshot.Quiesced, err)
	list, err := c.Snapshots(ctx, "ledger", id)
	check("Snapshots", len(list) == 1, err)
	list, err = c.Snapshots(ctx, "ledger", "")
	check("Snapshots of the app", len(list) == 1, err)
	s, err := c.FindSnapshot(ctx, "", string(snapshot.ID))
	check("FindSnapshot", s.VolumeID == id, err)
	_, err = c.FindSnapshot(ctx, "", "vs_00000000000000ff")
	check("FindSnapshot of none", drover.Is(err, drover.NotFound), nil)
	s, err = c.Snapshot(ctx, "ledger", id, snapshot.ID)
	check("Snapshot", s.ID == snapshot.ID, err)
	s, err = c.DeleteSnapshot(ctx, "ledger", id, snapshot.ID)
	check("DeleteSnapshot", s.Status == drover.SnapshotDestroying, err)
	backend.ChangeVolume(id, func(v *fleet.VolumeView) { v.Hydration = &drover.Hydration{Total: 5} })
	yes := true
	paused, err := c.SetHydration(ctx, "ledger", id, apiv1.HydrationRequest{Paused: &yes})
	check("SetHydration", paused.Hydration != nil && paused.Hydration.Paused, err)
	limit := drover.MiB
	settings, err := c.SetStorage(ctx, "h1", apiv1.StorageRequest{HydrationLimit: &limit})
	check("SetStorage", settings.HydrationLimit == drover.MiB, err)
}

func TestAnswersThatAreNotTheAPIs(t *testing.T) {
	for status, code := range map[int]drover.Code{200: drover.Internal, 302: drover.Internal, 401: drover.Denied, 403: drover.Denied, 404: drover.NotFound,
		409: drover.Conflict, 412: drover.Precondition, 418: drover.Invalid, 429: drover.Exhausted, 500: drover.Internal, 502: drover.Unavailable, 503: drover.Unavailable} {
		c := connect(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			w.Write([]byte("<html>proxy</html>"))
		}), client.Config{})
		if _, err := c.Hosts(t.Context()); !drover.Is(err, code) {
			t.Errorf("%d: %v (%s)", status, err, drover.CodeOf(err))
		}
	}
}

func TestBadURLs(t *testing.T) {
	for _, url := range []string{"", "127.0.0.1:4280", "ftp://x", "http://", "http://a b", "%"} {
		if _, err := client.New(client.Config{BaseURL: url}); !drover.Is(err, drover.Invalid) {
			t.Errorf("%q: %v", url, err)
		}
	}
}

func TestNamesCannotLeaveTheirPath(t *testing.T) {
	var paths []string
	c := connect(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.Method+" "+r.URL.EscapedPath())
		w.WriteHeader(404)
	}), client.Config{})
	for _, name := range []drover.AppName{"", ".", "..", "a/b", "a?b", "%2e%2e"} {
		if _, err := c.DestroyApp(t.Context(), name, false); !drover.Is(err, drover.NotFound) {
			t.Errorf("%q: %v", name, err)
		}
	}
	want := "DELETE /v1/apps/-|DELETE /v1/apps/-|DELETE /v1/apps/-|DELETE /v1/apps/a%2Fb|DELETE /v1/apps/a%3Fb|DELETE /v1/apps/%252e%252e"
	if got := strings.Join(paths, "|"); got != want {
		t.Error(got)
	}
}

func TestUnreachableAndCanceled(t *testing.T) {
	c, err := client.New(client.Config{BaseURL: "http://127.0.0.1:1", Patience: time.Nanosecond, Interval: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Hosts(t.Context()); !drover.Is(err, drover.Unavailable) {
		t.Errorf("%v", err)
	}
	if _, err := c.FollowMigration(t.Context(), "mig_0000000000000001", func(apiv1.Migration) error { return nil }); !drover.Is(err, drover.Unavailable) {
		t.Errorf("following without patience: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Hosts(ctx); !drover.Is(err, drover.Canceled) {
		t.Errorf("%v", err)
	}
}

// flaky lets every second request through.
func flaky(handler http.Handler) http.Handler {
	var n atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1)%2 == 1 {
			panic(http.ErrAbortHandler) // ends the connection without an answer
		}
		handler.ServeHTTP(w, r)
	})
}

func TestFollowingOutlivesAServerThatComesAndGoes(t *testing.T) {
	backend, _, id := serve(t)
	handler, err := api.New(api.Config{Backend: backend})
	if err != nil {
		t.Fatal(err)
	}
	c := connect(t, flaky(handler), client.Config{Token: apitest.OperatorToken})
	looks := 0
	backend.ChangeMigration("mig_00000000000000aa", func(m *drover.Migration) { m.Outcome = drover.Running })
	last, err := c.FollowMigration(t.Context(), "mig_00000000000000aa", func(apiv1.Migration) error {
		if looks++; looks == 3 {
			backend.ChangeMigration("mig_00000000000000aa", func(m *drover.Migration) { m.Outcome = drover.Succeeded })
		}
		return nil
	})
	if err != nil || last.Outcome != drover.Succeeded || looks != 4 {
		t.Errorf("%v, %+v after %d looks", err, last.Outcome, looks)
	}

	stop := errors.New("enough")
	var lines []string
	backend.Log("a", "b")
	err = c.FollowLogs(t.Context(), "ledger", id, client.LogsQuery{}, func(line drover.LogLine) error {
		lines = append(lines, line.Text)
		switch line.Text {
		case "b":
			backend.Log("c", "d")
		case "c":
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || strings.Join(lines, "") != "abc" {
		t.Errorf("%v, %q", err, lines)
	}
}

func TestAFunctionThatFailsEndsTheFollowing(t *testing.T) {
	backend, c, _ := serve(t)
	stop := errors.New("enough")
	backend.ChangeMigration("mig_00000000000000aa", func(m *drover.Migration) { m.Outcome = drover.Running })
	if _, err := c.FollowMigration(t.Context(), "mig_00000000000000aa", func(apiv1.Migration) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
	if _, err := c.FollowMigration(t.Context(), "mig_00000000000000ab", func(apiv1.Migration) error { return nil }); !drover.Is(err, drover.NotFound) {
		t.Errorf("%v", err)
	}
}

// TestWaitMachineGoesOnAfterTheServersTimeout: the deadline of the context makes the server's wait 1 s long, and there is a second one.
func TestWaitMachineGoesOnAfterTheServersTimeout(t *testing.T) {
	var waits atomic.Int64
	backend, _, id := serve(t)
	handler, err := api.New(api.Config{Backend: backend})
	if err != nil {
		t.Fatal(err)
	}
	c := connect(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/wait") {
			if waits.Add(1) == 1 {
				w.WriteHeader(http.StatusRequestTimeout)
				w.Write([]byte(`{"error":"timeout: not yet","code":"unavailable"}`))
				return
			}
			backend.ChangeMachine(id, func(v *fleet.MachineView) { v.Status.State = drover.StateStopped })
		}
		handler.ServeHTTP(w, r)
	}), client.Config{Token: apitest.OperatorToken, Patience: time.Nanosecond})
	m, err := c.WaitMachine(t.Context(), "ledger", id, drover.StateStopped, "")
	if err != nil || m.State != drover.StateStopped || waits.Load() != 2 {
		t.Errorf("%v, %s after %d waits", err, m.State, waits.Load())
	}
	if _, err := c.WaitMachine(t.Context(), "ledger", "00000000000000", drover.StateStopped, ""); !drover.Is(err, drover.NotFound) {
		t.Errorf("%v", err)
	}
	if _, err := c.WaitMachine(t.Context(), "ledger", id, "happy", ""); !drover.Is(err, drover.Invalid) {
		t.Errorf("%v", err)
	}
}

func TestFindMachine(t *testing.T) {
	_, c, id := serve(t)
	ctx := t.Context()
	if _, err := c.CreateApp(ctx, apiv1.CreateAppRequest{Name: "other"}); err != nil {
		t.Fatal(err)
	}
	second, err := c.CreateMachine(ctx, "other", apiv1.CreateMachineRequest{Name: "one", Config: drover.MachineConfig{Image: "debian"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		app drover.AppName
		arg string
		id  drover.MachineID
	}{{"", string(id), id}, {"", string(second.ID), second.ID}, {"ledger", "one", id}, {"other", "one", second.ID}} {
		if m, err := c.FindMachine(ctx, want.app, want.arg); err != nil || m.ID != want.id {
			t.Errorf("%q in %q: %s, %v", want.arg, want.app, m.ID, err)
		}
	}
	for _, c2 := range []struct {
		app  drover.AppName
		arg  string
		code drover.Code
	}{{"", "one", drover.Conflict}, {"", "two", drover.NotFound}, {"", "00000000000000", drover.NotFound}, {"ledger", string(second.ID), drover.NotFound},
		{"nope", "one", drover.NotFound}} {
		if _, err := c.FindMachine(ctx, c2.app, c2.arg); !drover.Is(err, c2.code) {
			t.Errorf("%q in %q: %v", c2.arg, c2.app, err)
		}
	}
}
