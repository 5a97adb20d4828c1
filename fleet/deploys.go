package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"drover"
)

const (
	// maxDeployBytes bounds the record of a deploy: it is one message of the bus.
	maxDeployBytes = 3 << 20
	// maxDeployWait bounds how long a deploy may wait for one machine.
	maxDeployWait = drover.Duration(24 * time.Hour)
	// keptDeploys is how many ended deploys of an app are kept.
	keptDeploys = 20
)

// StartDeploy asks for a deploy. Of the items Action, Machine or Name, Region, Group and Config count.
type StartDeploy struct {
	App     drover.AppName
	Actor   string
	Text    string
	Options drover.DeployOptions
	Items   []drover.DeployItem
}

// CreateDeploy begins a deploy, and answers when its record is written: from then on it goes on by itself, whoever dies. What is wrong with it is
// refused before anything is begun. Conflict while another deploy of the app has not ended.
func (f *Fleet) CreateDeploy(ctx context.Context, req StartDeploy) (drover.Deploy, error) {
	if err := f.await(ctx); err != nil {
		return drover.Deploy{}, err
	}
	if _, err := f.readApp(ctx, req.App); err != nil {
		return drover.Deploy{}, err
	}
	now := f.now().UTC()
	d := drover.Deploy{ID: drover.NewDeployID(), App: req.App, Actor: req.Actor, Text: req.Text, Options: req.Options, State: drover.DeployRunning,
		CreatedAt: now, UpdatedAt: now}
	if err := checkDeployOptions(&d.Options); err != nil {
		return drover.Deploy{}, err
	}
	if rival := f.rivalDeploy(d); rival != "" {
		return drover.Deploy{}, drover.Errorf(drover.Conflict, "app %q is being deployed by %s", d.App, rival).
			WithHint("'drover deploy follow %s' shows how far it is, 'drover deploy abort %s' ends it", rival, rival)
	}
	if err := f.fillDeploy(ctx, &d, req.Items); err != nil {
		return drover.Deploy{}, err
	}
	if data, err := json.Marshal(d); err != nil || len(data) > maxDeployBytes {
		return drover.Deploy{}, drover.Errorf(drover.Invalid, "items: the configs of %d machines have %d bytes together; expected %d at most (%v)", len(d.Items),
			len(data), maxDeployBytes, err).WithField("items")
	}
	if _, err := f.state.deploys.create(ctx, string(d.ID), d); err != nil {
		return drover.Deploy{}, err
	}
	f.hit("fleet.deploy.record.after")
	f.log.Info("deploy begun", "deploy", d.ID, "app", d.App, "machines", len(d.Items), "actor", d.Actor, "text", d.Text)
	f.forgetDeploys(ctx, d.App)
	return d, nil
}

func checkDeployOptions(o *drover.DeployOptions) error {
	o.Strategy = cmp.Or(o.Strategy, drover.StrategyRolling)
	o.MaxUnavailable = cmp.Or(o.MaxUnavailable, 1)
	o.WaitTimeout = cmp.Or(o.WaitTimeout, drover.DefaultDeployWait)
	switch {
	case o.Strategy != drover.StrategyRolling && o.Strategy != drover.StrategyImmediate:
		return drover.Errorf(drover.Invalid, "strategy is %q; expected %q or %q", o.Strategy, drover.StrategyRolling, drover.StrategyImmediate).WithField("strategy")
	case o.MaxUnavailable < 1 || o.MaxUnavailable > drover.MaxDeployItems:
		return drover.Errorf(drover.Invalid, "max_unavailable is %d; expected 1 to %d", o.MaxUnavailable, drover.MaxDeployItems).WithField("max_unavailable")
	case o.WaitTimeout < drover.Duration(time.Second) || o.WaitTimeout > maxDeployWait:
		return drover.Errorf(drover.Invalid, "wait_timeout is %v; expected 1s to %v", time.Duration(o.WaitTimeout), time.Duration(maxDeployWait)).WithField("wait_timeout")
	}
	return nil
}

