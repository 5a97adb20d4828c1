package host

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"drover"
)

// toldOnce fails when events were told twice, or not at all, whatever was cut on the way of a wish.
func toldOnce(t *testing.T, events []drover.Event, wish wish, power bool) {
	t.Helper()
	count, seen, up := map[string]int{}, map[string]bool{}, false
	for _, e := range events {
		if seen[e.ID] {
			t.Errorf("event %s is there twice", e.ID)
		}
		seen[e.ID] = true
		count[e.Type]++
		switch e.Type {
		case "start":
			if up {
				t.Errorf("event %s: started twice without an end", e.ID)
			}
			up = true
		case "exit", "restart":
			up = false
		}
	}
	want := map[string]int{"launch": 1, "update": 0, "destroy": 0}
	switch wish.name {
	case "update":
		want["launch"], want["update"] = 2, 1
	case "destroy", "stop for good":
		want["destroy"] = 1
	case "create without launch":
		want["start"], want["exit"], want["stop"] = 0, 0, 0
	}
	if wish.name == "stop" && !power {
		want["start"], want["stop"], want["exit"] = 1, 1, 1
	}
	for kind, n := range want {
		if count[kind] != n {
			t.Errorf("%d events %q, want %d: %s", count[kind], kind, n, kinds(events))
		}
	}
}

func kinds(events []drover.Event) string {
	var all []string
	for _, e := range events {
		all = append(all, e.Type)
	}
	return strings.Join(all, " ")
}

// lastExit returns the newest exit as a client sees it.
func lastExit(t *testing.T, events []drover.Event) (request struct {
	RestartCount int  `json:"restart_count"`
	Stop         bool `json:"requested_stop"`
	ExitEvent    struct {
		ExitCode      int       `json:"exit_code"`
		GuestExitCode int       `json:"guest_exit_code"`
		GuestSignal   int       `json:"guest_signal"`
		Signal        int       `json:"signal"`
		OOMKilled     bool      `json:"oom_killed"`
		RequestedStop bool      `json:"requested_stop"`
		Restarting    bool      `json:"restarting"`
		ExitedAt      time.Time `json:"exited_at"`
	} `json:"exit_event"`
}) {
	t.Helper()
	for _, e := range events {
		if e.Type != "exit" {
			continue
		}
		b, err := json.Marshal(e.Request)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &request); err != nil {
			t.Fatal(err)
		}
	}
	return request
}

func TestExitEventsSayWhatClientsLookFor(t *testing.T) {
	for _, c := range []struct {
		name string
		vm   vmRecord
		auto bool
		want string
	}{
		{"code", vmRecord{MainStarted: true, Exit: &exitReport{Code: 3, At: t0}}, false, "3 3 -1 -1 oom=false stop=false restarting=true count=1"},
		{"signal", vmRecord{MainStarted: true, Exit: &exitReport{Code: 139, Signal: 11, At: t0}}, false, "139 139 11 -1 oom=false stop=false restarting=true count=1"},
		{"out of memory", vmRecord{MainStarted: true, Exit: &exitReport{Code: 137, Signal: 9, OOM: true, At: t0}}, false, "137 137 9 -1 oom=true stop=false restarting=true count=1"},
		{"success", vmRecord{MainStarted: true, Exit: &exitReport{At: t0}}, false, "0 0 -1 -1 oom=false stop=false restarting=false count=0"},
		{"stopped", vmRecord{MainStarted: true, StopAt: t0, StopWhy: whyUser, Exit: &exitReport{Code: 130, Signal: 2, At: t0}}, false, "130 130 2 -1 oom=false stop=true restarting=false count=0"},
		{"restarted", vmRecord{MainStarted: true, StopAt: t0, StopWhy: whyRestart, Exit: &exitReport{At: t0}}, false, "0 0 -1 -1 oom=false stop=true restarting=true count=0"},
		{"killed", vmRecord{MainStarted: true, StopAt: t0, StopWhy: whyUser, Killed: whyStop}, false, "-1 -1 -1 9 oom=false stop=true restarting=false count=0"},
		{"lost", vmRecord{MainStarted: true}, false, "-1 -1 -1 -1 oom=false stop=false restarting=true count=1"},
	} {
		m := drover.Machine{ID: "m1", Goal: drover.GoalStarted, Run: 7}
		c.vm.Live, c.vm.Launched, c.vm.Run, c.vm.At = true, true, 7, t0
		r := &records{Desired: &drover.ApplyRequest{Machine: m}, Obs: observed{VM: c.vm}}
		settle(r, end{at: t0, reason: "gone", watched: true}, t0.Add(time.Second))
		x := lastExit(t, r.Obs.Status.Events)
		e := x.ExitEvent
		got := fmt.Sprintf("%d %d %d %d oom=%v stop=%v restarting=%v count=%d", e.ExitCode, e.GuestExitCode, e.GuestSignal, e.Signal, e.OOMKilled, e.RequestedStop, e.Restarting, x.RestartCount)
		if got != c.want || !e.ExitedAt.Equal(t0) || x.Stop != e.RequestedStop {
			t.Errorf("%s: %s at %s, want %s", c.name, got, e.ExitedAt, c.want)
		}
	}
}

