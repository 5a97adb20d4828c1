package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"drover"
	"drover/apiv1"
	"drover/client"
	"drover/flytoml"
)

// deployPlan is what a deploy is to do, made of the file and of what there is.
type deployPlan struct {
	*cli
	cl    *client.Client
	app   drover.AppName
	file  flytoml.File
	flags deployFlags

	newApp bool
	image  string
	items  []plannedItem
	// apart are machines of the app that no deploy has made.
	apart int
}

// make looks at what there is.
func (p *deployPlan) make(ctx context.Context) error {
	_, err := p.cl.App(ctx, p.app)
	if p.newApp = drover.Is(err, drover.NotFound); err != nil && !p.newApp {
		return err
	}
	var machines []apiv1.Machine
	var volumes []apiv1.Volume
	if !p.newApp {
		if machines, err = p.cl.Machines(ctx, p.app); err != nil {
			return err
		}
		if volumes, err = p.cl.Volumes(ctx, p.app); err != nil {
			return err
		}
	}
	image := cmp.Or(p.flags.image, p.file.Build.Image)
	if err := hostImage(&image); err != nil {
		return err
	}
	p.flags.image = image
	if err := p.command(); err != nil {
		return err
	}
	groups := p.file.Groups()
	have := map[string][]apiv1.Machine{}
	for _, m := range machines {
		name := m.Config.Metadata[drover.LabelProcessGroup]
		if name == drover.ReleaseGroup {
			continue // it goes by itself
		}
		if name == "" {
			p.apart++
			continue
		}
		have[name] = append(have[name], m)
	}
	for _, name := range groups {
		config, err := p.file.Config(name, p.flags.image)
		if err != nil {
			return err
		}
		p.image = config.Image
		for _, m := range have[name] {
			if err := p.update(name, config, m, volumes); err != nil {
				return err
			}
		}
		if len(have[name]) == 0 {
			p.create(name, config, volumes)
		}
		delete(have, name)
	}
	for name, gone := range have {
		for _, m := range gone {
			p.items = append(p.items, plannedItem{DeployItemRequest: apiv1.DeployItemRequest{Action: drover.DeployDestroy, Machine: m.ID, Name: m.Name, Group: name}})
		}
	}
	return nil
}

// command plans the file's release command.
func (p *deployPlan) command() error {
	if p.flags.skipRelease {
		return nil
	}
	config, timeout, err := p.file.ReleaseConfig(p.flags.image)
	if err == nil && config != nil {
		p.items = append(p.items, plannedItem{DeployItemRequest: apiv1.DeployItemRequest{Action: drover.DeployRun, Region: drover.Region(p.flags.region),
			Name: newMachineName("release"), Group: drover.ReleaseGroup, Config: config, Timeout: timeout}})
	}
	return err
}

// update plans a machine that there is: its volumes stay, at the file's paths.
func (p *deployPlan) update(group string, config drover.MachineConfig, m apiv1.Machine, volumes []apiv1.Volume) error {
	wanted := p.file.Volumes(group)
	item := plannedItem{DeployItemRequest: apiv1.DeployItemRequest{Action: drover.DeployUpdate, Machine: m.ID, Name: m.Name, Group: group}}
	config.Mounts = nil
	for _, mount := range m.Config.Mounts {
		name := volumeNamed(volumes, mount.Volume)
		k := slices.IndexFunc(wanted, func(v flytoml.Volume) bool { return v.Name == name })
		if k < 0 {
			return drover.Errorf(drover.Precondition, "machine %s has the volume %q (%s), which the file does not mount in the process group %s", m.ID, name, mount.Volume, group).
				WithHint("the volumes of a machine are chosen when it is created: add the mount, or destroy the machine; its volume stays")
		}
		config.Mounts = append(config.Mounts, drover.Mount{Volume: mount.Volume, Path: wanted[k].Path, Name: name})
		wanted = slices.Delete(slices.Clone(wanted), k, k+1)
	}
	if len(wanted) > 0 {
		return drover.Errorf(drover.Precondition, "machine %s has no volume %q, which the file mounts in the process group %s", m.ID, wanted[0].Name, group).
			WithHint("the volumes of a machine are chosen when it is created: destroy it, and the deploy makes another one")
	}
	item.Config = &config
	p.items = append(p.items, item)
	return nil
}

