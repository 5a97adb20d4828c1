package api_test

import (
	"fmt"
	"strings"
	"testing"

	"drover"
	"drover/api"
	"drover/api/apitest"
	"drover/apiv1"
	"drover/fleet"
)

const volumes = "/v1/apps/ledger/volumes"

// volumeServer is a server with the app ledger and one volume of 4 GiB.
func volumeServer(t *testing.T) (*apitest.Backend, *server, apiv1.Volume) {
	t.Helper()
	backend := apitest.New()
	s := newServer(t, api.Config{Backend: backend})
	s.want(201, "POST", "/v1/apps", `{"app_name":"ledger","org_slug":"acme"}`)
	return backend, s, decode[apiv1.Volume](t, s.want(200, "POST", volumes, `{"name":"data","size_gb":4,"region":"north"}`))
}

// TestBadInputAboutVolumes: every request is refused with 400 and names the field.
func TestBadInputAboutVolumes(t *testing.T) {
	_, s, v := volumeServer(t)
	volume := volumes + "/" + string(v.ID)
	for _, c := range []struct{ method, path, body, field, text string }{
		{"PUT", volume, ``, "", "has no body"},
		{"PUT", volume, `{"snapshot_retention":"5"}`, "snapshot_retention", "whole number"},
		{"PUT", volume, `{"snapshot_retention":-1}`, "snapshot_retention", "1 to 60"},
		{"PUT", volume, `{"auto_backup_enabled":"no"}`, "auto_backup_enabled", "true or false"},
		{"PUT", volume, `{"snapshot_interval":"800h"}`, "snapshot_interval", "to 720h"},
		{"PUT", volume, `{"size_gb":9}`, "size_gb", "is not a field"},
		{"PUT", volume, `{"limits":{"iops":10000001}}`, "limits.iops", "1 to 10000000"},
		{"PUT", volume, `{"limits":{"bytes_per_second":-4096}}`, "limits.bytes_per_second", "4096 to"},
		{"PUT", volume + "/extend", `{}`, "size_gb", "is missing"},
		{"PUT", volume + "/extend", `{"size_gb":"9"}`, "size_gb", "whole number"},
		{"PUT", volume + "/extend", `{"size_gb":2}`, "size_gb", "never shrinks"},
		{"PUT", volume + "/extend", `{"size":4294967297}`, "size", "multiple of 4096"},
		{"PUT", volume + "/hydration", `{}`, "limit", "both missing"},
		{"PUT", volume + "/hydration", `{"limit":1}`, "limit", "4096 to"},
		{"PUT", volume + "/hydration", `{"pause":true}`, "pause", "expected one of limit, paused"},
		{"POST", volume + "/verify", `{"snapshot_id":"x"}`, "snapshot_id", "16 digits"},
		{"POST", volume + "/snapshots", `{"retention_days":0}`, "retention_days", "1 to 60"},
		{"POST", volume + "/snapshots", `{"quiesce":1}`, "quiesce", "true or false"},
		{"POST", volume + "/snapshots", `{"retention":1}`, "retention", "is not a field"},
		{"POST", volumes, `{"source_volume_id":"` + string(v.ID) + `","size_gb":1}`, "size_gb", "less than the 4 GiB of volume"},
		{"POST", volumes, `{"source_volume_id":"` + string(v.ID) + `","encrypted":false}`, "encrypted", "is encrypted"},
		{"GET", volumes + "?deleted=perhaps", ``, "deleted", "true or false"},
		{"PUT", "/v1/operator/hosts/h1/storage", `{}`, "hydration_limit", "both missing"},
		{"PUT", "/v1/operator/hosts/h1/storage", `{"hydration_limit":5}`, "hydration_limit", "4096 to"},
		{"PUT", "/v1/operator/hosts/h1/storage", `{"stall_after":"1ms"}`, "stall_after", "expected 1s to"},
	} {
		got := s.refused(400, c.method, c.path, c.body)
		if got.Code != drover.Invalid || got.Field != c.field || !strings.Contains(got.Error, c.text) {
			t.Errorf("%s %s %s: field %q, %q; want field %q and %q", c.method, c.path, c.body, got.Field, got.Error, c.field, c.text)
		}
	}
	if now := decode[apiv1.Volume](t, s.want(200, "GET", volume, "")); now.Size != v.Size || now.SnapshotRetention != v.SnapshotRetention {
		t.Errorf("bad input changed the volume: %+v", now)
	}
}

