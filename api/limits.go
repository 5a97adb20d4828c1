package api

import (
	"cmp"
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"drover"
	"drover/fleet"
)

// Limits says how often a token may ask. Operators' tokens are not limited. A Rate of 0 means no limit.
type Limits struct {
	// All counts every request of a token but those about leases, which have five times as much: to ask for a lease that somebody holds
	// is what clients do for a minute.
	All Rate
	// Strangers counts requests from an address whose token is not good.
	Strangers Rate
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
	return Limits{All: Rate{PerSecond: 200}, Strangers: Rate{PerSecond: 100, Burst: 500}, Action: Rate{PerSecond: 5, Burst: 20}, Read: Rate{PerSecond: 50}}
}

// leaseShare is how many times as often as everything else a token may ask about leases.
const leaseShare = 5

// maxLimited bounds how many buckets of one kind are remembered. When there are more, all start anew: a limit is then too kind for a
// moment, never too harsh.
const maxLimited = 10_000

// refusalPause is how long a refusal is kept back on average, maxPaused how many are at once: more are told at once. Who waits for it cannot ask again meanwhile, so
// that a client that asks without end takes a few requests a second of the CPUs in place of all that they can do. No two wait equally long, or all clients of a
// storm would come back at one moment, and others wait behind them.
const (
	refusalPause = 250 * time.Millisecond
	maxPaused    = 512
)

// told is how often refusals of one token are in the log above Debug.
const told = 0.1

// limits keeps the buckets of all tokens. Each kind has its own, so that whoever fills one up gains nothing in another.
type limits struct {
	all, leases, actions, reads, strangers, tellings *buckets
	callers                                          callers
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
	timer := time.NewTimer(refusalPause/2 + rand.N(refusalPause))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func newLimits(l Limits) *limits {
	leases := Rate{PerSecond: leaseShare * l.All.PerSecond, Burst: leaseShare * l.All.Burst}
	return &limits{all: newBuckets(l.All), leases: newBuckets(leases), actions: newBuckets(l.Action), reads: newBuckets(l.Read), strangers: newBuckets(l.Strangers),
		tellings: newBuckets(Rate{PerSecond: told, Burst: 1}), callers: callers{all: map[[sha256.Size]byte]fleet.Principal{}}, paused: make(chan struct{}, maxPaused)}
}

// wait takes the request from the buckets that it counts for, and returns 0; or takes nothing more and returns how long to wait.
func (l *limits) wait(c *call, p fleet.Principal) time.Duration {
	if p.Operator {
		return 0
	}
	who := bucketOf(p)
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

func bucketOf(p fleet.Principal) string { return p.Organization + "\x00" + p.Name }

// callers remembers whose tokens requests have shown, so that one that is one too many is refused before anything is asked of the tokens. It lets nobody in.
type callers struct {
	mu  sync.Mutex
	all map[[sha256.Size]byte]fleet.Principal
}

func (k *callers) of(header string) (fleet.Principal, bool) {
	sum := sha256.Sum256([]byte(header))
	k.mu.Lock()
	defer k.mu.Unlock()
	p, ok := k.all[sum]
	return p, ok
}

func (k *callers) remember(header string, p fleet.Principal) {
	sum := sha256.Sum256([]byte(header))
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.all) >= maxLimited {
		clear(k.all)
	}
	k.all[sum] = fleet.Principal{Name: p.Name, Organization: p.Organization, Operator: p.Operator}
}

// identify finds out who asks, and refuses a request that is one too many: with tokens that were good before at once, with others when they are.
func (h *handler) identify(c *call) ([]fleet.Principal, error) {
	header := c.r.Header.Get("Authorization")
	before, known := h.limits.callers.of(header)
	if known {
		c.principal = before
		if err := h.limited(c, h.limits.wait(c, before), "with this token"); err != nil {
			return nil, err
		}
	}
	address := sourceOf(c.r).String()
	if !known {
		if err := h.limited(c, h.limits.strangers.empty(address), "from this address with tokens that are not good"); err != nil {
			return nil, err
		}
	}
	who, err := h.guard.Identify(c.r)
	if len(who) > 0 {
		c.principal = who[0]
	}
	if err != nil {
		if !known && drover.Is(err, drover.Denied) {
			h.limits.strangers.wait(address)
		}
		return nil, err
	}
	if known && bucketOf(before) == bucketOf(who[0]) && before.Operator == who[0].Operator {
		return who, nil
	}
	h.limits.callers.remember(header, who[0])
	return who, h.limited(c, h.limits.wait(c, who[0]), "with this token")
}

// limited makes the refusal of a request that has to wait.
func (h *handler) limited(c *call, wait time.Duration, what string) error {
	if wait == 0 {
		return nil
	}
	c.quiet = h.limits.tellings.wait(bucketOf(c.principal)) > 0
	h.limits.pause(c.ctx())
	seconds := int((wait + time.Second - 1) / time.Second)
	c.w.Header().Set("Retry-After", strconv.Itoa(seconds))
	return withStatus(http.StatusTooManyRequests, drover.Errorf(drover.Exhausted, "too many requests %s", what).WithHint("try again in %d s", seconds))
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

// empty is wait that takes nothing.
func (b *buckets) empty(key string) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	bucket := b.all[key]
	if bucket == nil {
		return 0
	}
	if left := bucket.Tokens(); left < 1 {
		return time.Duration((1 - left) / float64(b.rate) * float64(time.Second))
	}
	return 0
}
