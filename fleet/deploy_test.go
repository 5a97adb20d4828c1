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

func TestWhatIsWrongWithADeployIsRefusedBefore(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	id := w.machines(n, "h1", 1, nil)[0]
	bad := updateItem(id, "x")
	bad.Config = &drover.MachineConfig{}
	restart := drover.DeployItem{Action: drover.DeployRestart, Machine: id}
	for name, c := range map[string]struct {
		items   []drover.DeployItem
		options drover.DeployOptions
		code    drover.Code
		text    string
	}{
		"nothing":       {nil, drover.DeployOptions{}, drover.Invalid, "items"},
		"no image":      {[]drover.DeployItem{bad}, drover.DeployOptions{}, drover.Invalid, "image"},
		"no config":     {[]drover.DeployItem{{Action: drover.DeployUpdate, Machine: id}}, drover.DeployOptions{}, drover.Invalid, "config is missing"},
		"no machine":    {[]drover.DeployItem{{Action: drover.DeployRestart, Machine: "00000000000000"}}, drover.DeployOptions{}, drover.NotFound, ""},
		"no action":     {[]drover.DeployItem{{Machine: id}}, drover.DeployOptions{}, drover.Invalid, "expected create, update, restart or destroy"},
		"no name":       {[]drover.DeployItem{{Action: drover.DeployCreate, Config: &drover.MachineConfig{Image: "a"}}}, drover.DeployOptions{}, drover.Invalid, "needs a name"},
		"twice":         {[]drover.DeployItem{restart, restart}, drover.DeployOptions{}, drover.Invalid, "the same machine"},
		"a strategy":    {[]drover.DeployItem{restart}, drover.DeployOptions{Strategy: "canary"}, drover.Invalid, "strategy"},
		"unavailable":   {[]drover.DeployItem{restart}, drover.DeployOptions{MaxUnavailable: -1}, drover.Invalid, "max_unavailable"},
		"no time":       {[]drover.DeployItem{restart}, drover.DeployOptions{WaitTimeout: 1}, drover.Invalid, "wait_timeout"},
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

// TestAControllerMayDieAnywhereInADeploy kills the controller at every fault point of a deploy, and looks at the end: everything was done once.
func TestAControllerMayDieAnywhereInADeploy(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	kept := w.machines(n, "h1", 2, nil)
	for round, point := range DeployFaultPoints() {
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
					{Action: drover.DeployCreate, Name: name, Config: &drover.MachineConfig{Image: "busybox"}}, {Action: drover.DeployDestroy, Machine: gone}}})
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