// fillDeploy checks the items and makes them those of the record.
func (f *Fleet) fillDeploy(ctx context.Context, d *drover.Deploy, items []drover.DeployItem) error {
	if len(items) == 0 || len(items) > drover.MaxDeployItems {
		return drover.Errorf(drover.Invalid, "items: a deploy of %d machines; expected 1 to %d", len(items), drover.MaxDeployItems).WithField("items")
	}
	seen := map[string]int{}
	for k, item := range items {
		field := fmt.Sprintf("items[%d]", k)
		fresh := drover.DeployItem{Action: item.Action, Machine: item.Machine, Name: item.Name, Region: item.Region, Group: item.Group, Config: item.Config,
			Timeout: item.Timeout, State: drover.DeployItemWaiting}
		if other := slices.IndexFunc(d.Items, isRun); other >= 0 && isRun(fresh) {
			return drover.Errorf(drover.Invalid, "%s runs a command, as items[%d] does; expected one at most", field, other).WithField(field + ".action")
		}
		if err := f.checkDeployItem(ctx, d, field, &fresh); err != nil {
			return err
		}
		key := cmp.Or(string(fresh.Machine), "name "+fresh.Name)
		if other, twice := seen[key]; twice {
			return drover.Errorf(drover.Invalid, "%s is the same machine as items[%d]", field, other).WithField(field)
		}
		seen[key] = k
		d.Items = append(d.Items, fresh)
	}
	return nil
}

func (f *Fleet) checkDeployItem(ctx context.Context, d *drover.Deploy, field string, i *drover.DeployItem) error {
	var has *drover.Guest // what a machine is already, it may stay
	switch i.Action {
	case drover.DeployCreate, drover.DeployRun:
		if i.Machine != "" || !drover.ValidName(i.Name) {
			return drover.Errorf(drover.Invalid, "%s creates a machine: it needs a name of lower-case letters, digits and dashes (it is %q), and no ID", field, i.Name).
				WithField(field + ".name")
		}
		if err := f.nameFree(ctx, d.App, i.Name); err != nil {
			return err
		}
	case drover.DeployUpdate, drover.DeployRestart, drover.DeployDestroy:
		v, err := f.view(d.App, i.Machine)
		if err != nil {
			return err
		}
		if v.Machine.Goal == drover.GoalDestroyed {
			return drover.Errorf(drover.NotFound, "%s: machine %q was destroyed", field, i.Machine).WithField(field + ".machine")
		}
		i.Name, i.Region, has = v.Machine.Name, v.Machine.Region, &v.Machine.Config.Guest
	default:
		return drover.Errorf(drover.Invalid, "%s.action is %q; expected create, update, restart, destroy or run", field, i.Action).WithField(field + ".action")
	}
	changes := i.Action == drover.DeployCreate || i.Action == drover.DeployUpdate || isRun(*i)
	switch {
	case !isRun(*i) && i.Timeout != 0:
		return drover.Errorf(drover.Invalid, "%s.timeout: it bounds a command that is run, and nothing is run by %s", field, i.Action).WithField(field + ".timeout")
	case !changes && i.Config != nil:
		return drover.Errorf(drover.Invalid, "%s.config: nothing gets a config by %s", field, i.Action).WithField(field + ".config")
	case !changes:
		return nil
	case i.Config == nil:
		return drover.Errorf(drover.Invalid, "%s.config is missing", field).WithField(field + ".config")
	}
	config := *i.Config
	if config.Metadata = maps.Clone(config.Metadata); config.Metadata == nil {
		config.Metadata = map[string]string{}
	}
	config.Metadata[drover.LabelDeploy] = string(d.ID)
	if isRun(*i) {
		if err := runItem(field, i, &config); err != nil {
			return err
		}
	}
	if i.Group != "" {
		config.Metadata[drover.LabelProcessGroup] = i.Group
	}
	config = config.WithDefaults()
	data, err := json.Marshal(config)
	if err != nil {
		return drover.Errorf(drover.Invalid, "%s.config: %w", field, err).WithField(field + ".config")
	}
	if err := checkConfig(config, len(data)); err != nil {
		return deployItemError(field, i, err)
	}
	if err := f.checkSize("config.guest", config.Guest, has); err != nil {
		return deployItemError(field, i, err)
	}
	i.Config = &config
	return nil
}

// deployItemError says which machine it is whose config is wrong; the field says which item.
func deployItemError(field string, i *drover.DeployItem, err error) error {
	e := drover.AsError(err)
	return drover.Errorf(e.Code, "machine %s: %w", i.Called(), e).WithField(field+"."+cmp.Or(e.Field, "config")).WithHint("%s", e.Hint)
}

func isRun(i drover.DeployItem) bool { return i.Action == drover.DeployRun }