func TestAMachineThatDestroysItselfStaysReadable(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := w.host["h1"]
		h.boot = func(int) bootPlan { return bootPlan{start: time.Second, exit: time.Second, code: 3} }
		h.up(0)
		m := machineSpec("m1")
		m.Config.AutoDestroy, m.Config.Restart.Policy = true, drover.RestartNo
		h.create(m)
		s := w.awaitState("m1", drover.StateDestroyed)
		if got := kinds(s.Events); got != "launch start exit destroy" || lastExit(t, s.Events).ExitEvent.ExitCode != 3 {
			t.Errorf("events %s, exit %+v", got, lastExit(t, s.Events))
		}
		h.down()
		h.up(0)
		pass(time.Minute)
		if got := kinds(w.status["m1"].Events); got != "launch start exit destroy" {
			t.Errorf("after a restart of the agent: %s", got)
		}
	})
}

func TestAMachineThatIsNotLaunchedIsPreparedAndStopped(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := w.host["h1"]
		h.up(0)
		m := machineSpec("m1")
		m.Goal, m.Run = drover.GoalStopped, 0
		req := h.create(m)
		s := w.awaitState("m1", drover.StateStopped)
		if len(s.Events) != 1 || h.layers["root_m1"] == nil || h.booted != 0 {
			t.Errorf("events %s, booted %d times, %s", kinds(s.Events), h.booted, h.describe())
		}
		h.apply(&req, func(m *drover.Machine) { m.Goal, m.Run = drover.GoalStarted, 1 })
		w.awaitState("m1", drover.StateStarted)
		w.check()
	})
}

func TestChecksAreCriticalWhileNothingRuns(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := w.host["h1"]
		h.up(0)
		m := machineSpec("m1")
		m.Config.Checks = map[string]drover.Check{"up": {Type: drover.CheckTCP, Port: 1}}
		m.Config.Services = []drover.Service{{InternalPort: 80, Checks: []drover.Check{{Type: drover.CheckHTTP}}}}
		m.Goal, m.Run = drover.GoalStopped, 0
		h.create(m)
		s := w.awaitState("m1", drover.StateStopped)
		if len(s.Checks) != 2 || s.Checks[0].Name != "servicecheck-00-http-80" || s.Checks[0].Status != "critical" || s.Checks[1].Status != "critical" {
			t.Errorf("checks %+v", s.Checks)
		}
	})
}

func TestPsListsTheProcessesOfAMachineThatRuns(t *testing.T) {
	started(t, nil, func(t *testing.T, w *world, h *fakeHost, req *drover.ApplyRequest) {
		list, err := order[[]drover.Process](h, drover.OrderPs, drover.PsRequest{Machine: "m1"})
		if err != nil || len(list) != 1 || list[0].Command != "main" {
			t.Errorf("%+v, %v", list, err)
		}
		h.apply(req, func(m *drover.Machine) { m.Goal = drover.GoalStopped })
		w.awaitState("m1", drover.StateStopped)
		if _, err := order[[]drover.Process](h, drover.OrderPs, drover.PsRequest{Machine: "m1"}); !drover.Is(err, drover.Precondition) {
			t.Errorf("of a stopped machine: %v", err)
		}
	})
}
