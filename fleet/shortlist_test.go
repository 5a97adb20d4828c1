package fleet

import (
	"fmt"
	"slices"
	"testing"

	"drover"
	"drover/plan"
)

func TestALargeFleetIsNotAskedAsAWhole(t *testing.T) {
	var hosts []worker
	for n := range 100 {
		region := drover.Region("ams")
		if n%2 == 1 {
			region = "fra"
		}
		hosts = append(hosts, worker{id: drover.HostID(fmt.Sprintf("h%02d", n)), region: region, memory: drover.Bytes(n+1) * drover.GiB})
	}
	req := plan.Request{Region: "fra", Fallback: []drover.Region{"ams"}}
	opts := plan.Options{Exclude: map[drover.HostID]string{"h99": "is cordoned"}, SameApp: map[drover.HostID]int{"h97": 1}}
	rounds := shortlist(hosts, req, opts)
	if len(rounds) != 3 || len(rounds[0]) != askBest+askOther || len(rounds[1]) != askMore {
		t.Fatalf("%v", rounds)
	}
	// The largest of the region that was named first, but for one that is closed, and one that has one of the app.
	if want := []drover.HostID{"h95", "h93", "h91"}; !slices.Equal(rounds[0][:askBest], want) {
		t.Errorf("asked first: %v", rounds[0])
	}
	all := slices.Concat(rounds...)
	slices.Sort(all)
	if len(slices.Compact(all)) != 100 {
		t.Error("a host is asked twice, or never")
	}
	if rounds := shortlist(hosts[:askWhole], req, opts); len(rounds) != 1 || len(rounds[0]) != askWhole {
		t.Errorf("a small fleet is asked as %v", rounds)
	}
	if rounds := shortlist(nil, req, opts); len(rounds) != 0 {
		t.Errorf("nobody is asked as %v", rounds)
	}
}
