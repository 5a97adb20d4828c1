package apitest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"drover"
	"drover/fleet"
)

// PlanDrain plans to move every machine of the host to h2.
func (b *Backend) PlanDrain(_ context.Context, req fleet.StartDrain) (drover.Drain, error) {
	if err := b.begin("PlanDrain"); err != nil {
		return drover.Drain{}, err
	}
	defer b.mu.Unlock()
	return b.planLocked(req)
}

func (b *Backend) planLocked(req fleet.StartDrain) (drover.Drain, error) {
	kind := drover.DrainAway
	if req.Returns != "" {
		old, ok := b.drains[req.Returns]
		if !ok {
			return drover.Drain{}, drover.Errorf(drover.NotFound, "drain %q does not exist", req.Returns)
		}
		kind, req.Host = drover.DrainReturn, old.Host
	}
	if _, err := b.hostLocked(req.Host); err != nil {
		return drover.Drain{}, err
	}
	if e := drover.CheckDrain(req.Reason, req.Options); e != nil {
		return drover.Drain{}, e
	}
	now := b.Now()
	d := drover.Drain{Kind: kind, Host: req.Host, Region: "north", Returns: req.Returns, Actor: req.Actor, Reason: req.Reason, Options: req.Options.WithDefaults(),
		State: drover.DrainPlanned, Items: []drover.DrainItem{}, ExpectedSeconds: 90, ExpectedEnd: now.Add(90 * time.Second), CreatedAt: now, UpdatedAt: now}
	for _, id := range slices.Sorted(maps.Keys(b.machines)) {
		v := b.machines[id]
		if v.Placement.Host != req.Host && kind == drover.DrainAway {
			continue
		}
		d.Items = append(d.Items, drover.DrainItem{Machine: id, Name: v.Machine.Name, App: v.Machine.App, Class: string(v.Machine.App), Source: v.Placement.Host,
			Target: "h2", MemoryMB: 256, CPUs: 1, Bytes: 300 * drover.MiB, Running: true, State: drover.ItemWaiting,
			ExpectedInterruption: drover.Duration(2 * time.Second), ExpectedStart: now, ExpectedEnd: now.Add(20 * time.Second)})
	}
	d.Totals = d.Sum()
	return d, nil
}

// CreateDrain keeps the plan, and moves nothing: the test does, by ChangeDrain.
func (b *Backend) CreateDrain(_ context.Context, req fleet.StartDrain) (drover.Drain, error) {
	if err := b.begin("CreateDrain"); err != nil {
		return drover.Drain{}, err
	}
	defer b.mu.Unlock()
	d, err := b.planLocked(req)
	if err != nil {
		return d, err
	}
	d.ID, d.State, d.StartedAt = drover.DrainID(fmt.Sprintf("drn_%016x", b.nextLocked())), drover.DrainRunning, b.Now()
	if b.DrainsEnd {
		for i := range d.Items {
			d.Items[i].State, d.Items[i].Copied, d.Items[i].Interruption = drover.ItemMoved, d.Items[i].Bytes, drover.Duration(1500*time.Millisecond)
		}
		d.State, d.EndedAt, d.Totals = drover.DrainDone, b.Now().Add(80*time.Second), d.Sum()
	}
	b.drains[d.ID] = d
	return d, nil
}

