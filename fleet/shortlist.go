package fleet

import (
	"cmp"
	"math/rand/v2"
	"slices"

	"drover"
	"drover/plan"
)

const (
	// askWhole is how many hosts are all asked. Of more, askBest are asked first that look best by what is known, and askOther others, so that many
	// placements at once do not all end at the same few; if none of them has room, askMore others, and then everybody.
	askWhole = 12
	askBest  = 3
	askOther = 1
	askMore  = 12
)

// worker is a worker host as placements look at it: what is known of it without asking.
type worker struct {
	id     drover.HostID
	region drover.Region
	status drover.HostStatus
	// memory is what is left of it by what the host said last and by what was placed there since; provisioned is the share of the disk that volumes may grow
	// to, in hundredths.
	memory      drover.Bytes
	provisioned drover.Bytes
}

// workers lists the worker hosts that have joined, in no order.
func (f *Fleet) workers() []worker {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	list := make([]worker, 0, len(f.state.hosts.items))
	for key, stored := range f.state.hosts.items {
		info := &stored.value
		id := drover.HostID(key)
		if s, ok := f.state.heard[id]; ok {
			info = &s.info
		}
		if !slices.Contains(info.Roles, drover.RoleWorker) {
			continue
		}
		list = append(list, worker{id: id, region: info.Region, status: f.hostStatusLocked(id),
			memory: info.Memory - max(info.MemoryUsed, f.state.loads.memory[id]), provisioned: info.DiskProvisioned / max(info.Disk/100, 1)})
	}
	return list
}

// shortlist divides the hosts that could be asked into those that are asked first, and those for when none of these has room. To ask everybody for each
// placement would cost a large fleet more than the placements.
func shortlist(hosts []worker, req plan.Request, opts plan.Options) (rounds [][]drover.HostID) {
	type ranked struct {
		id                   drover.HostID
		closed, region, same int
		room                 drover.Bytes
	}
	all := make([]ranked, 0, len(hosts))
	for _, h := range hosts {
		r := ranked{id: h.id, region: slices.Index(req.Regions(), h.region), same: opts.SameApp[h.id], room: h.memory}
		if req.Volume {
			r.room = -h.provisioned
		}
		if _, no := opts.Exclude[h.id]; no { // it is asked when all others have said no, so that the refusal tells of it
			r.closed = 1
		}
		all = append(all, r)
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	bounds := []int{len(all)}
	if len(all) > askWhole {
		slices.SortStableFunc(all, func(a, b ranked) int {
			return cmp.Or(cmp.Compare(a.closed, b.closed), cmp.Compare(a.region, b.region), cmp.Compare(a.same, b.same), cmp.Compare(b.room, a.room))
		})
		for i := askBest; i < askBest+askOther; i++ {
			j := i + rand.IntN(len(all)-i)
			all[i], all[j] = all[j], all[i]
		}
		bounds = []int{askBest + askOther, min(askBest+askOther+askMore, len(all)), len(all)}
	}
	from := 0
	for _, to := range bounds {
		var ids []drover.HostID
		for _, r := range all[from:to] {
			ids = append(ids, r.id)
		}
		if len(ids) > 0 {
			rounds = append(rounds, ids)
		}
		from = to
	}
	return rounds
}
