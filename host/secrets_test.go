package host

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover"
)

// testSecrets is what the control side has.
func testSecrets(version uint64, value string) drover.SecretValues {
	return drover.SecretValues{Version: version, Values: map[string]drover.SecretValue{"TOKEN": drover.NewSecretValue(value)}}
}

func (f fakeSecrets) Secrets(context.Context, drover.MachineID) (v drover.SecretValues, err error) {
	err = f.s.look(func() error {
		if f.s.h.w.keysDown {
			return drover.Errorf(drover.Unavailable, "no control host answers")
		}
		v = f.s.h.w.secrets
		return nil
	})
	return v, err
}

// guestSecret is the secret that the machine's guest was given last on the host.
func (h *fakeHost) guestSecret() string {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	for path, env := range h.env {
		if !strings.HasPrefix(path, h.run+"/") {
			h.w.t.Errorf("the guest's config is in %s, which outlives the power", path)
		}
		for _, v := range env {
			if value, ok := strings.CutPrefix(v, "TOKEN="); ok {
				return value
			}
		}
	}
	return ""
}

func (w *world) setSecrets(v drover.SecretValues) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.secrets = v
}

// withSecrets runs a machine whose app has secrets of version 5.
func withSecrets(t *testing.T, fn func(t *testing.T, w *world, h *fakeHost, req *drover.ApplyRequest)) {
	t.Helper()
	started(t, func(h *fakeHost, m *drover.Machine) {
		h.w.secrets = testSecrets(5, "hunter2-hunter2")
		m.SecretsVersion = 5
	}, fn)
}

// again starts the machine anew and waits for it.
func again(w *world, h *fakeHost, req *drover.ApplyRequest, change func(m *drover.Machine)) drover.MachineStatus {
	w.t.Helper()
	h.apply(req, func(m *drover.Machine) { m.Run++; change(m) })
	return w.await("m1", "restarted", func(s drover.MachineStatus) bool {
		return s.State == drover.StateStarted && s.Run == req.Machine.Run
	})
}

func same(*drover.Machine) {}

// What is set after a start is there from the next one on; where no control host answers, what the host has is as good as what the start needs.
func TestAMachineStartsWithItsSecrets(t *testing.T) {
	withSecrets(t, func(t *testing.T, w *world, h *fakeHost, req *drover.ApplyRequest) {
		if s := w.status["m1"]; h.guestSecret() != "hunter2-hunter2" || s.SecretsVersion != 5 {
			t.Fatalf("%q, %+v", h.guestSecret(), s)
		}
		w.setKeysDown(true)
		h.down()
		h.up(0)
		if s := again(w, h, req, same); h.guestSecret() != "hunter2-hunter2" || s.SecretsVersion != 5 {
			t.Errorf("without a control host: %q, %+v", h.guestSecret(), s)
		}
		w.setSecrets(testSecrets(6, "newer"))
		w.setKeysDown(false)
		if s := again(w, h, req, same); h.guestSecret() != "newer" || s.SecretsVersion != 6 {
			t.Errorf("after a change: %q, %+v", h.guestSecret(), s)
		}
		// A start that needs newer ones than the host has waits for them.
		w.setKeysDown(true)
		h.apply(req, func(m *drover.Machine) { m.Run++; m.SecretsVersion = 7 })
		s := w.await("m1", "a reason", func(s drover.MachineStatus) bool { return s.State == drover.StateStarting && s.Reason != "" })
		if !strings.Contains(s.Reason, `waits for the secrets of app "app"`) {
			t.Error(s.Reason)
		}
		w.setSecrets(testSecrets(7, "newest"))
		w.setKeysDown(false)
		w.awaitState("m1", drover.StateStarted)
		if h.guestSecret() != "newest" {
			t.Error(h.guestSecret())
		}
		if again(w, h, req, func(m *drover.Machine) { m.SkipSecrets = true }); h.guestSecret() != "" {
			t.Error("it was given secrets that were to be left out")
		}
		if _, err := os.Stat(filepath.Join(h.run, "machines", "m1", "secrets")); err == nil {
			t.Error("the host keeps secrets that the machine is not to get")
		}
	})
}

