package fleet

import (
	"cmp"
	"math/rand/v2"
	"slices"

	"drover"
	"drover/plan"
)

const (
	// shortlistBest and shortlistOther are how many hosts are asked first in a large fleet: those that look best by what hosts told last, and some others,
	// so that many placements at once do not all end at the same few.
	shortlistBest  = 8
	shortlistOther = 4
)

// shortlist divides the hosts that could be asked: first those that are, and the rest, for when none of those has room. To ask everybody for each placement
// would cost a large fleet more than the placements.
func shortlist(hosts []drover.HostInfo, req plan.Request, opts plan.Options) (first, rest []drover.HostID) {
	hosts = slices.Clone(hosts)
	rand.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	better := func(a, b drover.HostInfo) int { return cmp.Compare(b.Memory-b.MemoryUsed, a.Memory-a.MemoryUsed) }
	if req.Volume {
		better = func(a, b drover.HostInfo) int {
			return cmp.Compare(a.DiskProvisioned/max(a.Disk/100, 1), b.DiskProvisioned/max(b.Disk/100, 1))
		}
	}
	closed := func(h drover.HostInfo) int { // it is asked when all others have said no, so that the refusal tells of it
		if _, no := opts.Exclude[h.ID]; no {
			return 1
		}
		return 0
	}
	if len(hosts) > shortlistBest+shortlistOther {
		slices.SortStableFunc(hosts, func(a, b drover.HostInfo) int {
			return cmp.Or(cmp.Compare(closed(a), closed(b)), cmp.Compare(slices.Index(req.Regions(), a.Region), slices.Index(req.Regions(), b.Region)),
				cmp.Compare(opts.SameApp[a.ID], opts.SameApp[b.ID]), better(a, b))
		})
		others := hosts[shortlistBest:]
		rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	}
	for i, h := range hosts {
		if i < shortlistBest+shortlistOther {
			first = append(first, h.ID)
		} else {
			rest = append(rest, h.ID)
		}
	}
	return first, rest
}
