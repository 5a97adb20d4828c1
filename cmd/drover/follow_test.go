package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"drover"
	"drover/api/apitest"
	"drover/fleet"
)

// prepared is a fleet with an app, a machine on h1 and a runner.
func prepared(t *testing.T) (*apitest.Backend, runner, drover.MachineID) {
	t.Helper()
	backend := apitest.New()
	if _, err := backend.CreateApp(t.Context(), drover.App{Name: "ledger", Organization: "acme"}); err != nil {
		t.Fatal(err)
	}
	v, err := backend.CreateMachine(t.Context(), fleet.CreateMachine{App: "ledger", Name: "one", Config: drover.MachineConfig{Image: "debian"}})
	if err != nil {
		t.Fatal(err)
	}
	return backend, runner{vars: fleetOf(t, backend)}, v.Machine.ID
}

// onRead calls the function before each read of the kind, with its number from 1.
func onRead(backend *apitest.Backend, kind string, do func(n int)) {
	n := 0
	backend.Fail = func(method string) error {
		if method == kind {
			n++
			do(n)
		}
		return nil
	}
}

// carryOn moves a migration one step on at each look, to its end.
func carryOn(backend *apitest.Backend, id drover.MigrationID, n int) {
	phases := slices.DeleteFunc(slices.Clone(drover.Phases), func(p drover.Phase) bool { return p == drover.PhaseConverge })
	backend.ChangeMigration(id, func(m *drover.Migration) {
		now := m.CreatedAt.Add(time.Duration(n) * time.Second)
		m.UpdatedAt = now
		if i := len(m.Steps); i < len(phases)-1 {
			m.Steps[i-1].EndedAt = now
			m.Steps = append(m.Steps, drover.Step{Phase: phases[i], StartedAt: now, Tries: 1})
			m.Phase = phases[i]
			if m.Phase == drover.PhaseQuiesce {
				m.StoppedAt = now
			}
			if m.Phase == drover.PhaseHydrate {
				m.RunningAt = now
				m.Hydration = &drover.Hydration{Total: 100 * drover.MiB, TotalKnown: true, BytesPerSecond: 10 * drover.MiB}
			}
			return
		}
		if m.Hydration.Copied += 10 * drover.MiB; m.Hydration.Copied >= m.Hydration.Total {
			m.Hydration.Done, m.Outcome, m.Phase = true, drover.Succeeded, drover.PhaseDone
			m.Steps[len(m.Steps)-1].EndedAt, m.Steps[len(m.Steps)-1].Bytes = now, m.Hydration.Copied
		}
	})
}

func TestMoveIsFollowedToItsEnd(t *testing.T) {
	backend, r, id := prepared(t)
	onRead(backend, "Migration", func(n int) { carryOn(backend, "mig_0000000000000002", n) })
	got := r.run(t.Context(), "machine", "move", string(id), "--to", "h2")
	if got.code != 0 || got.stdout != "machine d0000000000001 is on host h2, interrupted for 3.00 s, 100 MiB copied (mig_0000000000000002)\n" {
		t.Errorf("%+v", got)
	}
	golden(t, filepath.Join("testdata", "progress", "move.txt"), got.stderr)
}

// What went in rounds before the switch counts, and so does the memory.
func TestAMoveTellsWhatItCopiedBeforeItsSwitch(t *testing.T) {
	backend, r, id := prepared(t)
	onRead(backend, "Migration", func(int) {
		backend.ChangeMigration("mig_0000000000000002", func(m *drover.Migration) {
			at := m.CreatedAt.Add(time.Second)
			m.Steps = append(m.Steps[:1:1], drover.Step{Phase: drover.PhaseConverge, StartedAt: at, EndedAt: at, Bytes: 100 * drover.MiB},
				drover.Step{Phase: drover.PhaseQuiesce, StartedAt: at, EndedAt: at, Bytes: 20 * drover.MiB},
				drover.Step{Phase: drover.PhaseHydrate, StartedAt: at, EndedAt: at})
			m.Hydration, m.Outcome, m.Phase = &drover.Hydration{TotalKnown: true, Done: true}, drover.Succeeded, drover.PhaseDone
			if got := m.DiskBytes(); got != 100*drover.MiB {
				t.Errorf("%d bytes of disks", got)
			}
		})
	})
	got := r.run(t.Context(), "machine", "move", string(id), "--to", "h2", "--live", "--switch", "late")
	if got.code != 0 || got.stdout != "machine d0000000000001 is on host h2, 120 MiB copied (mig_0000000000000002)\n" {
		t.Errorf("%+v", got)
	}
}

