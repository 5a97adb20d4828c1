package host

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"drover"
)

// order asks a host's agent once.
func order[A any](h *fakeHost, o drover.Order, req any) (A, error) {
	var answer A
	if h.agent == nil || h.isAway() {
		return answer, drover.Errorf(drover.Unavailable, "host %q is down", h.id)
	}
	data, err := json.Marshal(req)
	if err != nil {
		return answer, err
	}
	ctx, cancel := context.WithTimeout(h.w.t.Context(), 20*time.Second)
	defer cancel()
	got, err := h.agent.Handle(ctx, o, data)
	if err != nil {
		return answer, err
	}
	a, _ := got.(A)
	return a, nil
}

func (h *fakeHost) isAway() bool {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	return h.away
}

// takeSilence is how long the controller, which died as it asked, says nothing; 0 if it did not die.
func (w *world) takeSilence() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.silence
	w.silence = 0
	return d
}

// insist asks until the order is obeyed, as a controller does. The host is started again when it has died.
func insist[A any](h *fakeHost, o drover.Order, req any) A {
	h.w.t.Helper()
	a, err := press[A](h, o, req)
	if err != nil {
		h.w.t.Fatalf("host %s: order %s: %v", h.id, o, err)
	}
	return a
}

// press asks until the order is obeyed, or refused for good.
func press[A any](h *fakeHost, o drover.Order, req any) (a A, err error) {
	for range 60 {
		h.w.revive()
		a, err = order[A](h, o, req)
		if silence := h.w.takeSilence(); silence > 0 {
			pass(silence) // the answer is lost; another controller asks again
			continue
		}
		if err == nil {
			if h.w.twice {
				a, err = order[A](h, o, req)
			}
			if err == nil {
				return a, nil
			}
		}
		if drover.Is(err, drover.Canceled) || drover.Is(err, drover.Precondition) || drover.Is(err, drover.Exhausted) {
			return a, err
		}
		pass(time.Second)
	}
	return a, fmt.Errorf("no end of tries: %w", err)
}

// revive starts every agent again that was cut.
func (w *world) revive() {
	for _, h := range w.host {
		if h.agent != nil {
			h.revive()
		}
	}
}

// revive starts the agent again if it was cut.
func (h *fakeHost) revive() {
	h.sess.mu.Lock()
	dead := h.sess.dead
	h.sess.mu.Unlock()
	switch {
	case !dead || h.agent == nil:
		return
	case h.power:
		h.powerCut()
	default:
		h.down()
	}
	h.up(0)
}

// machineSpec is a machine with one volume.
func machineSpec(id drover.MachineID) drover.Machine {
	return drover.Machine{ID: id, App: "app", Name: string(id), Region: "r1", Instance: "i1", Goal: drover.GoalStarted, Run: 1,
		Address: "fdaa::1", Image: drover.ImageRef{Digest: "sha256:aa"},
		Config: drover.MachineConfig{Image: "img", Mounts: []drover.Mount{{Volume: "vol_1", Path: "/data"}}}}
}

var testVolume = drover.Volume{ID: "vol_1", App: "app", Size: drover.GiB, Cipher: drover.NewCipher()}

// place writes the first placement, as the control side does before it applies.
func (w *world) place(id drover.MachineID, host drover.HostID, mig drover.MigrationID) drover.Epoch {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.revision++
	w.placements[id] = drover.Placement{Machine: id, Host: host, Migration: mig, Epoch: w.revision}
	return w.revision
}

// create makes a volume and a machine on a host, and waits until it has the state.
func (h *fakeHost) create(m drover.Machine) drover.ApplyRequest {
	h.w.t.Helper()
	insist[drover.LayerStatus](h, drover.OrderVolumeCreate, drover.VolumeRequest{Volume: testVolume})
	h.w.mu.Lock()
	h.w.machines[m.ID] = m
	h.w.mu.Unlock()
	req := drover.ApplyRequest{Machine: m, Volumes: []drover.Volume{testVolume}, Epoch: h.w.place(m.ID, h.id, "")}
	insist[drover.MachineStatus](h, drover.OrderApply, req)
	return req
}

// apply changes the machine and makes the change known.
func (h *fakeHost) apply(req *drover.ApplyRequest, change func(m *drover.Machine)) {
	h.w.t.Helper()
	change(&req.Machine)
	h.w.mu.Lock()
	h.w.machines[req.Machine.ID] = req.Machine
	h.w.mu.Unlock()
	insist[drover.MachineStatus](h, drover.OrderApply, *req)
}

// await waits, at most an hour of fake time, until the published status is as it should be.
func (w *world) await(id drover.MachineID, what string, ok func(s drover.MachineStatus) bool) drover.MachineStatus {
	w.t.Helper()
	var s drover.MachineStatus
	for range 36000 {
		w.revive()
		synctest.Wait()
		w.mu.Lock()
		s = w.status[id]
		w.mu.Unlock()
		if ok(s) {
			return s
		}
		pass(100 * time.Millisecond)
	}
	w.t.Fatalf("machine %s never became %s; it is %+v", id, what, s)
	return s
}

func (w *world) awaitState(id drover.MachineID, state drover.MachineState) drover.MachineStatus {
	w.t.Helper()
	return w.await(id, string(state), func(s drover.MachineStatus) bool { return s.State == state })
}

// eachCut walks: of the hosts a and b one is the victim, and loses its agent or its power at its k-th effect, for every k that there is.
// The walk tells whether there was.
func eachCut(t *testing.T, walk func(t *testing.T, w *world, victim drover.HostID, power bool, k int) (reached bool)) {
	for i, c := range []struct {
		victim drover.HostID
		power  bool
	}{{"a", false}, {"a", true}, {"b", false}, {"b", true}} {
		t.Run(fmt.Sprintf("%s power=%v", c.victim, c.power), func(t *testing.T) {
			first := 1 + i%walkStride
			for k, reached := first, true; reached && !t.Failed(); k += walkStride {
				bubble(t, func(t *testing.T, w *world) { reached = walk(t, w, c.victim, c.power, k) }, "a", "b")
				if k > 500 {
					t.Fatal("the walk does not end")
				}
				if !reached {
					t.Logf("%d places to cut at", k-1)
				}
			}
		})
	}
}