// Drains lists the drains.
func (b *Backend) Drains(context.Context) ([]drover.Drain, error) {
	if err := b.begin("Drains"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	var list []drover.Drain
	for _, id := range slices.Sorted(maps.Keys(b.drains)) {
		list = append(list, b.drains[id])
	}
	slices.Reverse(list)
	return list, nil
}

// Drain returns a drain.
func (b *Backend) Drain(_ context.Context, id drover.DrainID) (drover.Drain, error) {
	return b.changeDrain("Drain", id, func(*drover.Drain) {})
}

// changeDrain changes a drain that has not ended.
func (b *Backend) changeDrain(method string, id drover.DrainID, change func(*drover.Drain)) (drover.Drain, error) {
	if err := b.begin(method); err != nil {
		return drover.Drain{}, err
	}
	defer b.mu.Unlock()
	d, ok := b.drains[id]
	if !ok {
		return d, drover.Errorf(drover.NotFound, "drain %q does not exist", id).WithHint("see `drover drain list`")
	}
	change(&d)
	b.drains[id] = d
	return d, nil
}

// ChangeDrain lets the test change a drain.
func (b *Backend) ChangeDrain(id drover.DrainID, change func(*drover.Drain)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.drains[id]
	change(&d)
	b.drains[id] = d
}

// PauseDrain pauses a drain.
func (b *Backend) PauseDrain(_ context.Context, id drover.DrainID) (drover.Drain, error) {
	return b.changeDrain("PauseDrain", id, func(d *drover.Drain) { d.State, d.Waits = drover.DrainPaused, "it is paused" })
}

// ResumeDrain resumes it.
func (b *Backend) ResumeDrain(_ context.Context, id drover.DrainID, _ string) (drover.Drain, error) {
	return b.changeDrain("ResumeDrain", id, func(d *drover.Drain) { d.State, d.Waits = drover.DrainRunning, "" })
}

// AbortDrain aborts it at once.
func (b *Backend) AbortDrain(_ context.Context, id drover.DrainID, running bool, actor string) (drover.Drain, error) {
	return b.changeDrain("AbortDrain", id, func(d *drover.Drain) {
		d.State, d.AbortRunning, d.EndedAt = drover.DrainAborted, running, b.Now()
		d.Problem = drover.Errorf(drover.Canceled, "it was aborted by %s", actor)
		for i := range d.Items {
			d.Items[i].State, d.Items[i].Reason = drover.ItemLeft, "the drain was aborted"
		}
		d.Totals = d.Sum()
	})
}

// ApproveMove approves a machine.
func (b *Backend) ApproveMove(_ context.Context, id drover.DrainID, machine drover.MachineID, actor string) (drover.Drain, error) {
	return b.changeDrain("ApproveMove", id, func(d *drover.Drain) {
		if i := d.Item(machine); i != nil {
			i.ApprovedBy = actor
		}
	})
}

// CordonHost marks a host.
func (b *Backend) CordonHost(_ context.Context, req fleet.Cordon) (drover.HostInfo, error) {
	return b.mark("CordonHost", req.Host, &drover.HostMark{Host: req.Host, Owner: req.Owner, Reason: req.Reason, Suspect: req.Suspect, Since: b.Now(),
		ExpiresAt: b.Now().Add(max(time.Duration(req.For), time.Hour))})
}

// UncordonHost takes the mark away.
func (b *Backend) UncordonHost(_ context.Context, host drover.HostID, _ string) (drover.HostInfo, error) {
	return b.mark("UncordonHost", host, nil)
}

func (b *Backend) mark(method string, id drover.HostID, mark *drover.HostMark) (drover.HostInfo, error) {
	if err := b.begin(method); err != nil {
		return drover.HostInfo{}, err
	}
	defer b.mu.Unlock()
	if mark != nil {
		if e := drover.CheckReason(mark.Reason); e != nil {
			return drover.HostInfo{}, e
		}
	}
	for i := range b.hosts {
		if b.hosts[i].ID == id {
			b.hosts[i].Mark = mark
		}
	}
	return b.hostLocked(id)
}

// CheckRegion says yes for the region north, no for others.
func (b *Backend) CheckRegion(_ context.Context, region drover.Region) (drover.RegionCheck, error) {
	if err := b.begin("CheckRegion"); err != nil {
		return drover.RegionCheck{}, err
	}
	defer b.mu.Unlock()
	c := drover.RegionCheck{Region: region, OK: true, Hosts: []drover.HostCheck{}, At: b.Now()}
	for _, h := range b.hosts {
		if h.Region != region {
			continue
		}
		check := drover.HostCheck{Host: h.ID, OK: region == "north", Machines: 2}
		if !check.OK {
			check.Missing = fmt.Sprintf("2 more 512 MiB machines in region %s", region)
		}
		c.OK = c.OK && check.OK
		c.Hosts = append(c.Hosts, check)
	}
	return c, nil
}

// SetMachineLabel sets a label.
func (b *Backend) SetMachineLabel(_ context.Context, app drover.AppName, id drover.MachineID, key, value string) (fleet.MachineView, error) {
	if err := b.begin("SetMachineLabel"); err != nil {
		return fleet.MachineView{}, err
	}
	defer b.mu.Unlock()
	if e := drover.CheckLabel(key, value); e != nil {
		return fleet.MachineView{}, e.WithField("value")
	}
	v, ok := b.machines[id]
	if !ok || v.Machine.App != app {
		return v, drover.Errorf(drover.NotFound, "machine %q does not exist", id)
	}
	v.Machine.Config.Metadata = labelled(v.Machine.Config.Metadata, key, value)
	b.machines[id] = v
	return v, nil
}

// SetAppLabel sets a label.
func (b *Backend) SetAppLabel(_ context.Context, name drover.AppName, key, value string) (drover.App, error) {
	if err := b.begin("SetAppLabel"); err != nil {
		return drover.App{}, err
	}
	defer b.mu.Unlock()
	if e := drover.CheckLabel(key, value); e != nil {
		return drover.App{}, e.WithField("value")
	}
	app := b.apps[name]
	app.Metadata = labelled(app.Metadata, key, value)
	b.apps[name] = app
	return app, nil
}

func labelled(metadata map[string]string, key, value string) map[string]string {
	metadata = maps.Clone(metadata)
	if metadata == nil {
		metadata = map[string]string{}
	}
	metadata[key] = value
	if value == "" {
		delete(metadata, key)
	}
	return metadata
}
