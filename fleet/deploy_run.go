package fleet

import (
	"context"
	"reflect"
	"slices"
	"sync"
	"time"

	"drover"
	"drover/plan"
)

// deployer drives all deploys. It belongs to one goroutine; the changes of machines, which may take long, have their own.
type deployer struct {
	*Fleet
	changes sync.WaitGroup
	// tried wakes the loop when a change has come to its end.
	tried chan struct{}

	mu sync.Mutex
	// trying has the changes that are under way, and what the last try of each said.
	trying map[deployKey]*deployTry
}

type deployKey struct {
	deploy drover.DeployID
	item   int
}

// deployTry is a change: nextAt is when it may be tried again.
type deployTry struct {
	busy    bool
	refused *drover.Error
	nextAt  time.Time
	// log is the last that a command wrote, nil before it was read; unread counts how often that failed.
	log    []drover.LogLine
	unread int
}

// noteDeployEvery is how often a record is written when only its explanations change.
const noteDeployEvery = 2 * time.Second

// keepDeploys drives every deploy that has not ended, until ctx ends.
func (f *Fleet) keepDeploys(ctx context.Context) {
	r := &deployer{Fleet: f, tried: make(chan struct{}, 1), trying: map[deployKey]*deployTry{}}
	defer r.changes.Wait()
	for {
		deploys, status := f.state.deploys.next(anyKey), f.state.status.next(anyKey)
		active := 0
		for _, i := range f.state.deploys.all() {
			if i.value.Ended() {
				continue
			}
			active++
			if ctx.Err() != nil {
				return
			}
			if err := r.step(ctx, i.value.ID); err != nil && ctx.Err() == nil && !drover.Is(err, drover.Conflict) {
				f.log.Warn("deploy is looked at again later", "deploy", i.value.ID, "err", err)
			}
		}
		var tick <-chan time.Time
		if active == 0 {
			status = nil
		} else {
			tick = time.After(f.timing.Drain)
		}
		select {
		case <-ctx.Done():
			return
		case <-deploys:
		case <-status:
		case <-r.tried:
		case <-tick:
		}
	}
}

// step looks at one deploy, writes down what has become of it and whose turn it is, and changes those machines.
func (r *deployer) step(ctx context.Context, id drover.DeployID) error {
	d, rev, err := r.state.deploys.get(ctx, string(id))
	if err != nil || d.Ended() {
		return err
	}
	now := r.now().UTC()
	next, change := plan.NextDeploy(d, r.facts(d), now)
	if !reflect.DeepEqual(d, next) && (!reflect.DeepEqual(plainDeploy(d), plainDeploy(next)) || now.Sub(d.UpdatedAt) >= noteDeployEvery) {
		next.UpdatedAt = now
		r.hit("fleet.deploy.save.before")
		if _, err := r.state.deploys.update(ctx, string(id), next, rev); err != nil {
			return err
		}
		r.hit("fleet.deploy.save.after")
		r.tell(d, next)
	}
	if next.Ended() {
		r.forget(id)
	}
	for _, k := range change {
		r.change(ctx, next, k)
	}
	return nil
}

// tell logs what has changed.
func (r *deployer) tell(before, now drover.Deploy) {
	for k, i := range now.Items {
		if old := before.Items[k].State; old != i.State {
			r.log.Info("machine of a deploy", "deploy", now.ID, "app", now.App, "machine", i.Called(), "from", old, "to", i.State, "why", i.Reason)
		}
	}
	if before.State != now.State {
		r.log.Info("deploy goes on", "deploy", now.ID, "app", now.App, "from", before.State, "to", now.State, "err", now.Problem)
	}
}

// plainDeploy is a record without its explanations.
func plainDeploy(d drover.Deploy) drover.Deploy {
	items := make([]drover.DeployItem, len(d.Items))
	for k, i := range d.Items {
		i.Reason = ""
		items[k] = i
	}
	d.Items, d.Waits, d.UpdatedAt = items, "", time.Time{}
	return d
}

// facts puts together what is known of the machines.
func (r *deployer) facts(d drover.Deploy) plan.DeployFacts {
	facts := plan.DeployFacts{Items: make([]plan.DeployFact, len(d.Items)), Rival: r.rivalDeploy(d)}
	var made map[string]drover.MachineID // by name
	for k, i := range d.Items {
		if i.Machine == "" {
			if made == nil {
				made = r.madeBy(d)
			}
			i.Machine = made[i.Name]
		}
		facts.Items[k] = r.fact(d, i)
		r.mu.Lock()
		if try := r.trying[deployKey{d.ID, k}]; try != nil && !try.busy {
			facts.Items[k].Refused, facts.Items[k].Log = try.refused, try.log
		}
		r.mu.Unlock()
	}
	return facts
}

func (r *deployer) fact(d drover.Deploy, i drover.DeployItem) plan.DeployFact {
	v, err := r.view(d.App, i.Machine)
	if i.Machine == "" || err != nil || v.Machine.Goal == drover.GoalDestroyed {
		return plan.DeployFact{Applied: i.Action == drover.DeployDestroy}
	}
	m := v.Machine
	fact := plan.DeployFact{Machine: m.ID, Goal: m.Goal, Instance: m.Instance, Run: m.Run, Status: v.Status, Reachable: v.HostStatus == drover.HostOK}
	switch i.Action {
	case drover.DeployCreate, drover.DeployUpdate, drover.DeployRun:
		fact.Applied = m.Config.Metadata[drover.LabelDeploy] == string(d.ID)
	case drover.DeployRestart:
		fact.Applied = i.UnderWay() && m.Run > i.Run
	}
	return fact
}

