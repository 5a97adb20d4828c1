package qemu

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover"
)

// guestDir is where script/bootstrap leaves the guest.
func guestDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../build/guest")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{kernelTCG, kernelKVM, initrd} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Fatalf("%v: run script/bootstrap and script/build-guest", err)
		}
	}
	return dir
}

// runDir is short, as a run directory must be.
func runDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "drover-qemu-")
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

func testLog(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// TestTrialBoot proves that the trial passes where CPUs work: under TCG they always do.
func TestTrialBoot(t *testing.T) {
	d, err := New(t.Context(), Config{RunDir: runDir(t), GuestDir: guestDir(t), Accel: drover.AccelTCG, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.trial(t.Context(), drover.AccelTCG, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := d.trial(t.Context(), drover.AccelTCG, time.Millisecond); err == nil || !strings.Contains(err.Error(), "hung") {
		t.Errorf("a boot that takes too long: %v", err)
	}
	if left, err := os.ReadDir(d.cfg.RunDir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestAccelIsChosenByTrying(t *testing.T) {
	var got []drover.Accel
	for range 2 {
		d, err := New(t.Context(), Config{RunDir: runDir(t), GuestDir: guestDir(t), Log: testLog(t)})
		if err != nil {
			t.Fatal(err)
		}
		accel, reason := d.Accel()
		t.Logf("%s: %s", accel, reason)
		if !strings.Contains(reason, "/dev/kvm") {
			t.Errorf("the reason %q does not name the device", reason)
		}
		if !strings.HasPrefix(d.Version(), "QEMU ") {
			t.Errorf("version %q", d.Version())
		}
		got = append(got, accel)
	}
	if got[0] != got[1] {
		t.Errorf("the accelerator changes: %v", got)
	}
}

func TestConfigErrors(t *testing.T) {
	good := Config{RunDir: runDir(t), GuestDir: guestDir(t), Accel: drover.AccelTCG}
	for name, change := range map[string]func(*Config){
		"no run directory":       func(c *Config) { c.RunDir = "" },
		"relative run directory": func(c *Config) { c.RunDir = "run" },
		"long run directory":     func(c *Config) { c.RunDir = "/" + strings.Repeat("x", 90) },
		"no guest":               func(c *Config) { c.GuestDir = t.TempDir() },
		"unknown accelerator":    func(c *Config) { c.Accel = "hvf" },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(t.Context(), cfg); !drover.Is(err, drover.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
