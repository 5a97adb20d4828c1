package api

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxLimited bounds how many owners of tokens are remembered. When there are more, all start anew: a limit is then too kind for a
// moment, never too harsh.
const maxLimited = 10_000

// limits keeps one bucket of requests per token's owner.
type limits struct {
	rate  rate.Limit
	burst int

	mu      sync.Mutex
	buckets map[string]*rate.Limiter
}

func newLimits(perSecond float64, burst int) *limits {
	if burst == 0 {
		burst = max(1, int(2*perSecond))
	}
	return &limits{rate: rate.Limit(perSecond), burst: burst, buckets: map[string]*rate.Limiter{}}
}

// wait takes one request from the owner's bucket and returns 0; or, when it is empty, takes nothing and returns how long to wait.
func (l *limits) wait(owner string) time.Duration {
	if l.rate <= 0 {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	bucket := l.buckets[owner]
	if bucket == nil {
		if len(l.buckets) >= maxLimited {
			clear(l.buckets)
		}
		bucket = rate.NewLimiter(l.rate, l.burst)
		l.buckets[owner] = bucket
	}
	reservation := bucket.Reserve()
	if delay := reservation.Delay(); delay > 0 {
		reservation.Cancel()
		return delay
	}
	return 0
}
