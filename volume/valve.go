package volume

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"drover"
)

// gate counts requests, and can be held (who comes waits) and shut (who comes is turned away). It costs a request two additions.
type gate struct {
	// state is four times the number of requests, plus gateHeld and gateShut.
	state atomic.Int64
	// opened wakes those who wait for a held gate, idle those who wait until all are out.
	opened, idle signal
}

const (
	gateShut int64 = 1
	gateHeld int64 = 2
	gateOne  int64 = 4
)

// signal wakes everybody who waits for something.
type signal struct {
	mu sync.Mutex
	ch chan struct{} // nil while nobody waits
}

// wait returns what the next call of send closes. Whoever waits looks at the state after this call.
func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) send() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// enter waits while the gate is held. It reports false when the gate is shut.
func (g *gate) enter() bool {
	for {
		n := g.state.Add(gateOne)
		if n&(gateHeld|gateShut) == 0 {
			return true
		}
		g.leave()
		if n&gateShut != 0 {
			return false
		}
		opened := g.opened.wait()
		if g.state.Load()&(gateHeld|gateShut) == gateHeld {
			<-opened
		}
	}
}

// tryEnter reports false when the gate is held or shut.
func (g *gate) tryEnter() bool {
	if g.state.Add(gateOne)&(gateHeld|gateShut) == 0 {
		return true
	}
	g.leave()
	return false
}

func (g *gate) leave() {
	if n := g.state.Add(-gateOne); n < gateOne && n != 0 {
		g.idle.send()
	}
}

// hold makes who comes wait until release. awaitIdle tells when those are out who were in.
func (g *gate) hold() { g.state.Or(gateHeld) }

func (g *gate) release() {
	g.state.And(^gateHeld)
	g.opened.send()
}

// awaitIdle waits until no request is in a gate that is held or shut, and reports false if done came first.
func (g *gate) awaitIdle(done <-chan struct{}) bool {
	for {
		idle := g.idle.wait()
		if g.state.Load() < gateOne {
			return true
		}
		select {
		case <-idle:
		case <-done:
			return false
		}
	}
}

// shut closes the gate for good and waits until all are out.
func (g *gate) shut() {
	g.state.Or(gateShut)
	g.opened.send()
	g.awaitIdle(nil)
}

// valve holds back the requests of all of a layer's connections while its content changes hands.
type valve struct{ reads, writes bool }

// apply makes a new connection wait like the others. The layer's mu is held.
func (v valve) apply(s *session) {
	if v.reads {
		s.gate.hold()
	}
	if v.writes {
		s.writes.hold()
	}
}

// maxPause bounds how long a closing valve waits for the requests that are under way. A guest must not notice more than a pause.
const maxPause = 700 * time.Millisecond

// closeValve holds writes back, and reads too if asked, and waits for those under way: Unavailable if they do not end in time, and
// everything goes on then. The caller has the disk's turn.
func (l *layer) closeValve(ctx context.Context, reads bool) (open func(), err error) {
	l.mu.Lock()
	l.valve = valve{reads: reads, writes: true}
	sessions := make([]*session, 0, len(l.sessions))
	for s := range l.sessions {
		l.valve.apply(s)
		sessions = append(sessions, s)
	}
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, maxPause)
	defer cancel()
	for _, s := range sessions {
		if !s.writes.awaitIdle(ctx.Done()) || reads && !s.gate.awaitIdle(ctx.Done()) {
			l.openValve()
			return nil, drover.Errorf(drover.Unavailable, "requests to layer %s that are under way do not end", l.id).
				WithHint("try again; if they wait for the layer's parent, see its hydration")
		}
	}
	return l.openValve, nil
}

func (l *layer) openValve() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.valve = valve{}
	for s := range l.sessions {
		s.gate.release()
		s.writes.release()
	}
}

// busy reports whether a request is under way now.
func (g *gate) busy() bool { return g.state.Load() >= gateOne }
