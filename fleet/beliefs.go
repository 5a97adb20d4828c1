package fleet

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"drover"
)

// Every host tells, with each sign of life, a digest of where it believes machines to be. Here it is compared with the digests of what was so lately, which costs nothing
// however many machines there are; a host that goes on telling of something older is asked for all of it (look), which names what is stale.
const (
	// beliefsEvery is how often it is looked at what hosts told.
	beliefsEvery = 250 * time.Millisecond
	// lookAgain is how long a host that believes something old is left alone before it is asked again.
	lookAgain = 5 * time.Second
	// maxLooks bounds how many hosts are asked at once: each may tell thousands of routes.
	maxLooks = 4
	// staleNamed is how many machines a condition names.
	staleNamed = 3
)

// beliefs is what a control host remembers of what hosts believe.
type beliefs struct {
	mu sync.Mutex
	of map[drover.HostID]*belief
}

// belief is what is remembered of one host.
type belief struct {
	// rightAt is the last moment at which it was right to believe what the host told.
	rightAt time.Time
	// lookedAt is when the host was asked last; looking: it is being asked.
	lookedAt time.Time
	looking  bool
	// stale is what was found then.
	stale []drover.StaleRoute
}

func newBeliefs() *beliefs { return &beliefs{of: map[drover.HostID]*belief{}} }

// watchBeliefs looks at what hosts tell, until ctx ends. Every control host does, for its own answers.
func (f *Fleet) watchBeliefs(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	slots := make(chan struct{}, maxLooks)
	tick := time.NewTicker(beliefsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, host := range f.toLook() {
			group.Go(func() {
				select {
				case slots <- struct{}{}:
					defer func() { <-slots }()
				case <-ctx.Done():
				}
				if _, _, err := f.look(ctx, host); err != nil && ctx.Err() == nil {
					f.log.Warn("a host tells of something old, and what it believes cannot be compared", "host", host, "err", err)
				}
			})
		}
	}
}

// toLook lists the hosts that are to be asked now, each of which is being asked then.
func (f *Fleet) toLook() (ask []drover.HostID) {
	now := f.now()
	type told struct {
		id         drover.HostID
		rightUntil time.Time
	}
	var all []told
	f.state.mu.RLock()
	for id, s := range f.state.heard {
		if s.info.RoutesDigest != "" && isWorker(s.info) && f.hostStatusLocked(id) == drover.HostOK {
			all = append(all, told{id, f.state.rightUntilLocked(s.info.RoutesDigest, now)})
		}
	}
	f.state.mu.RUnlock()
	f.beliefs.mu.Lock()
	defer f.beliefs.mu.Unlock()
	heard := map[drover.HostID]bool{}
	for _, t := range all {
		heard[t.id] = true
		if f.beliefs.hearLocked(t.id, t.rightUntil, now, f.timing.Behind) {
			ask = append(ask, t.id)
		}
	}
	for id, b := range f.beliefs.of {
		if !heard[id] && !b.looking { // when it is back it is given its time anew
			delete(f.beliefs.of, id)
		}
	}
	return ask
}

// hearLocked takes in until when it was right to believe what a host told last, and reports whether the host is to be asked.
func (b *beliefs) hearLocked(id drover.HostID, rightUntil, now time.Time, behind time.Duration) bool {
	h := b.of[id]
	if h == nil {
		h = &belief{rightAt: now}
		b.of[id] = h
	}
	if rightUntil.After(h.rightAt) {
		h.rightAt = rightUntil
	}
	since := now.Sub(h.lookedAt)
	switch {
	case h.looking:
		return false
	case rightUntil.Equal(now): // it has caught up
		h.looking = len(h.stale) > 0 && since >= settleTime
	default:
		h.looking = (len(h.stale) > 0 || now.Sub(h.rightAt) > behind) && since >= lookAgain
	}
	return h.looking
}

// note keeps what a look at a host has found, and returns it with the times at which each was found first.
func (b *beliefs) note(id drover.HostID, stale []drover.StaleRoute, err error, now time.Time) []drover.StaleRoute {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.of[id]
	if h == nil {
		h = &belief{rightAt: now}
		b.of[id] = h
	}
	h.looking, h.lookedAt = false, now
	if err != nil {
		return nil
	}
	for i, s := range stale {
		if !s.Since.IsZero() {
			continue
		}
		stale[i].Since = now.UTC()
		for _, old := range h.stale {
			if old.Address == s.Address && old.Believed == s.Believed && old.Placed == s.Placed {
				stale[i].Since = old.Since
			}
		}
	}
	if h.stale = stale; len(stale) == 0 {
		h.rightAt = now
	}
	return slices.Clone(stale)
}

