package fleet

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"drover"
	"drover/plan"
)

// StartDrain asks for a drain of a host, or, with Returns, for the way back of what a drain moved. Host is not needed for that.
type StartDrain struct {
	Host    drover.HostID
	Returns drover.DrainID
	Actor   string
	Reason  string
	Options drover.DrainOptions
}

// PlanDrain says what a drain would do, and changes nothing. What stands against it is in the plan's Problem.
func (f *Fleet) PlanDrain(ctx context.Context, req StartDrain) (drover.Drain, error) {
	d, refusal, err := f.planDrain(ctx, req)
	if err != nil {
		return drover.Drain{}, err
	}
	d.ID, d.Problem = "", refusal
	return d, nil
}

// CreateDrain begins a drain, and answers when its record is written: from then on it goes on by itself, whoever dies. What cannot be placed is
// refused before anything is begun, unless the options allow a part.
func (f *Fleet) CreateDrain(ctx context.Context, req StartDrain) (drover.Drain, error) {
	d, refusal, err := f.planDrain(ctx, req)
	if err != nil {
		return drover.Drain{}, err
	}
	if refusal != nil && !req.Options.AllowPartial {
		return drover.Drain{}, refusal
	}
	if _, err := f.state.drains.create(ctx, string(d.ID), d); err != nil {
		return drover.Drain{}, err
	}
	f.hit("fleet.drain.record.after")
	f.log.Info("drain begun", "drain", d.ID, "kind", d.Kind, "host", d.Host, "machines", len(d.Items), "actor", d.Actor, "reason", d.Reason)
	return d, nil
}

// planDrain makes the record of a drain, with the refusal that stands against it.
func (f *Fleet) planDrain(ctx context.Context, req StartDrain) (drover.Drain, *drover.Error, error) {
	if err := f.await(ctx); err != nil {
		return drover.Drain{}, nil, err
	}
	if e := drover.CheckDrain(req.Reason, req.Options); e != nil {
		return drover.Drain{}, nil, e
	}
	now := f.now().UTC()
	d := drover.Drain{ID: drover.NewDrainID(), Kind: drover.DrainAway, Host: req.Host, Returns: req.Returns, Actor: req.Actor, Reason: req.Reason,
		Options: req.Options.WithDefaults(), State: drover.DrainPlanned, Items: []drover.DrainItem{}, CreatedAt: now, UpdatedAt: now}
	var candidates []plan.Candidate
	var err error
	if req.Returns != "" {
		d.Kind = drover.DrainReturn
		d.Host, candidates, err = f.homecomers(ctx, req)
	} else {
		candidates, err = f.leavers(ctx, req.Host, req.Options.Suspect)
		d.Stays = f.detachedOn(req.Host)
	}
	if err != nil {
		return d, nil, err
	}
	info, err := f.workerHost(ctx, d.Host)
	if err != nil {
		return d, nil, err
	}
	d.Region = info.Region
	for i := range candidates {
		candidates[i].Region = d.Region
	}
	refusal := f.fillPlan(ctx, &d, candidates)
	return d, refusal, nil
}

// fillPlan gives each machine its target and its times.
func (f *Fleet) fillPlan(ctx context.Context, d *drover.Drain, candidates []plan.Candidate) *drover.Error {
	plan.Order(candidates, d.Options.Suspect)
	// What closes the host for others has to be known before others are asked: two drains begin at once, and each is the other's target.
	rooms := f.askedRooms(ctx, d.Region, *d)
	for i := range rooms {
		if rooms[i].Host == d.Host && d.Kind == drover.DrainAway {
			rooms[i].Closed = "is the one to be drained"
		}
	}
	targets, why := plan.Assign(candidates, rooms)
	cannot := 0
	for _, c := range candidates {
		item := plan.NewItem(c)
		item.Target = targets[c.Machine]
		if reason := why[c.Machine]; reason != "" {
			item.State, item.Reason = drover.ItemStuck, reason
		}
		if item.State == drover.ItemStuck {
			cannot++
		}
		d.Items = append(d.Items, item)
	}
	now := f.now().UTC()
	facts := plan.DrainFacts{Machines: map[drover.MachineID]plan.MachineFacts{}, Rates: f.measuredRates(*d)}
	for _, c := range candidates {
		facts.Machines[c.Machine] = plan.MachineFacts{Candidate: c, Host: c.Source}
	}
	d.ExpectedEnd = plan.Estimate(d, facts, now)
	d.ExpectedSeconds = d.ExpectedEnd.Sub(now).Seconds()
	d.Totals = d.Sum()
	if cannot == 0 {
		return nil
	}
	return cannotDrain(*d, candidates, why, cannot)
}

