package fleet

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"drover"
)

// deploy begins a deploy of the app shop.
func (w *world) deploy(n *node, items ...drover.DeployItem) drover.Deploy {
	w.t.Helper()
	d, err := n.CreateDeploy(w.t.Context(), StartDeploy{App: "shop", Actor: "ann", Text: "busybox", Items: items,
		Options: drover.DeployOptions{WaitTimeout: drover.Duration(20 * time.Second)}})
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// deployed waits until a deploy has ended.
func (w *world) deployed(n *node, id drover.DeployID) drover.Deploy {
	w.t.Helper()
	var d drover.Deploy
	w.eventually("deploy "+string(id)+" has ended", func() bool {
		var err error
		d, err = n.Deploy(w.t.Context(), "shop", id)
		return err == nil && d.Ended()
	})
	return d
}

func updateItem(id drover.MachineID, env string) drover.DeployItem {
	return drover.DeployItem{Action: drover.DeployUpdate, Machine: id, Group: "app",
		Config: &drover.MachineConfig{Image: "busybox", Env: map[string]string{"V": env}, Guest: drover.Guest{MemoryMB: 512}}}
}

func TestADeployChangesCreatesRestartsAndDestroys(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ids := w.machines(n, "h1", 3, nil)
	restarted, err := n.Machine(t.Context(), "shop", ids[1])
	if err != nil {
		t.Fatal(err)
	}
	d := w.deploy(n, updateItem(ids[0], "two"), drover.DeployItem{Action: drover.DeployRestart, Machine: ids[1]},
		drover.DeployItem{Action: drover.DeployDestroy, Machine: ids[2]},
		drover.DeployItem{Action: drover.DeployCreate, Name: "web-new", Region: "ams", Group: "web", Config: &drover.MachineConfig{Image: "busybox"}})
	if _, err := n.CreateDeploy(t.Context(), StartDeploy{App: "shop", Items: []drover.DeployItem{updateItem(ids[0], "rival")}}); !drover.Is(err, drover.Conflict) {
		t.Errorf("a second deploy of the app: %v", err)
	}
	if d = w.deployed(n, d.ID); d.State != drover.DeployDone {
		t.Fatalf("%+v, %v", d, d.Problem)
	}
	now, err := n.Machines(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range now {
		m := v.Machine
		switch {
		case m.ID == ids[0] && (m.Config.Env["V"] != "two" || m.Config.Metadata[drover.LabelProcessGroup] != "app" || m.Config.Metadata[drover.LabelDeploy] != string(d.ID)):
			t.Errorf("updated: %+v", m)
		case m.ID == ids[1] && m.Run != restarted.Machine.Run+1:
			t.Errorf("restarted: run %d after %d", m.Run, restarted.Machine.Run)
		case m.ID == ids[2] && m.Goal != drover.GoalDestroyed:
			t.Errorf("destroyed: %+v", m)
		case m.ID == d.Items[3].Machine && (m.Name != "web-new" || v.Status.State != drover.StateStarted):
			t.Errorf("created: %+v", v)
		}
	}
	if _, err := n.Machine(t.Context(), "shop", d.Items[3].Machine); err != nil {
		t.Error(err)
	}
}

// TestADeployWaitsForALease: a machine that somebody has leased is left alone until the lease is over, and who has it is told meanwhile.
func TestADeployWaitsForALease(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ids := w.machines(n, "h1", 1, nil)
	lease, err := n.LeaseMachine(t.Context(), LeaseMachine{App: "shop", Machine: ids[0], Owner: "bob", TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	d := w.deploy(n, updateItem(ids[0], "two"))
	w.eventually("the deploy tells whose lease it waits for", func() bool {
		d, err := n.Deploy(t.Context(), "shop", d.ID)
		return err == nil && strings.Contains(d.Items[0].Reason, "lease currently held by bob")
	})
	if v, err := n.Machine(t.Context(), "shop", ids[0]); err != nil || v.Machine.Config.Env["V"] == "two" || v.Machine.Run != 1 {
		t.Fatalf("a leased machine was changed: %+v, %v", v.Machine, err)
	}
	if err := n.ReleaseMachine(t.Context(), "shop", ids[0], lease.Nonce); err != nil {
		t.Fatal(err)
	}
	if d = w.deployed(n, d.ID); d.State != drover.DeployDone {
		t.Fatalf("%+v, %v", d, d.Problem)
	}
	if v, err := n.Machine(t.Context(), "shop", ids[0]); err != nil || v.Machine.Config.Env["V"] != "two" {
		t.Errorf("%+v, %v", v.Machine, err)
	}
}

func TestWhatIsWrongWithADeployIsRefusedBefore(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machines(n, "h1", 1, nil)[0]
	bad := updateItem(id, "x")
	bad.Config = &drover.MachineConfig{}
	small := updateItem(id, "x")
	small.Config = &drover.MachineConfig{Image: "a", Guest: drover.Guest{MemoryMB: 7}}
	restart := drover.DeployItem{Action: drover.DeployRestart, Machine: id}
	for name, c := range map[string]struct {
		items   []drover.DeployItem
		options drover.DeployOptions
		code    drover.Code
		text    string
	}{
		"nothing":       {nil, drover.DeployOptions{}, drover.Invalid, "items"},
		"no image":      {[]drover.DeployItem{bad}, drover.DeployOptions{}, drover.Invalid, "image"},
		"memory":        {[]drover.DeployItem{small}, drover.DeployOptions{}, drover.Invalid, "): config.guest.memory_mb: 7 is too small: at least 96"},
		"no config":     {[]drover.DeployItem{{Action: drover.DeployUpdate, Machine: id}}, drover.DeployOptions{}, drover.Invalid, "config is missing"},
		"no machine":    {[]drover.DeployItem{{Action: drover.DeployRestart, Machine: "00000000000000"}}, drover.DeployOptions{}, drover.NotFound, ""},
		"no action":     {[]drover.DeployItem{{Machine: id}}, drover.DeployOptions{}, drover.Invalid, "expected create, update, restart, destroy or run"},
		"no name":       {[]drover.DeployItem{{Action: drover.DeployCreate, Config: &drover.MachineConfig{Image: "a"}}}, drover.DeployOptions{}, drover.Invalid, "needs a name"},
		"twice":         {[]drover.DeployItem{restart, restart}, drover.DeployOptions{}, drover.Invalid, "the same machine"},
		"a strategy":    {[]drover.DeployItem{restart}, drover.DeployOptions{Strategy: "canary"}, drover.Invalid, "strategy"},
		"unavailable":   {[]drover.DeployItem{restart}, drover.DeployOptions{MaxUnavailable: -1}, drover.Invalid, "max_unavailable"},
		"no time":       {[]drover.DeployItem{restart}, drover.DeployOptions{WaitTimeout: 1}, drover.Invalid, "wait_timeout"},
		"two commands":  {[]drover.DeployItem{runItemOf("a", "0"), runItemOf("b", "0")}, drover.DeployOptions{}, drover.Invalid, "one at most"},
		"a volume":      {[]drover.DeployItem{{Action: drover.DeployRun, Name: "a", Config: &drover.MachineConfig{Image: "a", Mounts: []drover.Mount{{Volume: "vol_0", Path: "/d"}}}}}, drover.DeployOptions{}, drover.Invalid, "no volumes"},
		"a time":        {[]drover.DeployItem{{Action: drover.DeployRestart, Machine: id, Timeout: 1e9}}, drover.DeployOptions{}, drover.Invalid, "timeout"},
		"config of one": {[]drover.DeployItem{{Action: drover.DeployRestart, Machine: id, Config: &drover.MachineConfig{}}}, drover.DeployOptions{}, drover.Invalid, "nothing gets a config"},
	} {
		_, err := n.CreateDeploy(t.Context(), StartDeploy{App: "shop", Items: c.items, Options: c.options})
		if !drover.Is(err, c.code) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if all, err := n.Deploys(t.Context(), "shop"); err != nil || len(all) != 0 {
		t.Errorf("left: %+v, %v", all, err)
	}
	if _, err := n.Deploy(t.Context(), "shop", "dpl_none"); !drover.Is(err, drover.NotFound) {
		t.Error(err)
	}
}

func TestAnAbortedDeployLeavesTheRest(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ids := w.machines(n, "h1", 2, nil)
	w.hosts["h1"].failing(drover.Unavailable, false, drover.OrderResolve)
	d := w.deploy(n, updateItem(ids[0], "two"), updateItem(ids[1], "two"))
	w.eventually("the first waits for its host", func() bool {
		d, err := n.Deploy(t.Context(), "shop", d.ID)
		return err == nil && d.Items[0].Reason != ""
	})
	if _, err := n.AbortDeploy(t.Context(), "shop", d.ID); err != nil {
		t.Fatal(err)
	}
	w.hosts["h1"].failing("", false)
	d = w.deployed(n, d.ID)
	if d.State != drover.DeployAborted || d.Items[0].State != drover.DeployItemDone || d.Items[1].State != drover.DeployItemLeft {
		t.Errorf("%+v", d)
	}
	if _, err := n.AbortDeploy(t.Context(), "shop", d.ID); err != nil {
		t.Errorf("asked again: %v", err)
	}
}

// TestAControllerMayDieAnywhereInADeploy kills the controller at fault points of a deploy (at every third without -walk-all: a round takes five seconds), and looks at the
// end: everything was done once.
func TestAControllerMayDieAnywhereInADeploy(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	kept := w.machines(n, "h1", 2, nil)
	for round, point := range DeployFaultPoints() {
		if !*walkAll && round%3 != 0 {
			continue
		}
		gone := w.machines(n, "h2", 1, nil)[0]
		before, err := n.Machine(t.Context(), "shop", kept[1])
		if err != nil {
			t.Fatal(err)
		}
		known, err := n.Deploys(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		n.kill()
		n = w.control("c1", killOnce(point))
		value, name := fmt.Sprint("v", round), fmt.Sprint("web-", round)
		var group sync.WaitGroup
		group.Go(func() { // it may be cut off in the middle
			_, _ = n.CreateDeploy(t.Context(), StartDeploy{App: "shop", Text: point, Options: drover.DeployOptions{MaxUnavailable: 2},
				Items: []drover.DeployItem{updateItem(kept[0], value), {Action: drover.DeployRestart, Machine: kept[1]},
					{Action: drover.DeployCreate, Name: name, Config: &drover.MachineConfig{Image: "busybox"}}, {Action: drover.DeployDestroy, Machine: gone},
					runItemOf("run-"+name, "0")}})
		})
		w.eventually("the death at "+point, n.isDead)
		n.kill()
		group.Wait()
		n = w.control("c1", nil)
		var all []drover.Deploy
		w.eventually("the deploy is on record", func() bool {
			all, err = n.Deploys(t.Context(), "shop")
			return err == nil && len(all) == len(known)+1
		})
		d := w.deployed(n, all[0].ID)
		if d.State != drover.DeployDone || d.Text != point {
			t.Fatalf("%s: %+v, %v", point, d, d.Problem)
		}
		views, err := n.Machines(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		made := 0
		for _, v := range views {
			m := v.Machine
			if m.Name == name {
				made++
			}
			if m.Name == "run-"+name && m.Goal != drover.GoalDestroyed {
				t.Errorf("%s: the command's machine is left", point)
			}
			// A restart or an update whose acknowledgement was lost is not made twice.
			if m.ID == kept[1] && m.Run != before.Machine.Run+1 || m.ID == kept[0] && m.Config.Env["V"] != value || m.ID == gone && m.Goal != drover.GoalDestroyed {
				t.Errorf("%s: %+v", point, m)
			}
		}
		if made != 1 {
			t.Errorf("%s: %d machines were made", point, made)
		}
		if err := n.DestroyMachine(t.Context(), "shop", d.Items[2].Machine, true); err != nil {
			t.Fatal(err)
		}
	}
}

func runItemOf(name, exit string) drover.DeployItem {
	return drover.DeployItem{Action: drover.DeployRun, Name: name, Config: &drover.MachineConfig{Image: "busybox", Env: map[string]string{"EXIT": exit},
		Restart: drover.Restart{Policy: drover.RestartAlways}, Checks: map[string]drover.Check{"up": {Type: "tcp", Port: 80}}}}
}

// machinesOfGroup are the machines of a process group that are not on their way out.
func (w *world) machinesOfGroup(n *node, group string) (found []drover.Machine) {
	w.t.Helper()
	views, err := n.Machines(w.t.Context(), "shop")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, v := range views {
		if v.Machine.Config.Metadata[drover.LabelProcessGroup] == group && v.Machine.Goal != drover.GoalDestroyed {
			found = append(found, v.Machine)
		}
	}
	return found
}

// A command runs before anything else is changed, once, in a machine that serves nobody; how it ended decides, what it said is kept, and its machine is
// gone afterwards.
func TestACommandRunsBeforeADeploy(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machines(n, "h1", 1, nil)[0]
	for exit, want := range map[string]struct {
		state drover.DeployState
		item  drover.DeployItemState
		text  string
	}{"0": {drover.DeployDone, drover.DeployItemDone, ""}, "3": {drover.DeployFailed, drover.DeployItemLeft, "its command ended with exit code 3"}} {
		d := w.deploy(n, updateItem(id, "after "+exit), runItemOf("release-"+exit, exit))
		if c := d.Items[1].Config; c.Restart.Policy != drover.RestartNo || len(c.Checks) > 0 || c.Env["RELEASE_COMMAND"] != "1" || c.Metadata[drover.LabelProcessGroup] != drover.ReleaseGroup {
			t.Errorf("%+v", c)
		}
		d = w.deployed(n, d.ID)
		run := d.Items[1]
		if d.State != want.state || d.Items[0].State != want.item || run.ExitCode == nil || fmt.Sprint(*run.ExitCode) != exit {
			t.Errorf("%s: %+v, %v", exit, d, d.Problem)
		}
		if want.text != "" && (d.Problem == nil || !strings.Contains(d.Problem.Text, want.text)) {
			t.Errorf("%s: %v", exit, d.Problem)
		}
		if len(run.Log) != 1 || run.Log[0].Text != "said by "+string(run.Machine) {
			t.Errorf("%s: what it said is not kept: %+v", exit, run.Log)
		}
		if left := w.machinesOfGroup(n, drover.ReleaseGroup); len(left) > 0 {
			t.Errorf("%s: left: %+v", exit, left)
		}
	}
	if v, err := n.Machine(t.Context(), "shop", id); err != nil || v.Machine.Config.Env["V"] != "after 0" {
		t.Errorf("%+v, %v", v.Machine.Config.Env, err)
	}
}

// A command that does not end is ended by its time, or by an abort.
func TestACommandThatHangsIsEnded(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machines(n, "h1", 1, nil)[0]
	hangs := runItemOf("hangs", "never")
	hangs.Timeout = drover.Duration(time.Second)
	d := w.deployed(n, w.deploy(n, hangs, updateItem(id, "x")).ID)
	if d.State != drover.DeployFailed || !strings.Contains(d.Problem.Text, "its command has not ended after 1s") || d.Items[1].State != drover.DeployItemLeft {
		t.Errorf("%+v, %v", d, d.Problem)
	}
	d = w.deploy(n, runItemOf("hangs-on", "never"), updateItem(id, "x"))
	w.eventually("it runs", func() bool {
		d, err := n.Deploy(t.Context(), "shop", d.ID)
		return err == nil && d.Items[0].State == drover.DeployItemChecking
	})
	if _, err := n.AbortDeploy(t.Context(), "shop", d.ID); err != nil {
		t.Fatal(err)
	}
	if d = w.deployed(n, d.ID); d.State != drover.DeployAborted || d.Items[1].State != drover.DeployItemLeft || d.Items[0].Reason != "the deploy was aborted" {
		t.Errorf("%+v, %v", d, d.Problem)
	}
	if left := w.machinesOfGroup(n, drover.ReleaseGroup); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
}
