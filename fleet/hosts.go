package fleet

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"drover"
	"drover/plan"
)

// heard takes in a sign of life. A host that was away is looked at again at once.
func (f *Fleet) heard(info drover.HostInfo) {
	now := f.now()
	f.state.mu.Lock()
	last, known := f.state.heard[info.ID]
	f.state.heard[info.ID] = sign{at: now, info: info}
	f.state.mu.Unlock()
	if !known || now.Sub(last.at) > f.timing.Unreachable {
		f.log.Info("host is heard of", "host", info.ID)
		f.kicks.addHost(info.ID)
	}
}

// hostLocked returns a host with what the control side knows of it.
func (f *Fleet) hostLocked(id drover.HostID) (drover.HostInfo, bool) {
	stored, ok := f.state.hosts.items[string(id)]
	if !ok {
		return drover.HostInfo{}, false
	}
	info := stored.value
	s, heard := f.state.heard[id]
	if heard {
		info = s.info
		info.SeenAt = s.at
	}
	info.Status = f.hostStatusLocked(id)
	if mark, ok := f.state.marks.items[string(id)]; ok {
		info.Mark = &mark.value
	}
	info.Conditions = append(f.dropLinksToDeadLocked(slices.Clone(info.Conditions)), f.conditionsLocked(info)...)
	return info, true
}

// hostStatusLocked tells whether a host answers. Just after a start of the control host, nothing is known.
func (f *Fleet) hostStatusLocked(id drover.HostID) drover.HostStatus {
	now := f.now()
	s, heard := f.state.heard[id]
	switch {
	case heard && now.Sub(s.at) <= f.timing.Unreachable:
		return drover.HostOK
	case !heard && now.Sub(f.state.startedAt) <= f.timing.Unreachable:
		return drover.HostUnknown
	}
	return drover.HostUnreachable
}

// silent tells how long a host has not been heard of; 0 for one that is fine.
func (f *Fleet) silent(id drover.HostID) time.Duration {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	if s, ok := f.state.heard[id]; ok {
		return f.now().Sub(s.at)
	}
	return f.now().Sub(f.state.startedAt)
}

func (f *Fleet) reachable(id drover.HostID) bool {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	return f.hostStatusLocked(id) == drover.HostOK
}

// Hosts lists the hosts that have joined.
func (f *Fleet) Hosts(ctx context.Context) ([]drover.HostInfo, error) {
	if err := f.await(ctx); err != nil {
		return nil, err
	}
	list := f.hostList()
	for i := range list {
		list[i] = f.judged(list[i])
	}
	return list, nil
}

func (f *Fleet) hostList() []drover.HostInfo {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	list := make([]drover.HostInfo, 0, len(f.state.hosts.items))
	for id := range f.state.hosts.items {
		info, _ := f.hostLocked(drover.HostID(id))
		list = append(list, info)
	}
	slices.SortFunc(list, func(a, b drover.HostInfo) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// Host returns one host; NotFound names those that there are.
func (f *Fleet) Host(ctx context.Context, id drover.HostID) (drover.HostInfo, error) {
	if err := f.await(ctx); err != nil {
		return drover.HostInfo{}, err
	}
	f.state.mu.RLock()
	info, ok := f.hostLocked(id)
	f.state.mu.RUnlock()
	if !ok {
		return drover.HostInfo{}, f.noHost(id, "host")
	}
	return f.judged(info), nil
}

// noHost is the refusal of a host that does not exist.
func (f *Fleet) noHost(id drover.HostID, field string) *drover.Error {
	var names []string
	for _, h := range f.hostList() {
		if slices.Contains(h.Roles, drover.RoleWorker) {
			names = append(names, string(h.ID))
		}
	}
	known := "no worker host has joined the fleet yet"
	if len(names) > 0 {
		known = "the fleet has " + strings.Join(names, ", ")
	}
	return drover.Errorf(drover.NotFound, "host %q is unknown: %s", id, known).WithField(field)
}

// HostLayers asks a host for the layers of its pool.
func (f *Fleet) HostLayers(ctx context.Context, id drover.HostID) ([]drover.LayerStatus, error) {
	if _, err := f.Host(ctx, id); err != nil {
		return nil, err
	}
	var layers []drover.LayerStatus
	err := f.order(ctx, f.timing.Apply, id, drover.OrderLayers, drover.Empty{}, &layers)
	return layers, err
}

// HostMachines lists the machines that are placed on a host.
func (f *Fleet) HostMachines(ctx context.Context, id drover.HostID) ([]MachineView, error) {
	if _, err := f.Host(ctx, id); err != nil {
		return nil, err
	}
	return f.machineViews(func(s *state) map[string]struct{} { return s.placedOn[id] }, false), nil
}

// regions lists the regions that have worker hosts.
func (f *Fleet) regions() []drover.Region { return regionsOf(f.workers()) }

func regionsOf(hosts []worker) []drover.Region {
	var regions []drover.Region
	for _, h := range hosts {
		if !slices.Contains(regions, h.region) {
			regions = append(regions, h.region)
		}
	}
	slices.Sort(regions)
	return regions
}

// maxAsked bounds how many hosts are asked for an offer at once.
const maxAsked = 64

// choose places something: it asks the worker hosts of the region, or the one named by only, and returns the best.
func (f *Fleet) choose(ctx context.Context, req plan.Request, only drover.HostID, offer drover.OfferRequest, opts plan.Options) (drover.HostID, error) {
	hosts := f.workers()
	opts.Regions = regionsOf(hosts)
	if err := req.CheckRegions(opts.Regions); err != nil {
		return "", err
	}
	var could []worker
	opts.Silent = map[drover.HostID]string{}
	for _, h := range hosts {
		switch {
		case only != "" && h.id != only, req.Region != "" && !slices.Contains(req.Regions(), h.region):
		case h.status == drover.HostUnreachable:
			opts.Silent[h.id] = "is unreachable"
		default:
			could = append(could, h)
		}
	}
	opts.Exclude = f.excludeClosed(opts.Exclude)
	var got []drover.Offer
	var slow []drover.HostID
	host, err := plan.Choose(req, nil, opts) // the refusal where there is nobody to ask
	for _, ask := range shortlist(could, req, opts) {
		more, late := f.offers(ctx, ask, offer, f.timing.Offer, opts.Silent)
		got, slow = append(got, more...), append(slow, late...)
		if host, err = plan.Choose(req, got, opts); err == nil {
			return host, nil
		}
	}
	if len(slow) == 0 {
		return host, err
	}
	// Nobody who was quick can take it, so those who were slow are given the time they need.
	for _, id := range slow {
		delete(opts.Silent, id)
	}
	more, _ := f.offers(ctx, slow, offer, f.timing.Apply, opts.Silent)
	return plan.Choose(req, append(got, more...), opts)
}

// offers asks hosts at once. Those that made no offer are noted in silent; slow are those of them that may still make one.
func (f *Fleet) offers(ctx context.Context, hosts []drover.HostID, req drover.OfferRequest, bound time.Duration,
	silent map[drover.HostID]string) (got []drover.Offer, slow []drover.HostID) {
	var (
		mu    sync.Mutex
		group sync.WaitGroup
		slots = make(chan struct{}, maxAsked)
	)
	for _, host := range hosts {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			var offer drover.Offer
			err := f.order(ctx, bound, host, drover.OrderOffer, req, &offer)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case drover.Is(err, drover.Unavailable):
				silent[host] = "does not answer"
				slow = append(slow, host)
			case err != nil:
				silent[host] = err.Error()
			default:
				got = append(got, offer)
			}
		})
	}
	group.Wait()
	return got, slow
}