func TestMoveOnATerminalRedrawsOneLine(t *testing.T) {
	backend, r, id := prepared(t)
	r.redraw = true
	onRead(backend, "Migration", func(n int) { carryOn(backend, "mig_0000000000000002", n) })
	got := r.run(t.Context(), "machine", "move", string(id))
	if got.code != 0 || !strings.Contains(got.stderr, "\r  hydrate  50 %, 50 MiB of 100 MiB, 10 MiB/s, about 5 s left") {
		t.Errorf("%d\n%q", got.code, got.stderr)
	}
	if strings.HasSuffix(strings.TrimRight(got.stderr, "\r"), "left") {
		t.Errorf("the last progress stays on the terminal: %q", got.stderr)
	}
}

func TestCtrlCEndsTheFollowingOnly(t *testing.T) {
	backend, r, id := prepared(t)
	ctx, cancel := context.WithCancel(t.Context())
	onRead(backend, "Migration", func(n int) {
		if n == 3 {
			cancel()
		}
	})
	got := r.run(ctx, "machine", "move", string(id))
	if got.code != 130 || got.stdout != "" || !strings.Contains(got.stderr, "it goes on") || !strings.Contains(got.stderr, "'drover migration show mig_0000000000000002 -f'") ||
		!strings.Contains(got.stderr, "'drover migration abort mig_0000000000000002'") {
		t.Errorf("%+v", got)
	}
	backend.Fail = nil
	if m, err := backend.Migration(t.Context(), "mig_0000000000000002"); err != nil || m.Outcome != drover.Running {
		t.Errorf("the migration is %v, %v", m.Outcome, err)
	}
}

func TestAbortedMoveIsAnError(t *testing.T) {
	backend, r, id := prepared(t)
	onRead(backend, "Migration", func(int) {
		backend.ChangeMigration("mig_0000000000000002", func(m *drover.Migration) {
			m.Outcome, m.Problem = drover.Aborted, drover.Errorf(drover.Exhausted, "host h2 has no memory free").WithHint("choose another host")
		})
	})
	got := r.run(t.Context(), "machine", "move", string(id))
	want := "Error: migration mig_0000000000000002 was aborted; machine d0000000000001 is on host h1: host h2 has no memory free\nHint: choose another host\n"
	if got.code != 6 || !strings.HasSuffix(got.stderr, want) {
		t.Errorf("%+v", got)
	}
	if got := r.run(t.Context(), "migration", "show", "-f", "mig_0000000000000002"); got.code != 6 || !strings.HasPrefix(got.stdout, "Migration mig_") {
		t.Errorf("%+v", got)
	}
}

// A machine that fails where it came to is told at once, while its data still follows, and is no success.
func TestAMachineThatFailsOnItsTargetIsTold(t *testing.T) {
	backend, r, id := prepared(t)
	onRead(backend, "Migration", func(n int) {
		carryOn(backend, "mig_0000000000000002", n)
		backend.ChangeMigration("mig_0000000000000002", func(m *drover.Migration) {
			if m.Phase == drover.PhaseHydrate {
				m.Failed = "exit code 1, 3 times in a row"
			}
		})
	})
	got := r.run(t.Context(), "machine", "move", string(id), "--to", "h2")
	if got.code != 5 || !strings.Contains(got.stderr, "has failed there: exit code 1, 3 times in a row; its data still follows") ||
		!strings.Contains(got.stderr, "'drover migration undo mig_0000000000000002' takes it back to host h1") {
		t.Errorf("%+v", got)
	}
	if got := r.run(t.Context(), "migration", "show", "-f", "mig_0000000000000002"); got.code != 0 {
		t.Errorf("whose migration is followed ends well all the same: %+v", got)
	}
}

func TestMigrationShowFollows(t *testing.T) {
	backend, r, id := prepared(t)
	if got := r.run(t.Context(), "machine", "move", string(id), "--detach"); got.stdout != "mig_0000000000000002\n" {
		t.Fatalf("%+v", got)
	}
	onRead(backend, "Migration", func(n int) { carryOn(backend, "mig_0000000000000002", n) })
	got := r.run(t.Context(), "migration", "show", "mig_0000000000000002", "--follow")
	if got.code != 0 || !strings.Contains(got.stdout, "succeeded") || !strings.Contains(got.stdout, "Interruption 3.00 s") {
		t.Errorf("%+v", got)
	}
}

// setState makes the machine's state, at the n-th look.
func setState(backend *apitest.Backend, id drover.MachineID, state drover.MachineState, reason string) {
	backend.ChangeMachine(id, func(v *fleet.MachineView) {
		if v.Status.State != state {
			v.Status.Events = append(v.Status.Events, drover.Event{ID: "e-" + string(state) + reason, Type: string(state), Status: state})
		}
		v.Status.State, v.Status.Reason = state, reason
	})
}