// After a power cut the host has nothing of them, asks, and until then says what it waits for. They are in no log and on no disk.
func TestSecretsAreGoneWithThePower(t *testing.T) {
	withSecrets(t, func(t *testing.T, w *world, h *fakeHost, _ *drover.ApplyRequest) {
		w.setKeysDown(true)
		h.powerCut()
		h.up(0)
		s := w.await("m1", "a reason", func(s drover.MachineStatus) bool { return s.State == drover.StateStarting && s.Reason != "" })
		if !strings.Contains(s.Reason, "waits for the secrets") || !strings.Contains(s.Reason, "no control host answers") {
			t.Errorf("reason: %s", s.Reason)
		}
		pass(time.Hour)
		if len(w.running("m1")) != 0 {
			t.Error("it runs without them")
		}
		w.setKeysDown(false)
		w.awaitState("m1", drover.StateStarted)
		h.down()
		if bytes.Contains(h.logs.Bytes(), []byte("hunter2")) || h.logs.Len() == 0 {
			t.Error("the log has the secret, or nothing")
		}
		for _, place := range []string{h.data, h.db} {
			err := filepath.WalkDir(place, func(path string, d fs.DirEntry, err error) error {
				if err != nil || !d.Type().IsRegular() {
					return err
				}
				b, err := os.ReadFile(path)
				if bytes.Contains(b, []byte("hunter2")) {
					t.Errorf("the secret is in %s", path)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
		h.up(0)
	})
}

// A machine whose app has no secrets needs nobody to start, and one that had some starts with those that there are when the fleet's store went back.
func TestNoMachineWaitsForSecretsThatWillNotCome(t *testing.T) {
	started(t, nil, func(t *testing.T, w *world, h *fakeHost, req *drover.ApplyRequest) {
		h.keys[testVolume.Cipher.Key] = "kept"
		w.setKeysDown(true)
		again(w, h, req, same)
		w.setKeysDown(false)
		w.setSecrets(testSecrets(3, "old"))
		if s := again(w, h, req, func(m *drover.Machine) { m.SecretsVersion = 9 }); h.guestSecret() != "old" || s.SecretsVersion != 3 {
			t.Errorf("%q, %+v", h.guestSecret(), s)
		}
	})
}

// The target of a move has the secrets before the machine is stopped, and starts it again without anybody; the source forgets them. After an abort it
// is the target that does.
func TestSecretsMoveWithTheirMachine(t *testing.T) {
	for _, live := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			w.secrets = testSecrets(5, "hunter2-hunter2")
			a, b, req := twoHosts(w)
			kept := func(h *fakeHost) bool {
				_, err := os.Stat(filepath.Join(h.run, "machines", "m1", "secrets"))
				return err == nil
			}
			aborted := newMover(w, a, b, req)
			steps := aborted.before()
			for _, step := range steps[:2] {
				if err := step(); err != nil {
					t.Fatal(err)
				}
			}
			w.setKeysDown(true)
			if err := steps[2](); !drover.Is(err, drover.Unavailable) || !strings.Contains(err.Error(), "secrets") || len(w.running("m1")) != 1 {
				t.Errorf("clone without secrets: %v", err)
			}
			w.setKeysDown(false)
			if err := steps[2](); err != nil || !kept(b) {
				t.Errorf("clone: %v, kept %v", err, kept(b))
			}
			if err := aborted.abort(); err != nil {
				t.Fatal(err)
			}
			if kept(b) || !kept(a) {
				t.Errorf("after the abort: the target keeps them: %v, the source: %v", kept(b), kept(a))
			}
			var epoch drover.Epoch
			if live {
				mv := newLiveMover(w, a, b, req)
				if moved, err := mv.run(); err != nil || !moved {
					t.Fatal(moved, err)
				}
				epoch = mv.epoch
			} else {
				mv := newMover(w, a, b, req)
				if moved, err := mv.run(); err != nil || !moved {
					t.Fatal(moved, err)
				}
				epoch = mv.epoch
			}
			w.await("m1", "started on b", func(s drover.MachineStatus) bool {
				return s.State == drover.StateStarted && s.Host == "b" && s.SecretsVersion == 5
			})
			if live && b.guestSecret() != "hunter2-hunter2" {
				t.Errorf("the VM that took the memory has another config disk: %q", b.guestSecret())
			}
			w.setKeysDown(true)
			req.Epoch = epoch
			again(w, b, &req, same)
			if b.guestSecret() != "hunter2-hunter2" {
				t.Errorf("live %v: after a restart on the target: %q", live, b.guestSecret())
			}
			if kept(a) {
				t.Error("the source keeps them")
			}
		}, "a", "b")
	}
}
