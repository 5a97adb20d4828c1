package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"drover"
)

// Limits says how often a token may ask. Operators' tokens are not limited. A Rate of 0 means no limit.
type Limits struct {
	// All counts every request of a token but those about leases, which have five times as much: to ask for a lease that somebody holds
	// is what clients do for a minute.
	All Rate
	// Action counts each operation that changes something on each machine, Read each look at a machine; a wait is neither.
	Action, Read Rate
}

// Rate is how many requests there may be per second on average, and how many at once. A Burst of 0 means twice the rate, and 1 at least.
type Rate struct {
	PerSecond float64
	Burst     int
}

// DefaultLimits is many times what people do, and less than what a loop gone wild would.
func DefaultLimits() Limits {
	return Limits{All: Rate{PerSecond: 200}, Action: Rate{PerSecond: 5, Burst: 20}, Read: Rate{PerSecond: 50}}
}

// leaseShare is how many times as often as everything else a token may ask about leases.
const leaseShare = 5

// maxLimited bounds how many buckets of one kind are remembered. When there are more, all start anew: a limit is then too kind for a
// moment, never too harsh.
const maxLimited = 10_000

// refusalPause is how long a refusal is kept back, maxPaused how many are at once: more are told at once. Who waits for it cannot ask again meanwhile, so that a
// client that asks without end takes a few requests a second of the CPUs in place of all that they can do.
const (
	refusalPause = 250 * time.Millisecond
	maxPaused    = 512
)

// limits keeps the buckets of all tokens. Each kind has its own, so that whoever fills one up gains nothing in another.
type limits struct {
	all, leases, actions, reads *buckets
	// paused has a slot for each refusal that is kept back.
	paused chan struct{}
}

// pause keeps a refusal back for a moment, if not too many are.
func (l *limits) pause(ctx context.Context) {
	select {
	case l.paused <- struct{}{}:
	default:
		return
	}
	defer func() { <-l.paused }()
	timer := time.NewTimer(refusalPause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func newLimits(l Limits) *limits {
	leases := Rate{PerSecond: leaseShare * l.All.PerSecond, Burst: leaseShare * l.All.Burst}
	return &limits{all: newBuckets(l.All), leases: newBuckets(leases), actions: newBuckets(l.Action), reads: newBuckets(l.Read), paused: make(chan struct{}, maxPaused)}
}

// wait takes the request from the buckets that it counts for, and returns 0; or takes nothing more and returns how long to wait.
func (l *limits) wait(c *call) time.Duration {
	who := c.principal.Organization + "\x00" + c.principal.Name
	machine := c.r.PathValue("machine_id")
	if strings.HasSuffix(c.route.path, "/lease") {
		return l.leases.wait(who)
	}
	one := who + "\x00" + machine + "\x00" + c.route.id
	switch {
	case machine == "" || strings.HasSuffix(c.route.path, "/wait"):
		return l.all.wait(who)
	case c.r.Method == http.MethodGet:
		return cmp.Or(l.reads.wait(one), l.all.wait(who))
	}
	return cmp.Or(l.actions.wait(one), l.all.wait(who))
}

// limited refuses a request that is one too many.
func (h *handler) limited(c *call) error {
	if c.principal.Operator {
		return nil
	}
	wait := h.limits.wait(c)
	if wait == 0 {
		return nil
	}
	h.limits.pause(c.ctx())
	seconds := int((wait + time.Second - 1) / time.Second)
	c.w.Header().Set("Retry-After", fmt.Sprint(seconds))
	return withStatus(http.StatusTooManyRequests,
		drover.Errorf(drover.Exhausted, "too many requests with this token").WithHint("try again in %d s", seconds))
}

// buckets has one bucket of requests per key.
type buckets struct {
	rate  rate.Limit
	burst int

	mu  sync.Mutex
	all map[string]*rate.Limiter
}

func newBuckets(r Rate) *buckets {
	if r.Burst == 0 {
		r.Burst = max(1, int(2*r.PerSecond))
	}
	return &buckets{rate: rate.Limit(r.PerSecond), burst: r.Burst, all: map[string]*rate.Limiter{}}
}

// wait takes one request from the key's bucket and returns 0; or, when it is empty, takes nothing and returns how long to wait.
func (b *buckets) wait(key string) time.Duration {
	if b.rate <= 0 {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	bucket := b.all[key]
	if bucket == nil {
		if len(b.all) >= maxLimited {
			clear(b.all)
		}
		bucket = rate.NewLimiter(b.rate, b.burst)
		b.all[key] = bucket
	}
	reservation := bucket.Reserve()
	if delay := reservation.Delay(); delay > 0 {
		reservation.Cancel()
		return delay
	}
	return 0
}