func volumeNamed(volumes []apiv1.Volume, id drover.VolumeID) string {
	for _, v := range volumes {
		if v.ID == id {
			return v.Name
		}
	}
	return ""
}

// create plans the first machine of a group. A volume of the right name that no machine has is taken.
func (p *deployPlan) create(group string, config drover.MachineConfig, volumes []apiv1.Volume) {
	item := plannedItem{DeployItemRequest: apiv1.DeployItemRequest{Action: drover.DeployCreate, Region: drover.Region(p.flags.region), Group: group, Config: &config,
		Name: newMachineName(group)}}
	for _, wanted := range p.file.Volumes(group) {
		item.volumes = append(item.volumes, plannedVolume{Volume: wanted, id: freeVolume(volumes, wanted.Name, p.flags.region, p.items, item)})
	}
	p.items = append(p.items, item)
}

// show prints the plan.
func (p *deployPlan) show() error {
	w := p.stderr
	if p.flags.dryRun {
		w = p.stdout
	}
	fmt.Fprintf(w, "App %s, image %s\n", p.app, p.image)
	if p.newApp {
		fmt.Fprintf(w, "  create    the app\n")
	}
	for _, i := range p.items {
		if i.Action == drover.DeployRun {
			fmt.Fprintf(w, "  run       %s, in a machine of its own, before all else\n", releaseCommand(drover.DeployItem{Config: i.Config}))
			continue
		}
		name := i.Name
		if i.Machine != "" {
			name = fmt.Sprintf("%s (%s)", i.Machine, i.Name)
		}
		line := fmt.Sprintf("  %-8s  %s of the group %s", i.Action, name, i.Group)
		if with := i.volumeTexts(); len(with) > 0 {
			line += ", with " + strings.Join(with, " and ")
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return drover.Errorf(drover.Internal, "cannot write the plan: %w", err)
		}
	}
	if p.apart > 0 {
		fmt.Fprintf(w, "  left      %s that no deploy has made\n", count(p.apart, "machine"))
	}
	return nil
}

// grave names what is worth a question; empty if nothing is.
func (p *deployPlan) grave() string {
	var what []string
	if p.newApp {
		what = append(what, fmt.Sprintf("create the app %s", p.app))
	}
	gone := 0
	for _, i := range p.items {
		if i.Action == drover.DeployDestroy {
			gone++
		}
	}
	if gone > 0 {
		what = append(what, fmt.Sprintf("destroy %s of process groups that the file has no more", count(gone, "machine")))
	}
	return strings.Join(what, " and ")
}

// prepare makes the app and the volumes.
func (p *deployPlan) prepare(ctx context.Context) error {
	if p.newApp {
		if _, err := p.cl.CreateApp(ctx, apiv1.CreateAppRequest{Name: string(p.app), OrgSlug: p.flags.org}); err != nil {
			return err
		}
		fmt.Fprintf(p.stderr, "app %s created\n", p.app)
	}
	for k := range p.items {
		if err := p.items[k].makeVolumes(ctx, p.cli, p.cl, p.app); err != nil {
			return err
		}
	}
	return nil
}

// request is what the fleet is asked.
func (p *deployPlan) request() apiv1.DeployRequest {
	o := p.file.Options(drover.Deploy{Items: p.deployItems()}.Machines())
	req := apiv1.DeployRequest{Text: p.image, Strategy: o.Strategy, MaxUnavailable: o.MaxUnavailable, WaitTimeout: o.WaitTimeout, Items: []apiv1.DeployItemRequest{}}
	if p.flags.strategy != "" {
		req.Strategy = drover.DeployStrategy(p.flags.strategy)
	}
	if p.flags.maxUnavailable != 0 {
		req.MaxUnavailable = p.flags.maxUnavailable
	}
	if p.flags.waitTimeout != 0 {
		req.WaitTimeout = drover.Duration(p.flags.waitTimeout)
	}
	for _, i := range p.items {
		req.Items = append(req.Items, i.request())
	}
	return req
}

// deployItems are the items as a deploy has them.
func (p *deployPlan) deployItems() (items []drover.DeployItem) {
	for _, i := range p.items {
		items = append(items, drover.DeployItem{Action: i.Action})
	}
	return items
}
