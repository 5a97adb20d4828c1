package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"drover"
)

// Request describes what is to be placed.
type Request struct {
	// What names it for the user: "machine \"web-1\"".
	What string
	// Region limits the choice; empty allows every one. Fallback are the regions that come next, in order, when there is no room there.
	Region   drover.Region
	Fallback []drover.Region
	// MemoryMB is what one of them takes, for the order in which several are placed.
	MemoryMB int
	// Volume: it is a volume, for which the disk counts and the memory does not.
	Volume bool
}

// Options is what counts besides the offers.
type Options struct {
	// Regions are those that have worker hosts, for the refusal of an unknown one.
	Regions []drover.Region
	// Silent are the hosts that were asked and did not answer, with what was seen of them.
	Silent map[drover.HostID]string
	// Exclude are hosts that may not be chosen, with the reason.
	Exclude map[drover.HostID]string
	// SameApp counts the machines of the app on each host.
	SameApp map[drover.HostID]int
}

// Choose returns the best host: the one with the fewest machines of the app, then with the most free memory, then with the fewest
// machines. For a volume the disk takes the place of the memory: the share of it that is provisioned, then what is free of it. Invalid when the region is unknown, Exhausted when no host that answered has room, Unavailable when none answered at all.
func Choose(req Request, offers []drover.Offer, opts Options) (drover.HostID, error) {
	if err := req.CheckRegions(opts.Regions); err != nil {
		return "", err
	}
	var fit []drover.Offer
	for _, o := range offers {
		if inRegion(req, o) && len(o.Reasons) == 0 && opts.Exclude[o.Host] == "" {
			fit = append(fit, o)
		}
	}
	if len(fit) == 0 {
		return "", refuse(req, offers, opts)
	}
	return best(req, fit, opts.SameApp).Host, nil
}

// best returns the offer to take: of the region that was named first, then as Choose says.
func best(req Request, fit []drover.Offer, sameApp map[drover.HostID]int) drover.Offer {
	return slices.MinFunc(fit, func(a, b drover.Offer) int {
		return cmp.Or(
			cmp.Compare(req.rank(a.Region), req.rank(b.Region)),
			cmp.Compare(sameApp[a.Host], sameApp[b.Host]),
			better(req, a, b),
			cmp.Compare(a.Machines, b.Machines),
			cmp.Compare(a.Host, b.Host),
		)
	})
}

// Regions lists the regions that were named, the first choice first; none for every region.
func (r Request) Regions() []drover.Region {
	if r.Region == "" {
		return nil
	}
	return append([]drover.Region{r.Region}, r.Fallback...)
}

// rank tells as which choice a region was named.
func (r Request) rank(region drover.Region) int { return slices.Index(r.Regions(), region) }

// CheckRegions returns Invalid when a region was named that the fleet does not have.
func (r Request) CheckRegions(known []drover.Region) error {
	for _, region := range r.Regions() {
		if !slices.Contains(known, region) {
			return UnknownRegion(region, known)
		}
	}
	return nil
}

// better compares what two hosts have left of what is asked for: less than 0 when a has more.
func better(req Request, a, b drover.Offer) int {
	if !req.Volume {
		return cmp.Compare(b.MemoryFree, a.MemoryFree)
	}
	return cmp.Or(cmp.Compare(provisionedShare(a), provisionedShare(b)), cmp.Compare(b.DiskFree, a.DiskFree))
}

// provisionedShare is what the host's volumes may grow to, in parts of its disk. It is rounded to hundredths: hosts that are alike are told
// apart by what is free.
func provisionedShare(o drover.Offer) drover.Bytes {
	if o.Disk <= 0 {
		return 0
	}
	return o.DiskProvisioned / max(o.Disk/100, 1)
}

func inRegion(req Request, o drover.Offer) bool { return req.Region == "" || req.rank(o.Region) >= 0 }

// UnknownRegion is the refusal of a region that has no worker host.
func UnknownRegion(region drover.Region, known []drover.Region) *drover.Error {
	if len(known) == 0 {
		return drover.Errorf(drover.Unavailable, "region %q cannot be used: no worker host has joined the fleet yet", region).WithField("region")
	}
	names := make([]string, 0, len(known))
	for _, r := range slices.Sorted(slices.Values(known)) {
		names = append(names, string(r))
	}
	return drover.Errorf(drover.Invalid, "region %q is unknown: the fleet has %s", region, strings.Join(names, ", ")).WithField("region")
}

// refuse explains why no host can take it, host by host.
func refuse(req Request, offers []drover.Offer, opts Options) *drover.Error {
	reasons := map[drover.HostID]string{}
	answered := 0
	for _, o := range offers {
		if !inRegion(req, o) {
			continue
		}
		reason := opts.Exclude[o.Host]
		if reason == "" {
			answered++
			reason = strings.Join(o.Reasons, ", ")
		}
		reasons[o.Host] = reason
	}
	for host, reason := range opts.Silent {
		reasons[host] = reason
	}
	lines := make([]string, 0, len(reasons))
	for host, reason := range reasons {
		lines = append(lines, fmt.Sprintf("%s: %s", host, reason))
	}
	slices.Sort(lines)
	where := ""
	if req.Region != "" {
		where = fmt.Sprintf(" in region %q", req.Region)
	}
	for _, region := range req.Fallback {
		where += fmt.Sprintf(" or %q", region)
	}
	if len(lines) == 0 {
		return drover.Errorf(drover.Unavailable, "no host for %s: no worker host%s has joined the fleet", req.What, where).
			WithHint("see `drover host list`")
	}
	if answered == 0 && len(opts.Silent) > 0 {
		return drover.Errorf(drover.Unavailable, "no host for %s%s: %s", req.What, where, strings.Join(lines, "; ")).
			WithHint("see `drover host list` for hosts that do not answer")
	}
	return drover.Errorf(drover.Exhausted, "no host for %s%s has room: %s", req.What, where, strings.Join(lines, "; ")).
		WithHint("ask for less, free something, or use another region")
}