// cannotDrain is the refusal of a drain that could not move everything.
func cannotDrain(d drover.Drain, candidates []plan.Candidate, why map[drover.MachineID]string, cannot int) *drover.Error {
	code := drover.Precondition
	text := fmt.Sprintf("host %q cannot be drained: %d of its %d machines cannot be moved", d.Host, cannot, len(candidates))
	if d.Kind == drover.DrainReturn {
		text = fmt.Sprintf("not everything can return to host %q: %d of %d machines cannot be moved", d.Host, cannot, len(candidates))
	}
	if missing := plan.Missing(candidates, why); missing != "" {
		code = drover.Exhausted
		text += "; there would have to be room for " + missing
	}
	const most = 5
	shown := 0
	for _, i := range d.Items {
		if i.State != drover.ItemStuck || shown == most {
			continue
		}
		shown++
		text += fmt.Sprintf("; machine %s: %s", i.Machine, i.Reason)
	}
	return drover.Errorf(code, "%s", text).WithHint("nothing was begun; --allow-partial moves the others, --dry-run shows all of the plan")
}

// leavers lists what is on a host, with what its disks hold.
func (f *Fleet) leavers(ctx context.Context, host drover.HostID, suspect bool) ([]plan.Candidate, error) {
	if _, err := f.workerHost(ctx, host); err != nil {
		return nil, err
	}
	if d := f.drainOf(host); d != nil {
		return nil, drover.Errorf(drover.Conflict, "host %q is being drained already, by %s, of %s: %s", host, d.ID, d.Actor, d.Reason).
			WithHint("see `drover drain show %s`", d.ID)
	}
	list := f.candidatesOn(host, suspect)
	return list, f.weigh(ctx, host, list, suspect)
}

// weigh asks a host what the disks of its machines hold, and what of it is damaged: the conditions that it sends now and then may not say so yet.
func (f *Fleet) weigh(ctx context.Context, host drover.HostID, list []plan.Candidate, suspect bool) error {
	var layers []drover.LayerStatus
	if err := f.order(ctx, f.timing.Apply, host, drover.OrderLayers, drover.Empty{}, &layers); err != nil {
		return drover.AsError(fmt.Errorf("host %q cannot be drained now: %w", host, err)).
			WithHint("a drain needs the host alive, since its machines' disks are there%s", f.ailing(host))
	}
	held := map[drover.DiskID]drover.Bytes{}
	damaged := map[drover.DiskID]string{}
	for _, l := range layers {
		if l.State == drover.LayerReady {
			held[l.Disk] += l.Allocated
			damaged[l.Disk] = cmp.Or(damaged[l.Disk], damagedDisk(l))
		}
	}
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	for i := range list {
		if list[i].Source != host {
			continue
		}
		disks := []drover.DiskID{drover.RootDisk(list[i].Machine), drover.MemoryDisk(list[i].Machine)}
		for id := range f.state.volumesOn[list[i].Machine] {
			disks = append(disks, drover.VolumeID(id).Disk())
		}
		for _, disk := range disks {
			list[i].Bytes += held[disk]
			if why := damaged[disk]; why != "" && !suspect && list[i].Cannot == "" {
				list[i].Cannot = damagedStays(why)
			}
		}
	}
	return nil
}

// detachedOn names the volumes on a host that no machine has: no migration moves them.
func (f *Fleet) detachedOn(host drover.HostID) []string {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	var stays []string
	for _, v := range f.state.volumes.items {
		if v.value.Host == host && v.value.Machine == "" && v.value.State != drover.VolumeDestroyed && v.value.State != drover.VolumeDestroying {
			stays = append(stays, string(v.value.ID))
		}
	}
	slices.Sort(stays)
	return stays
}

