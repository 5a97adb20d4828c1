package main

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover"
	"drover/api/apitest"
	"drover/fleet"
)

// preparedVolume is a fleet with an app and a volume of 4 GiB, whose snapshots and verifications take as long as the test likes.
func preparedVolume(t *testing.T) (*apitest.Backend, runner) {
	t.Helper()
	backend := apitest.New()
	if _, err := backend.CreateApp(t.Context(), drover.App{Name: "ledger", Organization: "acme"}); err != nil {
		t.Fatal(err)
	}
	if _, err := backend.CreateVolume(t.Context(), fleet.CreateVolume{App: "ledger", Name: "data", Size: 4 * drover.GiB}); err != nil {
		t.Fatal(err)
	}
	backend.Slow = true
	return backend, runner{vars: fleetOf(t, backend)}
}

const (
	theVolume   = drover.VolumeID("vol_0000000000000001")
	theSnapshot = drover.SnapshotID("vs_0000000000000002")
)

// upload carries a snapshot on by an eighth at each look, and waits once for the store.
func upload(backend *apitest.Backend, n int) {
	backend.ChangeSnapshot(theSnapshot, func(s *drover.Snapshot) {
		done := drover.Bytes(n-1) * s.Data / 8
		s.Upload = &drover.Upload{Snapshot: s.ID, Total: s.Data, Read: done, Stored: done / 2}
		if n == 4 {
			s.Upload.Waiting = "the object store: connection refused"
		}
		if done >= s.Data {
			s.State, s.Stored, s.Upload, s.Manifest = drover.SnapshotCreated, s.Data/2, nil, strings.Repeat("5e", 32)
		}
	})
}

func TestSnapshotIsFollowedIntoTheStore(t *testing.T) {
	backend, r := preparedVolume(t)
	onRead(backend, "Snapshot", func(n int) { upload(backend, n) })
	got := r.run(t.Context(), "volume", "snapshot", "create", "data")
	if got.code != 0 || !strings.HasPrefix(got.stdout, "snapshot vs_0000000000000002 of volume vol_0000000000000001 (data): 1 GiB, 512 MiB of it new") {
		t.Errorf("%+v", got)
	}
	golden(t, filepath.Join("testdata", "progress", "snapshot.txt"), got.stderr)
}

func TestSnapshotThatFailsIsAnError(t *testing.T) {
	backend, r := preparedVolume(t)
	onRead(backend, "Snapshot", func(int) {
		backend.ChangeSnapshot(theSnapshot, func(s *drover.Snapshot) {
			s.State, s.Problem = drover.SnapshotFailed, drover.Errorf(drover.NotFound, "host h1 has lost the frozen layer").WithHint("take another one")
		})
	})
	got := r.run(t.Context(), "volume", "snapshot", "create", "data")
	want := "Error: snapshot vs_0000000000000002 was not finished: host h1 has lost the frozen layer\nHint: take another one\n"
	if got.code != 3 || got.stdout != "" || !strings.HasSuffix(got.stderr, want) {
		t.Errorf("%+v", got)
	}
}

func TestCtrlCEndsTheFollowingOfASnapshotOnly(t *testing.T) {
	backend, r := preparedVolume(t)
	ctx, cancel := context.WithCancel(t.Context())
	onRead(backend, "Snapshot", func(n int) {
		if n == 2 {
			cancel()
		}
	})
	got := r.run(ctx, "volume", "snapshot", "create", "data")
	if got.code != 130 || !strings.Contains(got.stderr, "it goes on") || !strings.Contains(got.stderr, "'drover volume snapshot show vs_0000000000000002'") {
		t.Errorf("%+v", got)
	}
}

func TestSnapshotOnItsWayIsShown(t *testing.T) {
	backend, r := preparedVolume(t)
	r.run(t.Context(), "volume", "snapshot", "create", "data", "--detach")
	upload(backend, 4)
	if got := r.run(t.Context(), "volume", "snapshot", "list"); !strings.Contains(got.stdout, "creating 37 %") {
		t.Errorf("%+v", got)
	}
	got := r.run(t.Context(), "volume", "snapshot", "show", string(theSnapshot))
	if !strings.Contains(got.stdout, "Progress    37 %, 384 MiB of 1 GiB, 192 MiB new to the store, waiting: the object store: connection refused\n") {
		t.Errorf("%+v", got)
	}
	got = r.run(t.Context(), "volume", "create", "again", "--app", "ledger", "--snapshot", string(theSnapshot))
	if got.code != 5 || !strings.Contains(got.stderr, "is creating, and cannot be restored") {
		t.Errorf("%+v", got)
	}
}

// verify carries a verification on by a quarter at each look.
func verify(backend *apitest.Backend, end func(*drover.Verification)) func(int) {
	return func(n int) {
		if n == 1 {
			return // the look that finds the volume
		}
		backend.ChangeVerification(theVolume, func(v *drover.Verification) {
			v.Checked = min(v.Total, drover.Bytes(n-1)*v.Total/4)
			if v.Checked == v.Total {
				v.Done, v.DoneAt = true, testNow()
				end(v)
			}
		})
	}
}

