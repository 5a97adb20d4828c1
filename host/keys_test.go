package host

import (
	"slices"
	"strings"
	"testing"
	"time"

	"drover"
)

// asksFor counts the requests for keys.
func (h *fakeHost) asksForKeys() int {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	return h.asked
}

func (w *world) setKeysDown(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keysDown = down
}

// As long as the host has its power, its machines start again without anybody handing keys out.
func TestAMachineStartsByTheKeyThatIsThere(t *testing.T) {
	started(t, nil, func(t *testing.T, w *world, h *fakeHost, req *drover.ApplyRequest) {
		if n := h.asksForKeys(); n != 1 {
			t.Errorf("asked for the key %d times", n)
		}
		w.setKeysDown(true)
		h.down()
		h.up(0)
		h.apply(req, func(m *drover.Machine) { m.Run++ })
		w.await("m1", "restarted", func(s drover.MachineStatus) bool { return s.State == drover.StateStarted && s.Run == 2 })
		if n := h.asksForKeys(); n != 1 {
			t.Errorf("asked for the key %d times", n)
		}
	})
}

// After a power cut a machine with an encrypted volume waits for a control host, says so, and starts when one answers.
func TestAMachineWaitsForItsKeyAfterAPowerCut(t *testing.T) {
	started(t, nil, func(t *testing.T, w *world, h *fakeHost, _ *drover.ApplyRequest) {
		w.setKeysDown(true)
		h.powerCut()
		h.up(0)
		s := w.await("m1", "a reason", func(s drover.MachineStatus) bool { return s.State == drover.StateStarting && s.Reason != "" })
		if !strings.Contains(s.Reason, "waits for its key") || !strings.Contains(s.Reason, "no control host answers") {
			t.Errorf("reason: %s", s.Reason)
		}
		pass(time.Hour)
		if s := w.status["m1"]; s.State != drover.StateStarting || len(w.running("m1")) != 0 {
			t.Errorf("an hour later: %+v", s)
		}
		w.setKeysDown(false)
		w.awaitState("m1", drover.StateStarted)
	})
}

// A target that cannot have the key, or does not know the cipher, says so before the machine is stopped.
func TestATargetThatCannotDecryptRefusesInTime(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h1, h2 := w.host["h1"], w.host["h2"]
		h1.up(0)
		h2.up(0)
		req := h1.create(machineSpec("m1"))
		w.awaitState("m1", drover.StateStarted)
		mv := newMover(w, h1, h2, req)
		odd := *testVolume.Cipher
		odd.Algorithm = "rot13"
		strange := testVolume
		strange.Cipher = &odd
		_, err := press[drover.Empty](h2, drover.OrderMoveReserve, drover.MoveReserveRequest{MoveRequest: mv.id(), Spec: req.Machine, Volumes: []drover.Volume{strange}})
		if !drover.Is(err, drover.Invalid) || drover.AsError(err).Hint == "" {
			t.Errorf("reserve: %v", err)
		}
		steps := mv.before()
		for _, step := range steps[:2] {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		bare := slices.Clone(mv.exports)
		for i := range bare {
			bare[i].Cipher = nil // as a host exports it that knows nothing of encryption
		}
		_, err = press[drover.Empty](h2, drover.OrderMoveClone, drover.MoveCloneRequest{MoveRequest: mv.id(), Exports: bare})
		if !drover.Is(err, drover.Precondition) || !strings.Contains(err.Error(), "exports it as not encrypted") {
			t.Errorf("clone of another cipher: %v", err)
		}
		w.setKeysDown(true)
		if err = steps[2](); !drover.Is(err, drover.Unavailable) || !strings.Contains(err.Error(), "key") {
			t.Errorf("clone without a key: %v", err)
		}
		if len(w.running("m1")) != 1 {
			t.Error("the machine was stopped")
		}
		w.setKeysDown(false)
		if err := steps[2](); err != nil {
			t.Errorf("clone with a key: %v", err)
		}
		if h2.keys[testVolume.Cipher.Key] == "" {
			t.Error("the target has no key")
		}
	}, "h1", "h2")
}
