package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"drover"
)

// Place distributes count machines as Choose would one after another, and tells of each host why it takes some or none. What offers say is taken as it
// is; hosts that are excluded or silent take none. regions says where the silent ones are. Invalid when a region is unknown.
func Place(req Request, count int, offers []drover.Offer, opts Options, regions map[drover.HostID]drover.Region) (drover.Place, error) {
	if err := req.CheckRegions(opts.Regions); err != nil {
		return drover.Place{}, err
	}
	place := drover.Place{Count: count}
	left, byHost := []drover.Offer{}, map[drover.HostID]*drover.PlaceHost{}
	for _, o := range offers {
		h := judge(req, o, opts)
		byHost[o.Host] = &h
		if h.Fits > 0 {
			left = append(left, o)
		}
	}
	for host, why := range opts.Silent {
		byHost[host] = &drover.PlaceHost{Host: host, Region: regions[host], Reasons: []string{why}, SameApp: opts.SameApp[host]}
	}
	same := maps.Clone(opts.SameApp)
	if same == nil {
		same = map[drover.HostID]int{}
	}
	for place.Placed < count && len(left) > 0 {
		next := best(req, left, same).Host
		i := slices.IndexFunc(left, func(o drover.Offer) bool { return o.Host == next })
		h := byHost[left[i].Host]
		h.Placed++
		place.Placed++
		same[h.Host]++
		left[i].MemoryFree -= drover.Bytes(req.MemoryMB) * drover.MiB
		left[i].Machines++
		if h.Placed >= h.Fits {
			left = slices.Delete(left, i, i+1)
		}
	}
	for _, h := range byHost {
		place.Hosts = append(place.Hosts, *h)
	}
	slices.SortFunc(place.Hosts, func(a, b drover.PlaceHost) int {
		return cmp.Or(cmp.Compare(b.Placed, a.Placed), cmp.Compare(b.Fits, a.Fits), cmp.Compare(a.Host, b.Host))
	})
	place.Missing = missing(req, count-place.Placed)
	return place, nil
}

// judge says what a host's offer is worth.
func judge(req Request, o drover.Offer, opts Options) drover.PlaceHost {
	h := drover.PlaceHost{Host: o.Host, Region: o.Region, Reasons: slices.Clone(o.Reasons), SameApp: opts.SameApp[o.Host], Machines: o.Machines,
		MemoryFree: o.MemoryFree, CPUsFree: o.CPUsFree, DiskFree: o.DiskFree}
	if why := opts.Exclude[o.Host]; why != "" {
		h.Reasons = append(h.Reasons, why)
	}
	if !inRegion(req, o) {
		h.Reasons = append(h.Reasons, fmt.Sprintf("it is in region %q", o.Region))
	}
	if len(h.Reasons) == 0 {
		h.Fits, h.Reasons = max(1, o.Fits), []string{} // a host that does not tell how many takes one at least
	}
	return h
}

// missing says what there is no room for.
func missing(req Request, n int) string {
	switch {
	case n <= 0:
		return ""
	case n == 1:
		return fmt.Sprintf("1 more %d MiB machine", req.MemoryMB)
	}
	return fmt.Sprintf("%d more %d MiB machines", n, req.MemoryMB)
}

// Refusal is the error for machines that there is no room for: what is missing, and why on each host. Nil when all were placed.
func Refusal(req Request, p drover.Place) error {
	if p.Missing == "" {
		return nil
	}
	var offers []drover.Offer
	exclude := map[drover.HostID]string{}
	for _, h := range p.Hosts {
		o := drover.Offer{Host: h.Host, Region: h.Region, Reasons: h.Reasons}
		if h.Fits > 0 {
			exclude[h.Host] = fmt.Sprintf("has room for %d", h.Fits)
		}
		offers = append(offers, o)
	}
	e := refuse(req, offers, Options{Exclude: exclude})
	return drover.Errorf(drover.Exhausted, "there is room for %d of %d machines; %s would need room that is not there: %s", p.Placed, p.Count, p.Missing, e.Text).
		WithHint("ask for less, free something, or use another region")
}