// runItem makes the config of a machine one that runs a command to its end: it is not started again, serves nobody, and does nothing by a schedule.
func runItem(field string, i *drover.DeployItem, config *drover.MachineConfig) error {
	if len(config.Mounts) > 0 {
		return drover.Errorf(drover.Invalid, "%s.config.mounts: a machine that runs a command before a deploy has no volumes", field).WithField(field + ".config.mounts")
	}
	if i.Timeout = cmp.Or(i.Timeout, drover.DefaultDeployWait); i.Timeout < drover.Duration(time.Second) || i.Timeout > maxDeployWait {
		return drover.Errorf(drover.Invalid, "%s.timeout is %v; expected 1s to %v", field, time.Duration(i.Timeout), time.Duration(maxDeployWait)).WithField(field + ".timeout")
	}
	i.Group = drover.ReleaseGroup
	config.Restart, config.Schedule, config.Standbys, config.Services, config.Checks = drover.Restart{Policy: drover.RestartNo}, "", nil, nil, nil
	config.AutoDestroy = false // by the deploy, when its log was read
	if config.Env = maps.Clone(config.Env); config.Env == nil {
		config.Env = map[string]string{}
	}
	config.Env["RELEASE_COMMAND"], config.Env["FLY_PROCESS_GROUP"] = "1", drover.ReleaseGroup
	return nil
}

// rivalDeploy returns the deploy of the app that was begun before and has not ended.
func (f *Fleet) rivalDeploy(d drover.Deploy) drover.DeployID {
	for _, i := range f.state.deploys.all() {
		other := i.value
		older := other.CreatedAt.Before(d.CreatedAt) || other.CreatedAt.Equal(d.CreatedAt) && other.ID < d.ID
		if other.App == d.App && other.ID != d.ID && !other.Ended() && older {
			return other.ID
		}
	}
	return ""
}

// forgetDeploys removes the oldest records of an app. What cannot be removed now is at the next deploy.
func (f *Fleet) forgetDeploys(ctx context.Context, app drover.AppName) {
	all, err := f.Deploys(ctx, app)
	if err != nil || len(all) <= keptDeploys {
		return
	}
	for _, d := range all[keptDeploys:] {
		_, rev, ok := f.state.deploys.seen(string(d.ID))
		if !ok || !d.Ended() {
			continue
		}
		if err := f.state.deploys.remove(ctx, string(d.ID), rev); err != nil {
			f.log.Debug("the record of a deploy is removed later", "deploy", d.ID, "err", err)
		}
	}
}

// Deploys lists the deploys of an app, newest first.
func (f *Fleet) Deploys(ctx context.Context, app drover.AppName) ([]drover.Deploy, error) {
	if err := f.await(ctx); err != nil {
		return nil, err
	}
	list := []drover.Deploy{}
	for _, i := range f.state.deploys.all() {
		if i.value.App == app {
			list = append(list, i.value)
		}
	}
	slices.SortFunc(list, func(a, b drover.Deploy) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
	})
	return list, nil
}

// Deploy returns a deploy of an app.
func (f *Fleet) Deploy(ctx context.Context, app drover.AppName, id drover.DeployID) (drover.Deploy, error) {
	if err := f.await(ctx); err != nil {
		return drover.Deploy{}, err
	}
	d, _, err := f.state.deploys.get(ctx, string(id))
	if drover.Is(err, drover.NotFound) || drover.Is(err, drover.Invalid) || (err == nil && d.App != app) {
		return drover.Deploy{}, drover.Errorf(drover.NotFound, "no deploy %.60q of app %q", id, app)
	}
	return d, err
}

// AbortDeploy ends a deploy: no further machine is changed; those that are under way come to their end. It is acknowledged when it is on record.
func (f *Fleet) AbortDeploy(ctx context.Context, app drover.AppName, id drover.DeployID) (drover.Deploy, error) {
	for range casTries {
		d, err := f.Deploy(ctx, app, id)
		if err != nil {
			return d, err
		}
		switch d.State {
		case drover.DeployAborting, drover.DeployAborted:
			return d, nil
		case drover.DeployDone, drover.DeployFailed:
			return d, drover.Errorf(drover.Precondition, "deploy %s cannot be aborted: it is %s", d.ID, d.State)
		}
		d, rev, err := f.state.deploys.get(ctx, string(id))
		if err != nil {
			return d, err
		}
		d.State, d.UpdatedAt = drover.DeployAborting, f.now().UTC()
		if _, err = f.state.deploys.update(ctx, string(id), d, rev); !drover.Is(err, drover.Conflict) {
			return d, err
		}
	}
	return drover.Deploy{}, tooBusy("deploy", string(id))
}