// homecomers lists what a drain moved, wherever it is now.
func (f *Fleet) homecomers(ctx context.Context, req StartDrain) (drover.HostID, []plan.Candidate, error) {
	old, err := f.Drain(ctx, req.Returns)
	if err != nil {
		return "", nil, err
	}
	refuse := func(format string, args ...any) error {
		return drover.Errorf(drover.Precondition, "drain %s cannot be returned: %s", old.ID, fmt.Sprintf(format, args...))
	}
	switch {
	case old.Kind != drover.DrainAway:
		return "", nil, refuse("it is a return itself")
	case !old.Ended():
		return "", nil, refuse("it is %s", old.State)
	}
	if d := f.drainOf(old.Host); d != nil {
		return "", nil, refuse("host %q is being drained by %s", old.Host, d.ID)
	}
	f.state.mu.RLock()
	mark, marked := f.state.marks.items[string(old.Host)]
	f.state.mu.RUnlock()
	if marked && mark.value.Drain != old.ID {
		return "", nil, refuse("host %q is cordoned by %s: %s", old.Host, mark.value.Owner, mark.value.Reason)
	}
	var list []plan.Candidate
	sources := map[drover.HostID]bool{}
	f.state.mu.RLock()
	for _, i := range old.Items {
		if c, _, ok := f.candidateLocked(string(i.Machine)); ok && i.State == drover.ItemMoved && c.Source != old.Host {
			c.Fixed = old.Host
			list = append(list, c)
			sources[c.Source] = true
		}
	}
	f.state.mu.RUnlock()
	for host := range sources {
		if err := f.weigh(ctx, host, list, req.Options.Suspect); err != nil {
			return "", nil, err
		}
	}
	return old.Host, list, nil
}

// Drains lists the drains, newest first.
func (f *Fleet) Drains(ctx context.Context) ([]drover.Drain, error) {
	if err := f.await(ctx); err != nil {
		return nil, err
	}
	list := []drover.Drain{}
	for _, i := range f.state.drains.all() {
		list = append(list, f.withProgress(i.value))
	}
	slices.SortFunc(list, func(a, b drover.Drain) int { return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.ID, b.ID)) })
	return list, nil
}

// Drain returns one drain.
func (f *Fleet) Drain(ctx context.Context, id drover.DrainID) (drover.Drain, error) {
	if err := f.await(ctx); err != nil {
		return drover.Drain{}, err
	}
	if d, _, ok := f.state.drains.seen(string(id)); ok {
		return f.withProgress(d), nil
	}
	return drover.Drain{}, noDrain(id)
}

func noDrain(id drover.DrainID) *drover.Error {
	return drover.Errorf(drover.NotFound, "drain %q does not exist", id).WithHint("see `drover drain list`")
}

// withProgress adds how far the migrations of a drain are, which its record does not follow.
func (f *Fleet) withProgress(d drover.Drain) drover.Drain {
	d.Items = slices.Clone(d.Items)
	for k := range d.Items {
		i := &d.Items[k]
		m, _, ok := f.state.migrations.seen(string(i.Migration))
		if !ok || i.State.Over() {
			continue
		}
		i.Phase, i.Copied = m.Phase, m.DiskBytes()
		if h := m.Hydration; h != nil && !h.Done {
			i.Rate = h.BytesPerSecond
		}
	}
	d.Totals = d.Sum()
	return d
}

// changeDrain changes a drain's record by compare-and-set, until it worked or change refuses.
func (f *Fleet) changeDrain(ctx context.Context, id drover.DrainID, change func(*drover.Drain) error) (drover.Drain, error) {
	if err := f.await(ctx); err != nil {
		return drover.Drain{}, err
	}
	for range casTries {
		d, rev, err := f.state.drains.get(ctx, string(id))
		if drover.Is(err, drover.NotFound) {
			return d, noDrain(id)
		}
		if err != nil {
			return d, err
		}
		d.Items = slices.Clone(d.Items)
		if err := change(&d); err != nil {
			return d, err
		}
		d.UpdatedAt, d.Totals = f.now().UTC(), d.Sum()
		if _, err = f.state.drains.update(ctx, string(id), d, rev); !drover.Is(err, drover.Conflict) {
			return f.withProgress(d), err
		}
	}
	return drover.Drain{}, tooBusy("drain", string(id))
}

// sweepDrains removes records that were kept long enough.
func (f *Fleet) sweepDrains(ctx context.Context) {
	for _, i := range f.state.drains.all() {
		if d := i.value; d.Ended() && f.now().Sub(d.UpdatedAt) > f.timing.KeepDrains {
			f.trouble(ctx, "drain", string(d.ID), f.state.drains.remove(ctx, string(d.ID), i.rev))
		}
	}
}

// endedDrain is the refusal of what comes too late.
func endedDrain(d drover.Drain, what string) *drover.Error {
	return drover.Errorf(drover.Precondition, "drain %s cannot be %s: it is %s since %s", d.ID, what, d.State, d.EndedAt.UTC().Format(time.DateTime))
}