func TestCreateShowsTheStatesOnTheWay(t *testing.T) {
	backend, r, _ := prepared(t)
	const id = "d0000000000002"
	onRead(backend, "Machine", func(n int) {
		switch n {
		case 1:
			setState(backend, id, drover.StateCreated, "fetching the image")
		case 3:
			setState(backend, id, drover.StateStarting, "")
		case 5:
			setState(backend, id, drover.StateStarted, "")
		}
	})
	got := r.run(t.Context(), "machine", "create", "debian", "--app", "ledger")
	want := "machine d0000000000002: created: fetching the image\nmachine d0000000000002: starting\n"
	if got.code != 0 || got.stderr != want || got.stdout != "machine d0000000000002 (calm-river-2) is started on host h1\n" {
		t.Errorf("%+v", got)
	}
}

func TestCreateThatFailsSaysWhy(t *testing.T) {
	backend, r, _ := prepared(t)
	onRead(backend, "Machine", func(int) { setState(backend, "d0000000000002", drover.StateFailed, "boot did not end in 60 s") })
	got := r.run(t.Context(), "machine", "create", "debian", "--app", "ledger")
	if got.code != 5 || !strings.Contains(got.stderr, "machine d0000000000002 has failed: boot did not end in 60 s") || got.stdout != "" {
		t.Errorf("%+v", got)
	}
}

// TestStartIsNotTakenInByTheOldState: right after a start the fleet may still tell how the last run ended.
func TestStartIsNotTakenInByTheOldState(t *testing.T) {
	backend, r, id := prepared(t)
	setState(backend, id, drover.StateFailed, "old failure")
	onRead(backend, "StartMachine", func(int) {})
	looks := 0
	backend.Fail = func(method string) error {
		if method != "Machine" {
			return nil
		}
		// Reads 1 and 2 are those of the command and of the start itself.
		switch looks++; {
		case looks == 3:
			backend.ChangeMachine(id, func(v *fleet.MachineView) {
				v.Status.State, v.Status.Events = drover.StateFailed, v.Status.Events[:2]
			})
		case looks == 5:
			setState(backend, id, drover.StateStarted, "")
		}
		return nil
	}
	if got := r.run(t.Context(), "machine", "start", string(id)); got.code != 0 || !strings.Contains(got.stdout, "is started") {
		t.Errorf("%+v", got)
	}
}

func TestTimeoutSaysThatItGoesOn(t *testing.T) {
	backend, r, id := prepared(t)
	onRead(backend, "Machine", func(int) { setState(backend, id, drover.StateStopping, "") })
	got := r.run(t.Context(), "machine", "stop", string(id), "--timeout", "0s")
	if got.code != 7 || !strings.Contains(got.stderr, "is still stopping") || !strings.Contains(got.stderr, "goes on by itself") {
		t.Errorf("%+v", got)
	}
}

func TestLogsFollow(t *testing.T) {
	backend, r, id := prepared(t)
	backend.Log("first", "second", "third")
	if got := r.run(t.Context(), "machine", "logs", string(id), "--tail", "2"); got.stdout != "second\nthird\n" || got.code != 0 {
		t.Errorf("%+v", got)
	}
	if got := r.run(t.Context(), "machine", "logs", string(id), "-n", "1", "-t"); got.stdout != "2026-03-01T12:00:00.000Z stdout third\n" {
		t.Errorf("%+v", got)
	}
	if got := r.run(t.Context(), "machine", "logs", string(id), "-n", "1", "--json"); got.stdout != `{"at":"2026-03-01T12:00:00Z","stream":"stdout","text":"third"}`+"\n" {
		t.Errorf("%+v", got)
	}
	for _, line := range [][]string{{"machine", "logs", string(id)}, {"logs", "-a", "ledger"}} {
		ctx, cancel := context.WithCancelCause(t.Context())
		onRead(backend, "MachineLogs", func(n int) {
			switch n {
			case 2:
				backend.Log("fourth")
			case 3:
				cancel(errors.New("a signal")) // Ctrl-C comes with a cause
			}
		})
		if got := r.run(ctx, append(line, "-f", "-n", "1")...); got.stderr != "" || got.code != 130 {
			t.Errorf("%q: %+v", line, got)
		} else if got := got.stdout; line[0] == "machine" && got != "third\nfourth\n" {
			t.Errorf("%q: %q", line, got)
		}
	}
}

