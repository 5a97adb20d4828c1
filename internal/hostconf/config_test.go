package hostconf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"drover"
)

func good() Config {
	return Config{
		ID: "h1", Region: "ams", Roles: []drover.Role{drover.RoleWorker}, Address: "10.98.0.1",
		DataDir: "/d", RunDir: "/r", TLSDir: "/t", Bus: Bus{URLs: []string{"nats://10.98.0.4:4222"}},
	}
}

func TestLoadFillsInDefaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "host.json")
	if err := Save(path, good()); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	want := good()
	want.Version = 1
	want.LinkCompression, want.GuestSizes = "auto", "documented"
	want.MeshListen, want.MTU = "10.98.0.1:51820", 1380
	want.StorageListen = "10.98.0.1:4290"
	want.Bus.Listen, want.Bus.Store = "10.98.0.1:4222", "/d/bus"
	want.API = API{Listen: "10.98.0.1:4280", TokenFile: "/d/operator.token"}
	if diff := cmp.Diff(want, *got); diff != "" {
		t.Error(diff)
	}
}

func TestLoadReportsAllMistakesTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "host.json")
	bad := Config{
		ID: "H1", Roles: []drover.Role{"boss"}, Address: "here", DataDir: "d", RunDir: "/" + strings.Repeat("r", 80), TLSDir: "/t",
		StorageListen: "4290", Bus: Bus{URLs: []string{"10.0.0.4"}}, MemoryMB: -1, ImageProxy: "proxy:3128", Grace: -1, VolumeKeep: -1, Network: "tape", LinkCompression: "on", DiskTransport: "scsi", DiskOvercommit: 0.5, PoolFloorMB: -1, MTU: 1000, MeshListen: "51820", MeshPublic: "wg example.com:1",
		CPUOvercommit: 0.01, SharedPerCPU: -1, Dedication: "Not a name", GuestSizes: "huge",
		Telemetry: Telemetry{OTLPEndpoint: "collector:4318", Metrics: "all"},
	}
	if err := Save(path, bad); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	if !drover.Is(err, drover.Invalid) {
		t.Fatal(err)
	}
	for _, field := range []string{"id:", "region:", "roles:", "address:", "data_dir:", "run_dir:", "storage_listen:", "bus.urls:", "memory_mb:", "image_proxy:", "grace:", "volume_keep:", "network:", "link_compression:", "disk_transport:",
		"cpu_overcommit:", "shared_per_cpu:", "dedication:", "guest_sizes:", "disk_overcommit:", "pool_floor_mb:", "telemetry.otlp_endpoint:", "telemetry.metrics:", "mtu:", "mesh_listen:", "mesh_public:"} {
		if !strings.Contains(err.(*drover.Error).Text, field) {
			t.Errorf("%s is not in: %v", field, err)
		}
	}
}

func TestLoadRefusesWhatItDoesNotKnow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "host.json")
	for _, content := range []string{`{"version": 2}`, `{"version": 1, "regoin": "ams"}`, `{`} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); !drover.Is(err, drover.Invalid) {
			t.Errorf("%s: %v", content, err)
		}
	}
}
