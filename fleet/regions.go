package fleet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"drover"
	"drover/plan"
)

// CheckRegion tells for every host of a region whether it could be drained now: whether what is on it would find room on the others. It goes by
// what is known here, and asks no host.
func (f *Fleet) CheckRegion(ctx context.Context, region drover.Region) (drover.RegionCheck, error) {
	if err := f.await(ctx); err != nil {
		return drover.RegionCheck{}, err
	}
	if known := f.regions(); !slices.Contains(known, region) {
		return drover.RegionCheck{}, plan.UnknownRegion(region, known)
	}
	return f.checkRegion(region), nil
}

func (f *Fleet) checkRegion(region drover.Region) drover.RegionCheck {
	var candidates []plan.Candidate
	for _, c := range f.candidatesOn("", false) {
		if c.Region == region {
			candidates = append(candidates, c)
		}
	}
	check := drover.RegionCheck{Region: region, OK: true, At: f.now().UTC(), Hosts: plan.CheckHosts(region, candidates, f.knownRooms())}
	for _, h := range check.Hosts {
		check.OK = check.OK && h.OK
	}
	return check
}

// regionWatch remembers which regions failed their checks.
type regionWatch struct {
	mu     sync.Mutex
	failed map[drover.Region]regionFailure
}

type regionFailure struct {
	times int
	since time.Time
	text  string
}

func newRegionWatch() *regionWatch { return &regionWatch{failed: map[drover.Region]regionFailure{}} }

// regionTimes is how often in a row a region must fail before that is a condition: a machine that is being moved is seldom worth waking somebody.
const regionTimes = 2

func (w *regionWatch) condition(region drover.Region) *drover.Condition {
	w.mu.Lock()
	defer w.mu.Unlock()
	r, ok := w.failed[region]
	if !ok || r.times < regionTimes {
		return nil
	}
	return &drover.Condition{Code: drover.RegionNotDrainable, Severity: drover.SeverityWarning, Subject: string(region), Text: r.text, Since: r.since}
}

func (w *regionWatch) note(c drover.RegionCheck) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.OK {
		delete(w.failed, c.Region)
		return
	}
	r := w.failed[c.Region]
	if r.times == 0 {
		r.since = c.At
	}
	r.times++
	var parts []string
	for _, h := range c.Hosts {
		if !h.OK {
			parts = append(parts, fmt.Sprintf("%s: %s", h.Host, h.Missing))
		}
	}
	r.text = fmt.Sprintf("not every host of region %q could be drained now: %s", c.Region, strings.Join(parts, "; "))
	w.failed[c.Region] = r
}

// watchRegions checks all regions from time to time, until ctx ends. Every control host does, for its own answers.
func (f *Fleet) watchRegions(ctx context.Context) {
	tick := time.NewTicker(f.timing.Regions)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if f.await(ctx) != nil {
			continue
		}
		for _, region := range f.regions() {
			f.regionsSeen.note(f.checkRegion(region))
		}
	}
}