func TestExecJSONGivesOneObjectAndTheExitCode(t *testing.T) {
	backend, r, id := prepared(t)
	var stdin string
	backend.Exec = func(req drover.ExecRequest) (drover.ExecResult, error) {
		stdin = string(req.Stdin)
		return drover.ExecResult{Stdout: []byte("\x00\xff"), Stderr: []byte("oops\n"), ExitCode: 7, Truncated: true}, nil
	}
	r.stdin = "in\x00"
	got := r.run(t.Context(), "machine", "exec", string(id), "-i", "--json", "--", "sh", "-c", "exit 7")
	if got.code != 7 || !strings.Contains(got.stdout, `"stderr": "oops\n"`) || stdin != "in\x00" || !strings.Contains(got.stderr, "cut at 1 MiB") {
		t.Errorf("%+v, stdin %q", got, stdin)
	}
	backend.Exec = func(drover.ExecRequest) (drover.ExecResult, error) { return drover.ExecResult{ExitSignal: 9}, nil }
	if got := r.run(t.Context(), "machine", "exec", string(id), "--json", "true"); got.code != 137 {
		t.Errorf("%+v", got)
	}
}

func TestDestroyingAsks(t *testing.T) {
	_, r, id := prepared(t)
	r.asks, r.stdin = true, "n\n"
	if got := r.run(t.Context(), "machine", "destroy", string(id), "--force"); got.code != 130 || !strings.Contains(got.stderr, "Really destroy machine") {
		t.Errorf("%+v", got)
	}
	r.stdin = ""
	if got := r.run(t.Context(), "machine", "destroy", string(id), "--force"); got.code != 130 {
		t.Errorf("%+v", got)
	}
	r.stdin = "y\n"
	if got := r.run(t.Context(), "machine", "destroy", string(id), "--force"); got.code != 0 || !strings.HasSuffix(got.stdout, "is destroyed\n") {
		t.Errorf("%+v", got)
	}
}

func TestConfigFile(t *testing.T) {
	backend, r, _ := prepared(t)
	path := filepath.Join(t.TempDir(), "machine.json")
	if err := os.WriteFile(path, []byte(`{"image":"debian","env":{"A":"1","B":"2"},"schedule":"daily","guest":{"cpus":2}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := r.run(t.Context(), "machine", "create", "--app", "ledger", "--config", path, "--env", "B=3", "--cpus", "1"); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	v, err := backend.Machine(t.Context(), "ledger", "d0000000000002")
	if err != nil {
		t.Fatal(err)
	}
	if c := v.Machine.Config; c.Env["A"] != "1" || c.Env["B"] != "3" || c.Guest.CPUs != 1 {
		t.Errorf("%+v", c)
	}
	r.stdin = `{"image":5}`
	if got := r.run(t.Context(), "machine", "create", "--app", "ledger", "--config", "-"); got.code != 2 || !strings.Contains(got.stderr, "cannot read the config") {
		t.Errorf("%+v", got)
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	// Hosts know images by paths that begin with what is there, and do not know this directory.
	for image, want := range map[string]string{"./image.tar": "tar:" + wd + "/image.tar", "./layout": "oci:" + wd + "/layout", "oci:./layout": "oci:" + wd + "/layout",
		"/srv/layout": "oci:/srv/layout", "./follow_test.go": "tar:" + wd + "/follow_test.go", "tar:/srv/x": "tar:/srv/x", "registry.example/a:1": "registry.example/a:1"} {
		got := r.run(t.Context(), "machine", "create", image, "--app", "ledger", "--json", "--detach")
		var made struct {
			ID drover.MachineID `json:"id"`
		}
		if err := json.Unmarshal([]byte(got.stdout), &made); err != nil || got.code != 0 {
			t.Fatalf("%+v %v", got, err)
		}
		if v, err = backend.Machine(t.Context(), "ledger", made.ID); err != nil || v.Machine.Config.Image != want {
			t.Errorf("%s: %q %v", image, v.Machine.Config.Image, err)
		}
	}
}

func TestUnreachableHostIsSaid(t *testing.T) {
	backend, r, id := prepared(t)
	backend.ChangeMachine(id, func(v *fleet.MachineView) { v.HostStatus = drover.HostUnreachable })
	if got := r.run(t.Context(), "machine", "list"); !strings.Contains(got.stdout, "started? (host unreachable)") {
		t.Errorf("%+v", got)
	}
	backend.ChangeMachine(id, func(v *fleet.MachineView) { v.HostSeenAt = testNow().Add(-11 * time.Second) })
	for _, args := range [][]string{{"machine", "list"}, {"machine", "show", string(id)}} {
		if got := r.run(t.Context(), args...); !strings.Contains(got.stdout, "started? (host unreachable for 11s)") {
			t.Errorf("%q: %+v", args, got)
		}
	}
}
