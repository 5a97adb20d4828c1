package fleet

import (
	"fmt"
	"slices"
	"testing"

	"drover"
	"drover/plan"
)

func TestALargeFleetIsNotAskedAsAWhole(t *testing.T) {
	var hosts []drover.HostInfo
	for n := range 100 {
		region := drover.Region("ams")
		if n%2 == 1 {
			region = "fra"
		}
		hosts = append(hosts, drover.HostInfo{ID: drover.HostID(fmt.Sprintf("h%02d", n)), Region: region, Memory: drover.Bytes(n+1) * drover.GiB})
	}
	req := plan.Request{Region: "fra", Fallback: []drover.Region{"ams"}}
	opts := plan.Options{Exclude: map[drover.HostID]string{"h99": "is cordoned"}, SameApp: map[drover.HostID]int{"h97": 1}}
	first, rest := shortlist(hosts, req, opts)
	if len(first) != shortlistBest+shortlistOther || len(first)+len(rest) != 100 {
		t.Fatalf("%d are asked first, %d then", len(first), len(rest))
	}
	// The largest of the region that was named first, but for one that is closed, and one that has one of the app.
	if want := []drover.HostID{"h95", "h93", "h91", "h89", "h87", "h85", "h83", "h81"}; !slices.Equal(first[:shortlistBest], want) {
		t.Errorf("asked first: %v", first)
	}
	all := slices.Concat(first, rest)
	slices.Sort(all)
	if len(slices.Compact(all)) != 100 {
		t.Error("a host is asked twice, or never")
	}
	if first, rest := shortlist(hosts[:12], req, opts); len(first) != 12 || len(rest) != 0 {
		t.Errorf("of 12 hosts %d are asked first", len(first))
	}
}