// condition says what a host believes that is not so; nil for nothing.
func (b *beliefs) condition(id drover.HostID) *drover.Condition {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.of[id]
	if h == nil || len(h.stale) == 0 {
		return nil
	}
	oldest := slices.Clone(h.stale)
	slices.SortStableFunc(oldest, func(x, y drover.StaleRoute) int { return x.Since.Compare(y.Since) })
	c := &drover.Condition{Code: drover.MeshStale, Severity: drover.SeverityCritical, Since: oldest[0].Since}
	var words []string
	for _, s := range oldest[:min(len(oldest), staleNamed)] {
		words = append(words, staleText(s))
	}
	if more := len(oldest) - staleNamed; more > 0 {
		words = append(words, fmt.Sprintf("and %d more, which 'drover network check' lists", more))
	}
	c.Text = fmt.Sprintf("host %q believes what is not so: %s", id, strings.Join(words, "; "))
	return c
}

// staleText says one thing that a host believes and that is not so.
func staleText(s drover.StaleRoute) string {
	what := "address " + s.Address
	if s.Machine != "" {
		what = fmt.Sprintf("machine %s (%s)", s.Machine, s.Address)
	}
	believed := "it knows no way to it"
	if s.Believed != "" {
		believed = "it sends its packets to " + s.Believed
	}
	at := s.Since.UTC().Format(time.DateTime)
	if s.Placed == "" {
		return fmt.Sprintf("%s has been nobody's since %s at the latest, and %s", what, at, believed)
	}
	return fmt.Sprintf("%s has been on %s since %s, and %s", what, s.Placed, at, believed)
}

// look asks a host by which hosts it reaches machines, and compares that with the placements. What is different is asked for once more: news take their time. What
// it finds is what the host's condition says from then on. checked is how many machines the host should know.
func (f *Fleet) look(ctx context.Context, host drover.HostID) (stale []drover.StaleRoute, checked int, err error) {
	stale, checked, err = f.staleTwice(ctx, host)
	if err == nil {
		err = f.confirmStale(ctx, stale)
	}
	before := f.beliefs.condition(host)
	stale = f.beliefs.note(host, stale, err, f.now())
	switch after := f.beliefs.condition(host); {
	case before == nil && after != nil:
		f.log.Warn("a host believes something old", "host", host, "what", after.Text)
	case before != nil && after == nil:
		f.log.Info("a host has caught up", "host", host)
	}
	return stale, checked, err
}

// staleTwice is what a host believes and is not so, twice within a second.
func (f *Fleet) staleTwice(ctx context.Context, host drover.HostID) ([]drover.StaleRoute, int, error) {
	first, checked, err := f.staleRoutes(ctx, host)
	if err != nil || len(first) == 0 {
		return nil, checked, err
	}
	select {
	case <-ctx.Done():
		return nil, checked, context.Cause(ctx)
	case <-time.After(settleTime):
	}
	second, checked, err := f.staleRoutes(ctx, host)
	was := map[drover.StaleRoute]bool{}
	for _, s := range first {
		was[s] = true
	}
	return slices.DeleteFunc(second, func(s drover.StaleRoute) bool { return !was[s] }), checked, err
}

// confirmedMost is how many placements are read from the store before a host is said to believe something old.
const confirmedMost = 4

// confirmStale makes sure that it is not this control host that is behind. Unavailable when it is, or when that cannot be told.
func (f *Fleet) confirmStale(ctx context.Context, stale []drover.StaleRoute) error {
	for _, s := range stale[:min(len(stale), confirmedMost)] {
		if s.Machine == "" {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, f.timing.Apply)
		p, err := f.state.placementOf(ctx, s.Machine)
		cancel()
		if err != nil && !drover.Is(err, drover.NotFound) {
			return err
		}
		if p.Host != s.Placed {
			return drover.Errorf(drover.Unavailable, "machine %q is on %s, and control host %q has not heard of that yet: it cannot say what others should believe",
				s.Machine, cmp.Or(p.Host, "no host"), f.cfg.Host).WithHint("ask again in a moment")
		}
	}
	return nil
}
