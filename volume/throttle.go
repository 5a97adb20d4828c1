package volume

import (
	"context"
	"slices"
	"sync"
	"time"

	"drover"
)

// burstTime is what a throttle lets through at once after a rest: a quarter of a second's worth.
const burstTime = 250 * time.Millisecond

// quota counts one kind of thing by time: each unit takes 1/rate of a second, and next is when everything that was taken has been paid
// for. Something may be taken while next is not later than burstTime from now, however much it is: a request that is larger than the
// burst goes through whole, and the next one waits longer.
type quota struct {
	rate float64 // units per second; 0 is no limit
	next time.Time
}

// cost is the time that n units take.
func (b *quota) cost(n int64) time.Duration {
	if b.rate == 0 {
		return 0
	}
	return time.Duration(float64(n) / b.rate * float64(time.Second))
}

// wait is how long it is until something may be taken.
func (b *quota) wait(now time.Time) time.Duration {
	if b.rate == 0 {
		return 0
	}
	return b.next.Add(-burstTime).Sub(now)
}

func (b *quota) take(now time.Time, n int64) {
	if b.rate == 0 {
		return
	}
	if b.next.Before(now) {
		b.next = now
	}
	b.next = b.next.Add(b.cost(n))
}

func (b *quota) giveBack(n int64) { b.next = b.next.Add(-b.cost(n)) }

// set changes the rate. What was taken of the burst stays taken, whatever the burst is worth now; what was taken beyond it is paid for
// at the new rate.
func (b *quota) set(now time.Time, rate float64) {
	ahead := max(b.next.Sub(now), 0)
	if b.rate == 0 || rate == 0 {
		ahead = 0
	}
	if beyond := ahead - burstTime; beyond > 0 {
		ahead = burstTime + time.Duration(float64(beyond)*b.rate/rate)
	}
	b.rate, b.next = rate, now.Add(ahead)
}

// throttle keeps the connections of a layer's writer to its limits, together. Requests that must wait go on in the order in which each
// connection sent them, and by turns between connections: the next is that of the connection that has had the least, so that one with
// many large requests does not keep out one with few small ones. A request waits before it enters its session's gate, so nothing that
// waits for the gate waits for it.
type throttle struct {
	mu         sync.Mutex
	ops, bytes quota
	lines      []*line
	// had is what the connection whose turn was last has had: one that comes anew has had as much.
	had time.Duration
	// wake calls run; due is when, zero when it is not set.
	wake *time.Timer
	due  time.Time
}

// wakeStep is the shortest time after which those that wait are looked at again. At high limits many then go on at once, and the clock is
// not asked for each.
const wakeStep = time.Millisecond

// line is the requests of one connection that wait.
type line struct {
	of    *session
	had   time.Duration
	queue []*waiter
}

type waiter struct {
	n    int64
	turn chan struct{} // closed when it may go on
}

func newThrottle(limits drover.Limits) *throttle {
	t := &throttle{}
	t.set(limits)
	return t
}

// set changes the limits, for those that wait too.
func (t *throttle) set(limits drover.Limits) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.ops.set(now, float64(limits.IOPS))
	t.bytes.set(now, float64(limits.BytesPerSecond))
	t.runLocked()
}

// try takes a request of n bytes in, if it need not wait.
func (t *throttle) try(n int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if len(t.lines) > 0 || t.waitLocked(now) > 0 {
		return false
	}
	t.takeLocked(now, n)
	return true
}

// giveBack takes a request back that try took in and that was not made.
func (t *throttle) giveBack(n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ops.giveBack(1)
	t.bytes.giveBack(n)
	t.runLocked()
}

// wait returns when a request of n bytes of the session may go on, with an error when either context ends first.
func (t *throttle) wait(ctx context.Context, s *session, n int64) error {
	if t.try(n) {
		return nil
	}
	w := &waiter{n: n, turn: make(chan struct{})}
	t.mu.Lock()
	l := t.lineLocked(s)
	l.queue = append(l.queue, w)
	t.runLocked()
	t.mu.Unlock()
	var err error
	select {
	case <-w.turn:
		return nil
	case <-ctx.Done():
		err = drover.Errorf(drover.Canceled, "the request ended while it waited for the limits of layer %s: %w", s.layer.id, context.Cause(ctx))
	case <-s.ctx.Done():
		err = s.ended()
	}
	t.leave(s, w)
	return err
}

// lineLocked finds the line of a connection, or opens one.
func (t *throttle) lineLocked(s *session) *line {
	for _, l := range t.lines {
		if l.of == s {
			return l
		}
	}
	l := &line{of: s, had: t.had}
	t.lines = append(t.lines, l)
	return l
}

// leave takes a request out of its line. One whose turn came at the same moment has paid, and is not made.
func (t *throttle) leave(s *session, w *waiter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, l := range t.lines {
		if l.of != s {
			continue
		}
		l.queue = slices.DeleteFunc(l.queue, func(o *waiter) bool { return o == w })
		if len(l.queue) == 0 {
			t.lines = slices.Delete(t.lines, i, i+1)
		}
		break
	}
	t.runLocked()
}

func (t *throttle) waitLocked(now time.Time) time.Duration {
	return max(t.ops.wait(now), t.bytes.wait(now))
}

func (t *throttle) takeLocked(now time.Time, n int64) {
	t.ops.take(now, 1)
	t.bytes.take(now, n)
}

// runLocked lets all go on that may, and sees to it that it is called when the next may.
func (t *throttle) runLocked() {
	now := time.Now()
	for len(t.lines) > 0 {
		if wait := t.waitLocked(now); wait > 0 {
			t.wakeLocked(now, max(wait, wakeStep))
			return
		}
		i := 0
		for j, l := range t.lines {
			if l.had < t.lines[i].had {
				i = j
			}
		}
		l := t.lines[i]
		w := l.queue[0]
		l.queue = l.queue[1:]
		t.takeLocked(now, w.n)
		close(w.turn)
		t.had = l.had
		l.had += max(t.ops.cost(1), t.bytes.cost(w.n))
		if len(l.queue) == 0 {
			t.lines = slices.Delete(t.lines, i, i+1)
		}
	}
}

// wakeLocked has run called after the wait at the latest.
func (t *throttle) wakeLocked(now time.Time, wait time.Duration) {
	due := now.Add(wait)
	if !t.due.IsZero() && !t.due.After(due) {
		return
	}
	t.due = due
	if t.wake == nil {
		t.wake = time.AfterFunc(wait, t.run)
		return
	}
	t.wake.Reset(wait)
}

func (t *throttle) run() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.due = time.Time{}
	t.runLocked()
}
