package host

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"drover"
	"drover/guest"
)

// value returns the last value of a variable, which is the one that counts.
func value(env []string, name string) string {
	out := "absent"
	for _, entry := range env {
		if len(entry) > len(name) && entry[:len(name)+1] == name+"=" {
			out = entry[len(name)+1:]
		}
	}
	return out
}

func TestVariablesOfAMachine(t *testing.T) {
	m := machineSpec("m1")
	m.Image = drover.ImageRef{Registry: "r.io", Repository: "shop/web", Tag: "1", Digest: "sha256:aa"}
	m.Config.Env = map[string]string{"PRIMARY_REGION": "ams", "FLY_REGION": "lie", "A": "config", "B": "config"}
	m.Config.Metadata = map[string]string{"fly_process_group": "web"}
	m.Config.Guest.MemoryMB = 512
	root := diskRecord{Image: &drover.ImageLayer{Run: drover.ImageConfig{Cmd: []string{"x"}, Env: []string{"A=image", "C=image"}}}}
	cfg, err := guestConfig(guestInput{apply: drover.ApplyRequest{Machine: m}, root: root, volumes: []diskRecord{{}}, secrets: map[string]string{"B": "secret"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"FLY_APP_NAME": "app", "FLY_MACHINE_ID": "m1", "FLY_ALLOC_ID": "m1", "FLY_REGION": "r1", "FLY_PRIVATE_IP": "fdaa::1",
		"FLY_IMAGE_REF": "r.io/shop/web:1@sha256:aa", "FLY_PROCESS_GROUP": "web", "FLY_VM_MEMORY_MB": "512", "FLY_MACHINE_VERSION": "i1", "PRIMARY_REGION": "ams",
		"DROVER_MACHINE_ID": "m1", "A": "config", "B": "secret", "C": "image"} {
		if got := value(cfg.Env, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestFilesAndProcessesOfAMachine(t *testing.T) {
	m := machineSpec("m1")
	m.Config.Files = []drover.File{{GuestPath: "/a", RawValue: "aGVsbG8="}, {GuestPath: "/b/../c", SecretName: "KEY", Mode: 0o600}}
	m.Config.Init = drover.Init{Entrypoint: []string{"/bin/run"}, User: "ann", SwapSizeMB: 8, KernelArgs: []string{"x=1"}}
	m.Config.Guest.KernelArgs = []string{"y=2"}
	m.Config.Processes = []drover.MachineProcess{
		{},
		{Cmd: []string{"worker"}, User: "bob", Env: map[string]string{"A": "own"}, EnvFrom: []drover.EnvFrom{{EnvVar: "WHO", FieldRef: "id"}}},
		{Exec: []string{"/x/run", "y"}, Secrets: []drover.ProcessSecret{{EnvVar: "S", Name: "KEY"}}},
		{Exec: []string{"z"}, IgnoreAppSecrets: true},
	}
	in := guestInput{apply: drover.ApplyRequest{Machine: m}, volumes: []diskRecord{{}}, secrets: map[string]string{"KEY": "c2VjcmV0\n"},
		root: diskRecord{Image: &drover.ImageLayer{Run: drover.ImageConfig{Cmd: []string{"x"}}}}}
	cfg, err := guestConfig(in)
	if err != nil {
		t.Fatal(err)
	}
	if want := []guest.File{{Path: "/a", Data: []byte("hello"), Mode: 0o644}, {Path: "/c", Data: []byte("secret"), Mode: 0o600}}; !cmp.Equal(cfg.Files, want) {
		t.Error(cmp.Diff(want, cfg.Files))
	}
	if cfg.Swap != 8*drover.MiB || !slices.Equal(kernelArgs(m.Config), []string{"x=1", "y=2"}) {
		t.Errorf("swap %d, kernel %q", cfg.Swap, kernelArgs(m.Config))
	}
	want := []struct {
		name, user, key, s string
		argv               []string
	}{
		{"run", "ann", "c2VjcmV0\n", "absent", []string{"/bin/run"}},
		{"run.2", "bob", "c2VjcmV0\n", "absent", []string{"/bin/run", "worker"}},
		{"run.3", "ann", "absent", "c2VjcmV0\n", []string{"/x/run", "y"}},
		{"z", "ann", "absent", "absent", []string{"z"}},
	}
	for i, w := range want {
		p := cfg.Processes[i]
		if p.Name != w.name || p.User != w.user || value(p.Env, "KEY") != w.key || value(p.Env, "S") != w.s || !slices.Equal(p.Argv, w.argv) {
			t.Errorf("process %d: %+v", i, p)
		}
	}
	if env := cfg.Processes[1].Env; value(env, "A") != "own" || value(env, "WHO") != "m1" {
		t.Errorf("its own variables: %q", env)
	}
	in.secrets = nil
	if _, err := guestConfig(in); !drover.Is(err, drover.Precondition) {
		t.Errorf("without the secret: %v", err)
	}
}
