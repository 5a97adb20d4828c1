package apitest

import (
	"context"
	"fmt"
	"slices"

	"drover"
	"drover/fleet"
)

// CreateDeploy records a deploy, which ChangeDeploy moves on.
func (b *Backend) CreateDeploy(_ context.Context, req fleet.StartDeploy) (drover.Deploy, error) {
	if err := b.begin("CreateDeploy"); err != nil {
		return drover.Deploy{}, err
	}
	defer b.mu.Unlock()
	for _, d := range b.deploys {
		if d.App == req.App && !d.Ended() {
			return drover.Deploy{}, drover.Errorf(drover.Conflict, "app %q is being deployed by %s", d.App, d.ID)
		}
	}
	d := drover.Deploy{ID: drover.DeployID(fmt.Sprintf("dpl_%016x", b.nextLocked())), App: req.App, Actor: req.Actor, Text: req.Text, Options: req.Options,
		State: drover.DeployRunning, CreatedAt: b.Now(), UpdatedAt: b.Now()}
	for _, i := range req.Items {
		i.State = drover.DeployItemWaiting
		if v, ok := b.machines[i.Machine]; ok {
			i.Name = v.Machine.Name
		}
		d.Items = append(d.Items, i)
	}
	b.deploys = append([]drover.Deploy{d}, b.deploys...)
	return d, nil
}

// Deploys lists those of an app.
func (b *Backend) Deploys(_ context.Context, app drover.AppName) ([]drover.Deploy, error) {
	if err := b.begin("Deploys"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(b.deploys), func(d drover.Deploy) bool { return d.App != app }), nil
}

// Deploy returns one.
func (b *Backend) Deploy(_ context.Context, app drover.AppName, id drover.DeployID) (drover.Deploy, error) {
	return b.changeDeploy("Deploy", id, func(d *drover.Deploy) {})
}

// AbortDeploy ends one at once.
func (b *Backend) AbortDeploy(_ context.Context, app drover.AppName, id drover.DeployID) (drover.Deploy, error) {
	return b.changeDeploy("AbortDeploy", id, func(d *drover.Deploy) { d.State = drover.DeployAborted })
}

func (b *Backend) changeDeploy(method string, id drover.DeployID, change func(*drover.Deploy)) (drover.Deploy, error) {
	if err := b.begin(method); err != nil {
		return drover.Deploy{}, err
	}
	defer b.mu.Unlock()
	k := slices.IndexFunc(b.deploys, func(d drover.Deploy) bool { return d.ID == id })
	if k < 0 {
		return drover.Deploy{}, drover.Errorf(drover.NotFound, "no deploy %q", id)
	}
	d := b.deploys[k]
	d.Items = slices.Clone(d.Items)
	change(&d)
	b.deploys[k] = d
	return d, nil
}

// ChangeDeploy changes a deploy behind the API's back.
func (b *Backend) ChangeDeploy(id drover.DeployID, change func(*drover.Deploy)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k := range b.deploys {
		if b.deploys[k].ID == id {
			b.deploys[k].Items = slices.Clone(b.deploys[k].Items)
			change(&b.deploys[k])
		}
	}
}