// madeBy returns the machines that the deploy has made, by name: a controller that died may have made them without writing it down.
func (r *deployer) madeBy(d drover.Deploy) map[string]drover.MachineID {
	made := map[string]drover.MachineID{}
	r.state.mu.RLock()
	defer r.state.mu.RUnlock()
	for key := range r.state.machinesOf[d.App] {
		m := r.state.machines.items[key].value
		if m.Config.Metadata[drover.LabelDeploy] == string(d.ID) && m.Goal != drover.GoalDestroyed {
			made[m.Name] = m.ID
		}
	}
	return made
}

// change tries to change a machine, beside everything else. What comes of it is seen at a later look.
func (r *deployer) change(ctx context.Context, d drover.Deploy, k int) {
	key := deployKey{d.ID, k}
	r.mu.Lock()
	defer r.mu.Unlock()
	try := r.trying[key]
	if try == nil {
		try = &deployTry{}
		r.trying[key] = try
	}
	if try.busy || r.now().Before(try.nextAt) {
		return
	}
	try.busy = true
	r.changes.Go(func() {
		point := "fleet.deploy." + string(d.Items[k].Action)
		act := r.act
		if d.Items[k].State == drover.DeployItemClearing {
			point, act = "fleet.deploy.clear", func(ctx context.Context, d drover.Deploy, i drover.DeployItem) error { return r.clear(ctx, d, i, try) }
		}
		r.hit(point + ".before")
		err := act(ctx, d, d.Items[k])
		if err == nil {
			r.hit(point + ".after")
		}
		r.mu.Lock()
		try.busy, try.refused, try.nextAt = false, nil, r.now().Add(r.timing.Drain)
		if err != nil && ctx.Err() == nil {
			try.refused = drover.AsError(err)
			r.log.Info("machine of a deploy is not changed now", "deploy", d.ID, "machine", d.Items[k].Called(), "err", err)
		}
		r.mu.Unlock()
		select {
		case r.tried <- struct{}{}:
		default:
		}
	})
}

// forget drops what was kept of a deploy that has ended.
func (r *deployer) forget(id drover.DeployID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range r.trying {
		if key.deploy == id {
			delete(r.trying, key)
		}
	}
}

// act changes a machine. It may be repeated. A machine that somebody has leased is not changed: the deploy asks again until the lease is over, or
// the item's time.
func (r *deployer) act(ctx context.Context, d drover.Deploy, i drover.DeployItem) error {
	if i.Action != drover.DeployCreate && i.Action != drover.DeployRun {
		if err := r.GuardMachine(ctx, d.App, i.Machine, ""); err != nil {
			return err
		}
	}
	switch i.Action {
	case drover.DeployCreate, drover.DeployRun:
		_, err := r.CreateMachine(ctx, CreateMachine{App: d.App, Name: i.Name, Region: i.Region, Config: *i.Config})
		return err
	case drover.DeployUpdate:
		v, err := r.view(d.App, i.Machine)
		if err != nil {
			return err
		}
		_, err = r.UpdateMachine(ctx, UpdateMachine{App: d.App, Machine: i.Machine, Config: *i.Config, SkipLaunch: v.Machine.Goal == drover.GoalStopped})
		return err
	case drover.DeployRestart:
		_, err := r.RestartMachine(ctx, d.App, i.Machine, drover.StopConfig{})
		return err
	case drover.DeployDestroy:
		return r.DestroyMachine(ctx, d.App, i.Machine, true)
	}
	return drover.Errorf(drover.Internal, "deploy %s asks for %q, which this version does not know", d.ID, i.Action)
}

// What is kept of a command's log, with its deploy.
const (
	runLogLines  = 100
	runLogBytes  = 16 << 10
	runLogTries  = 3
	runLineBytes = 1 << 10
)

// clear reads the last that a command wrote, and once that is in the record destroys its machine. A log that cannot be read is given up.
func (r *deployer) clear(ctx context.Context, d drover.Deploy, i drover.DeployItem, try *deployTry) error {
	if i.LogRead {
		return r.DestroyMachine(ctx, d.App, i.Machine, true)
	}
	answer, err := r.MachineLogs(ctx, d.App, drover.LogsRequest{Machine: i.Machine, Offset: -1, Tail: runLogLines})
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		if try.unread++; try.unread < runLogTries && ctx.Err() == nil {
			return err
		}
		r.log.Warn("the log of a command of a deploy is lost", "deploy", d.ID, "machine", i.Called(), "err", err)
	}
	try.log = lastLines(answer.Lines)
	return nil
}

// lastLines are as many of the last lines as are kept; never nil.
func lastLines(lines []drover.LogLine) []drover.LogLine {
	kept, bytes := []drover.LogLine{}, 0
	for _, line := range slices.Backward(lines) {
		line.Text = line.Text[:min(len(line.Text), runLineBytes)]
		if bytes += len(line.Text); bytes > runLogBytes {
			break
		}
		kept = append(kept, line)
	}
	slices.Reverse(kept)
	return kept
}

// DeployFaultPoints names the places at which a fault can strike whoever makes or drives a deploy: before and after each write and each change.
func DeployFaultPoints() []string {
	points := []string{"fleet.deploy.record.after", "fleet.deploy.save.before", "fleet.deploy.save.after"}
	for _, action := range []drover.DeployAction{drover.DeployCreate, drover.DeployUpdate, drover.DeployRestart, drover.DeployDestroy, drover.DeployRun, "clear"} {
		points = append(points, "fleet.deploy."+string(action)+".before", "fleet.deploy."+string(action)+".after")
	}
	return points
}