// TestWhatCannotBeDoneWithVolumes: refusals that have another status than 400.
func TestWhatCannotBeDoneWithVolumes(t *testing.T) {
	backend, s, v := volumeServer(t)
	volume := volumes + "/" + string(v.ID)
	backend.Slow = true
	snapshot := decode[apiv1.Snapshot](t, s.want(200, "POST", volume+"/snapshots", ""))
	other := decode[apiv1.Volume](t, s.want(200, "POST", volumes, `{"name":"other","size_gb":1}`))
	for _, c := range []struct {
		status             int
		method, path, body string
		field, text        string
	}{
		{404, "POST", volumes, `{"source_volume_id":"vol_00000000000000ff"}`, "source_volume_id", "no volume"},
		{404, "POST", volumes, `{"snapshot_id":"vs_00000000000000ff"}`, "snapshot_id", "no snapshot"},
		{412, "POST", volumes, `{"snapshot_id":"` + string(snapshot.ID) + `"}`, "snapshot_id", "is creating"},
		{404, "PUT", volumes + "/vol_00000000000000ff", `{}`, "", "no volume"},
		{404, "PUT", volumes + "/x/extend", `{"size_gb":9}`, "", "volume not found"},
		{404, "POST", volumes + "/x/undelete", ``, "", "volume not found"},
		{412, "POST", volume + "/undelete", ``, "", "not destroyed"},
		{412, "PUT", volume + "/hydration", `{"paused":true}`, "", "does not hydrate"},
		{404, "GET", volume + "/verify", ``, "", "was not verified"},
		{404, "POST", volume + "/verify", `{"snapshot_id":"vs_00000000000000ff"}`, "snapshot_id", "no snapshot"},
		{404, "GET", volume + "/snapshots/vs_x", ``, "", "snapshot not found"},
		{404, "GET", volumes + "/" + string(other.ID) + "/snapshots/" + string(snapshot.ID), ``, "", "is one of volume"},
		{404, "DELETE", volume + "/snapshots/vs_00000000000000ff", ``, "", "no snapshot"},
		{404, "PUT", "/v1/operator/hosts/h9/storage", `{"hydration_limit":0}`, "", "no host"},
	} {
		if got := s.refused(c.status, c.method, c.path, c.body); got.Field != c.field || !strings.Contains(got.Error, c.text) {
			t.Errorf("%s %s %s: %+v", c.method, c.path, c.body, got)
		}
	}
	backend.ChangeVolume(v.ID, func(v *fleet.VolumeView) { v.HostStatus = drover.HostUnreachable })
	if got := s.refused(504, "GET", volume+"/verify", ""); got.Code != drover.Unavailable {
		t.Errorf("%+v", got)
	}
	if w := s.ask("PUT", "/v1/operator/hosts/h1/storage", apitest.AcmeToken, `{"hydration_limit":0}`); w.Code != 403 {
		t.Errorf("an organization sets a host's storage: %d", w.Code)
	}
}

