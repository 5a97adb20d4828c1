package host

import (
	"cmp"
	"context"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"drover"
)

// Fellows are the other hosts of the fleet as this one sees them. Unavailable when the bus does not answer.
type Fellows interface {
	// Hosts lists the hosts that have joined.
	Hosts(ctx context.Context) ([]drover.HostInfo, error)
	// Try asks the storage daemon of a host for something, and returns nil when it gave an answer of any kind.
	Try(ctx context.Context, host drover.HostInfo) error
}

const (
	// observeEvery is how often fellow hosts are tried, observeWait how long one try may take.
	observeEvery = 3 * time.Second
	observeWait  = 4 * time.Second
	// listEvery is how often the list of hosts is read.
	listEvery = 20 * time.Second
	// observersPerHost is how many hosts try each host, where there are that many.
	observersPerHost = 3
	// observeAgain is how many tries in a row must fail until a host counts as not reached: one lost packet is no partition.
	observeAgain = 2
)

// observer remembers how the tries went.
type observer struct {
	mu sync.Mutex
	// fellows is the newest list of hosts: while the bus is away the last one serves.
	fellows  []drover.HostInfo
	listedAt time.Time
	seen     map[drover.HostID]drover.Observation
	failed   map[drover.HostID]int
}

// observeLoop tries again and again.
func (a *Agent) observeLoop(ctx context.Context) {
	if a.cfg.Fellows == nil {
		return
	}
	for ctx.Err() == nil {
		a.observe(ctx)
		pause(ctx, observeEvery)
	}
}

// observe tries each host that this one observes, all at once.
func (a *Agent) observe(ctx context.Context) {
	o := &a.observer
	o.mu.Lock()
	due := a.now().Sub(o.listedAt) >= listEvery || len(o.fellows) < 2
	o.mu.Unlock()
	var list []drover.HostInfo
	if due {
		var err error
		if list, err = call(ctx, a.cfg.Fellows.Hosts); err != nil && ctx.Err() == nil {
			a.cfg.Log.Debug("the list of hosts cannot be read, the last one serves", "err", err)
		}
	}
	o.mu.Lock()
	if len(list) > 0 {
		o.fellows, o.listedAt = list, a.now()
	}
	mine := fellowsOf(o.fellows, a.cfg.ID)
	o.mu.Unlock()
	var group sync.WaitGroup
	problems := make([]error, len(mine))
	for i, h := range mine {
		group.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, observeWait)
			defer cancel()
			problems[i] = a.cfg.Fellows.Try(ctx, h)
		})
	}
	group.Wait()
	if ctx.Err() == nil {
		o.note(mine, problems, a.now().UTC())
	}
}

// note takes in how the tries went. Hosts that are not this one's to observe any more are forgotten.
func (o *observer) note(hosts []drover.HostInfo, problems []error, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	seen, failed := map[drover.HostID]drover.Observation{}, map[drover.HostID]int{}
	for i, h := range hosts {
		old, known := o.seen[h.ID]
		next := drover.Observation{Host: h.ID, Reached: problems[i] == nil, Since: now}
		if problems[i] != nil {
			failed[h.ID] = o.failed[h.ID] + 1
			next.Problem = problems[i].Error()
		}
		switch {
		case known && old.Reached == next.Reached:
			next = old
		case known && !next.Reached && failed[h.ID] < observeAgain:
			next = old
		}
		seen[h.ID] = next
	}
	o.seen, o.failed = seen, failed
}

// observations returns what is to be told of the fellow hosts, in an order that does not change.
func (a *Agent) observations() []drover.Observation {
	o := &a.observer
	o.mu.Lock()
	defer o.mu.Unlock()
	list := make([]drover.Observation, 0, len(o.seen))
	for _, s := range o.seen {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b drover.Observation) int { return cmp.Compare(a.Host, b.Host) })
	if len(list) == 0 {
		return nil
	}
	return list
}

// fellowsOf returns the hosts that a host observes. Each is observed by the observersPerHost others whose names, hashed together with its
// own, are the smallest, so that every host comes to the same result from the same list, and a host that joins or leaves changes little.
func fellowsOf(hosts []drover.HostInfo, self drover.HostID) []drover.HostInfo {
	workers := slices.DeleteFunc(slices.Clone(hosts), func(h drover.HostInfo) bool {
		return h.StorageAddress == "" || !slices.Contains(h.Roles, drover.RoleWorker)
	})
	if !slices.ContainsFunc(workers, func(h drover.HostInfo) bool { return h.ID == self }) {
		workers = append(workers, drover.HostInfo{ID: self})
	}
	var out []drover.HostInfo
	for _, h := range workers {
		if h.ID == self {
			continue
		}
		mine, ahead := pairing(h.ID, self), 0
		for _, other := range workers {
			if other.ID != h.ID && other.ID != self {
				theirs := pairing(h.ID, other.ID)
				if theirs < mine || theirs == mine && other.ID < self {
					ahead++
				}
			}
		}
		if ahead < observersPerHost {
			out = append(out, h)
		}
	}
	return out
}

// pairing is a number made of a host and one that may observe it.
func pairing(host, by drover.HostID) uint64 {
	h := fnv.New64a()
	h.Write([]byte(host)) // never fails
	h.Write([]byte{0})
	h.Write([]byte(by))
	// The last bytes alone change little of the upper bits: mix them (Steele et al., "Fast splittable pseudorandom number generators").
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