func TestDamageIsListedAndIsAnError(t *testing.T) {
	backend, r := preparedVolume(t)
	damage := func(v *drover.Verification) {
		v.Damaged = []drover.ByteRange{{Offset: 4096, Length: 8192}, {Offset: drover.GiB, Length: 4096}}
		v.Repaired, v.Unknown = 4096, drover.MiB
	}
	onRead(backend, "Volume", verify(backend, damage))
	got := r.run(t.Context(), "volume", "verify", "data")
	golden(t, filepath.Join("testdata", "progress", "verify.txt"), got.stdout+"---\n"+got.stderr)
	if got.code != 1 {
		t.Errorf("exit code %d", got.code)
	}
	backend.Fail = nil
	if got := r.run(t.Context(), "volume", "show", "data"); !strings.Contains(got.stdout, "against checksums: DAMAGED in 2 places, 12 KiB, 4 KiB repaired") {
		t.Errorf("%+v", got)
	}
}

func TestVerificationThatCannotBeFinished(t *testing.T) {
	backend, r := preparedVolume(t)
	onRead(backend, "Volume", verify(backend, func(v *drover.Verification) { v.Done, v.Problem = false, "the object store does not answer" }))
	got := r.run(t.Context(), "volume", "verify", "data", "--json")
	if got.code != 7 || !strings.Contains(got.stdout, `"problem": "the object store does not answer"`) || !strings.Contains(got.stderr, "was not finished") {
		t.Errorf("%+v", got)
	}
}

func TestDestroyingAVolumeAsksAndSaysUntilWhenItComesBack(t *testing.T) {
	_, r := preparedVolume(t)
	r.asks, r.stdin = true, "n\n"
	if got := r.run(t.Context(), "volume", "destroy", "data"); got.code != 130 || !strings.Contains(got.stderr, "Really destroy volume") ||
		!strings.Contains(got.stderr, "for a limited time only") {
		t.Errorf("%+v", got)
	}
	r.stdin = "y\n"
	if got := r.run(t.Context(), "volume", "destroy", "data"); got.code != 0 || !strings.Contains(got.stdout, "brings it back until 2026-03-02 12:00:00 UTC (in 24h)") {
		t.Errorf("%+v", got)
	}
	if got := r.run(t.Context(), "volume", "show", "data"); !strings.Contains(got.stdout, "Wiped       2026-03-02 12:00:00 UTC (in 24h)") {
		t.Errorf("%+v", got)
	}
}

func TestExtendSaysWhenARestartIsNeeded(t *testing.T) {
	backend, r := preparedVolume(t)
	backend.NeedsRestart = true
	backend.ChangeVolume(theVolume, func(v *fleet.VolumeView) { v.Volume.Machine = "d0000000000001" })
	got := r.run(t.Context(), "volume", "extend", "data", "--size", "+2")
	if got.stdout != "volume vol_0000000000000001 (data) has 6 GiB; machine d0000000000001 sees it after 'drover machine restart d0000000000001'\n" {
		t.Errorf("%+v", got)
	}
}

func TestConditionsAreShown(t *testing.T) {
	backend, r := preparedVolume(t)
	at := testNow().Add(-time.Hour)
	backend.ChangeHosts(func(hosts []drover.HostInfo) []drover.HostInfo {
		hosts[0].DiskProvisioned = 250 * drover.GiB
		hosts[0].Conditions = []drover.Condition{
			{Code: drover.HydrationStalled, Severity: drover.SeverityWarning, Subject: "vol_b", Text: "no progress for 60 s", Since: at},
			{Code: drover.PoolFilling, Severity: drover.SeverityCritical, Text: "the pool is 93 % full", Since: at},
			{Code: drover.HydrationStalled, Severity: drover.SeverityWarning, Subject: "vol_a", Text: "no progress for 60 s", Since: at},
		}
		return hosts
	})
	backend.ChangeVolume(theVolume, func(v *fleet.VolumeView) {
		v.Conditions = []drover.Condition{{Code: drover.SnapshotFailing, Severity: drover.SeverityWarning, Subject: string(theVolume), Text: "host h1 does not answer", Since: at}}
	})
	list, show := r.run(t.Context(), "host", "list"), r.run(t.Context(), "host", "show", "h1")
	volume := r.run(t.Context(), "volume", "show", "data")
	golden(t, filepath.Join("testdata", "progress", "conditions.txt"), list.stdout+"---\n"+show.stdout+"---\n"+volume.stdout)
}

func TestMeter(t *testing.T) {
	var m meter
	at := testNow()
	for _, c := range []struct {
		after      time.Duration
		have, want drover.Bytes
	}{{0, 0, 0}, {time.Second, 100, 100}, {2 * time.Second, 200, 100}, {4 * time.Second, 1000, 250}, {8 * time.Second, 1000, 133}, {60 * time.Second, 1000, 0}} {
		if got := m.rate(at.Add(c.after), c.have); got != c.want {
			t.Errorf("after %s: %d, want %d", c.after, got, c.want)
		}
	}
}

func TestRatesAndIntervals(t *testing.T) {
	for text, want := range map[string]drover.Bytes{"none": 0, "0": 0, "50": 50 * drover.MiB, "50MiB/s": 50 * drover.MiB, "1GiB": drover.GiB} {
		if got, err := parseRate(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "fast", "-1", "5/s/s"} {
		if _, err := parseRate(text); !drover.Is(err, drover.Invalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for d, want := range map[time.Duration]string{24 * time.Hour: "24h", 90 * time.Minute: "1h30m", 90 * time.Second: "1m30s", 20 * time.Minute: "20m", 10 * time.Second: "10s", 0: "0s"} {
		if got := intervalText(drover.Duration(d)); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}