// TestVolumesAsClientsOfTheMachinesAPIWriteThem has the very bodies that flyctl sends.
func TestVolumesAsClientsOfTheMachinesAPIWriteThem(t *testing.T) {
	_, s, _ := volumeServer(t)
	compute := `"compute":{"cpu_kind":"shared","cpus":1,"memory_mb":256,"gpu_kind":"","host_dedication_id":""},"compute_image":""`
	created := decode[apiv1.Volume](t, s.want(200, "POST", volumes, `{"name":"pg_data","region":"north","size_gb":3,"encrypted":true,"require_unique_zone":true,
		"unique_zone_app_wide":false,"snapshot_retention":5,"auto_backup_enabled":null,"fstype":null,"snapshot_id":null,"source_volume_id":null,`+compute+`}`))
	if !created.Encrypted || !created.AutoBackupEnabled || created.SnapshotRetention != 5 || created.FSType != "ext4" || created.Blocks != 3<<18 || created.Region != "north" {
		t.Errorf("created %+v", created)
	}
	plain := decode[apiv1.Volume](t, s.want(200, "POST", volumes, `{"name":"plain","size_gb":1,"encrypted":false,"auto_backup_enabled":false}`))
	if plain.Encrypted || plain.Cipher != nil || plain.AutoBackupEnabled {
		t.Errorf("not encrypted: %+v", plain)
	}
	fork := decode[apiv1.Volume](t, s.want(200, "POST", volumes, `{"name":"pg_data","region":"","size_gb":3,"encrypted":true,"require_unique_zone":true,
		"snapshot_retention":null,"fstype":null,"source_volume_id":"`+string(created.ID)+`",`+compute+`}`))
	if fork.SourceVolumeID != created.ID || fork.State != drover.VolumeHydrating || fork.Region != "north" || *fork.Cipher != *created.Cipher {
		t.Errorf("forked %+v", fork)
	}
	path := volumes + "/" + string(created.ID)
	snapshot := decode[apiv1.Snapshot](t, s.want(200, "POST", path+"/snapshots", ""))
	listed := decode[[]apiv1.Snapshot](t, s.want(200, "GET", path+"/snapshots", ""))
	if len(listed) != 1 || listed[0].ID != snapshot.ID || listed[0].Status != drover.SnapshotCreated || listed[0].VolumeSize != created.Size ||
		listed[0].RetentionDays != 5 || len(listed[0].Digest) != 64 || listed[0].ExpiresAt.Sub(listed[0].TakenAt).Hours() != 120 {
		t.Errorf("snapshots %+v", listed)
	}
	restored := decode[apiv1.Volume](t, s.want(200, "POST", volumes, `{"name":"again","region":"north","size_gb":5,"encrypted":true,"snapshot_id":"`+string(snapshot.ID)+`",
		"snapshot_retention":5,`+compute+`}`))
	if restored.SnapshotID != snapshot.ID || restored.Size != 5*drover.GiB || restored.Hydration == nil {
		t.Errorf("restored %+v", restored)
	}
	extended := decode[apiv1.ExtendVolumeResponse](t, s.want(200, "PUT", path+"/extend", `{"size_gb":9}`))
	if extended.NeedsRestart || extended.Volume.SizeGB != 9 {
		t.Errorf("extended %+v", extended)
	}
	updated := decode[apiv1.Volume](t, s.want(200, "PUT", path, `{"snapshot_retention":null,"auto_backup_enabled":false}`))
	if updated.SnapshotRetention != 5 || updated.AutoBackupEnabled {
		t.Errorf("updated %+v", updated)
	}
}

func TestNamesAndSizesOfWhatAVolumeIsMadeOf(t *testing.T) {
	_, s, v := volumeServer(t)
	snapshot := decode[apiv1.Snapshot](t, s.want(200, "POST", volumes+"/"+string(v.ID)+"/snapshots", `{"quiesce":true,"full":true,"retention_days":9}`))
	if !snapshot.Quiesced || !snapshot.Full || snapshot.RetentionDays != 9 {
		t.Errorf("%+v", snapshot)
	}
	for _, from := range []string{`"source_volume_id":"` + string(v.ID) + `"`, `"snapshot_id":"` + string(snapshot.ID) + `"`} {
		made := decode[apiv1.Volume](t, s.want(200, "POST", volumes, `{`+from+`}`))
		if made.Name != "data" || made.Size != 4*drover.GiB || !made.Encrypted {
			t.Errorf("%s: %+v", from, made)
		}
	}
}

