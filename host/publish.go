package host

import (
	"context"
	"sync"
	"time"

	"drover"
)

// publisher holds which statuses are to be told. The newest wins: only the machine is remembered, and its status read when it is
// told, so that the bound is the number of machines.
type publisher struct {
	mu    sync.Mutex
	dirty map[drover.MachineID]bool
	wake  chan struct{}
}

func (p *publisher) init() {
	p.dirty = map[drover.MachineID]bool{}
	p.wake = make(chan struct{}, 1)
}

const (
	// publishWait bounds one write to the bus; infoEvery is how often the host tells of itself.
	publishWait = 2 * time.Second
	infoEvery   = 2 * time.Second
	// publishRetry is the longest wait before a status that could not be told is tried again.
	publishRetry = 5 * time.Second
)

// publishLater marks a machine's status as one to be told. It never blocks.
func (a *Agent) publishLater(id drover.MachineID) {
	p := &a.publish
	p.mu.Lock()
	p.dirty[id] = true
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// take returns what is to be told, and forgets it.
func (p *publisher) take() []drover.MachineID {
	p.mu.Lock()
	defer p.mu.Unlock()
	ids := make([]drover.MachineID, 0, len(p.dirty))
	for id := range p.dirty {
		ids = append(ids, id)
	}
	clear(p.dirty)
	return ids
}

// publishLoop tells the fleet of each status that changed, until it was told.
func (a *Agent) publishLoop(ctx context.Context) {
	tries := 0
	for ctx.Err() == nil {
		failed := false
		for _, id := range a.publish.take() {
			if failed || !a.publishStatus(ctx, id) {
				failed = true
				a.publishLater(id) // the rest waits, too: one bus serves all
			}
		}
		if failed {
			tries++
			pause(ctx, min(backoff(tries), publishRetry))
			continue
		}
		tries = 0
		select {
		case <-ctx.Done():
		case <-a.publish.wake:
		}
	}
}

// publishStatus tells one status. It answers false when the bus did not take it.
func (a *Agent) publishStatus(ctx context.Context, id drover.MachineID) bool {
	m, err := a.machine(id)
	if err != nil {
		return true // forgotten meanwhile: nothing to tell
	}
	r := m.rec.Load()
	if src := r.source(); r.Desired == nil || r.Obs.Lost != nil || src != nil && src.Moved != 0 {
		return true // it is another host's to tell
	}
	ctx, cancel := context.WithTimeout(ctx, publishWait)
	defer cancel()
	err = a.cfg.Bus.PublishStatus(ctx, r.Obs.Status)
	switch {
	case drover.Is(err, drover.Conflict):
		m.log.Info("another host tells of the machine already: the placement is read again", "err", err)
		m.askAnew()
		return true
	case err != nil:
		if ctx.Err() == nil {
			m.log.Warn("cannot tell the machine's status", "err", err)
		}
		return false
	}
	return true
}

// infoLoop tells the fleet of the host itself.
func (a *Agent) infoLoop(ctx context.Context) {
	failing := false
	for ctx.Err() == nil {
		err := a.publishInfo(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			a.cfg.Log.Warn("cannot tell of the host", "err", err)
		}
		failing = err != nil
		pause(ctx, infoEvery)
	}
}

func (a *Agent) publishInfo(ctx context.Context) error {
	info, err := a.info()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, publishWait)
	defer cancel()
	return a.cfg.Bus.PublishInfo(ctx, info)
}