func TestDestroyedVolumesComeBack(t *testing.T) {
	_, s, v := volumeServer(t)
	gone := decode[apiv1.Volume](t, s.want(200, "DELETE", volumes+"/"+string(v.ID), ""))
	if gone.State != drover.VolumeDestroyed || !gone.WipeAt.After(gone.DestroyedAt) {
		t.Errorf("%+v", gone)
	}
	count := func(query string, want int) {
		t.Helper()
		if got := decode[[]apiv1.Volume](t, s.want(200, "GET", volumes+query, "")); len(got) != want {
			t.Errorf("%q lists %d volumes, want %d", query, len(got), want)
		}
	}
	count("", 0)
	count("?deleted=true", 1)
	back := decode[apiv1.Volume](t, s.want(200, "POST", volumes+"/"+string(v.ID)+"/undelete", ""))
	if back.State != drover.VolumeCreated || !back.WipeAt.IsZero() {
		t.Errorf("%+v", back)
	}
	count("", 1)
	count("?deleted=true", 0)
}

func TestLimitsThatAreNotNamedStay(t *testing.T) {
	_, s, v := volumeServer(t)
	for _, c := range []struct {
		body string
		want drover.Limits
	}{
		{`{"limits":{"iops":500}}`, drover.Limits{IOPS: 500}},
		{`{"limits":{"bytes_per_second":1048576,"iops":null}}`, drover.Limits{IOPS: 500, BytesPerSecond: drover.MiB}},
		{`{"limits":null,"snapshot_retention":9}`, drover.Limits{IOPS: 500, BytesPerSecond: drover.MiB}},
		{`{"limits":{"iops":0}}`, drover.Limits{BytesPerSecond: drover.MiB}},
	} {
		if got := decode[apiv1.Volume](t, s.want(200, "PUT", volumes+"/"+string(v.ID), c.body)); got.Limits != c.want {
			t.Errorf("%s: %+v", c.body, got.Limits)
		}
	}
	s.want(200, "PUT", "/v1/operator/hosts/h2/storage", `{"hydration_limit":1048576}`)
	s.want(200, "PUT", "/v1/operator/hosts/h2/storage", `{"stall_after":"5s","hydration_limit":null}`)
	if got := decode[drover.HostInfo](t, s.want(200, "GET", "/v1/operator/hosts/h2", "")); got.Storage.HydrationLimit != drover.MiB || got.Storage.StallAfter == 0 {
		t.Errorf("the host says %+v", got.Storage)
	}
}

func TestHydrationSaysHowLongItTakes(t *testing.T) {
	backend, s, v := volumeServer(t)
	for _, c := range []struct {
		h    drover.Hydration
		want string
	}{
		{drover.Hydration{Total: 100, TotalKnown: true, Copied: 40, Skipped: 10, BytesPerSecond: 5}, "10"},
		{drover.Hydration{Total: 100, TotalKnown: true, Copied: 40}, "-"},
		{drover.Hydration{Total: 100, Copied: 40, BytesPerSecond: 5}, "-"},
		{drover.Hydration{Total: 100, TotalKnown: true, BytesPerSecond: 5, Paused: true}, "-"},
	} {
		backend.ChangeVolume(v.ID, func(v *fleet.VolumeView) { v.Hydration = &c.h })
		got := decode[apiv1.Volume](t, s.want(200, "GET", volumes+"/"+string(v.ID), ""))
		left := "-"
		if got.Hydration.SecondsLeft != nil {
			left = fmt.Sprint(*got.Hydration.SecondsLeft)
		}
		if left != c.want || got.Hydration.Copied != c.h.Copied {
			t.Errorf("%+v: %s", c.h, left)
		}
	}
}
