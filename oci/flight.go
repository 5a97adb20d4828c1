package oci

import (
	"context"
	"errors"
	"sync"

	"drover"
)

// flight is one image in the making, shared by all who want it.
type flight struct {
	done   chan struct{}
	cancel context.CancelCauseFunc
	// waiters is guarded by Store.mu.
	waiters int
	layer   drover.ImageLayer
	err     error

	mu sync.Mutex
	// listeners get the progress; last is what they were told last.
	listeners map[int]func(string)
	next      int
	last      string
}

var errNobodyWaits = errors.New("nobody waits for the image any more")

// share runs the work once for all concurrent callers of one layer. The work's context ends when the last of them has left,
// not when the first does; the last one waits for the work to end, so no goroutine outlives its callers.
func (s *Store) share(ctx context.Context, id drover.LayerID, progress func(string),
	work func(context.Context, func(string)) (drover.ImageLayer, error)) (drover.ImageLayer, error) {
	s.mu.Lock()
	f := s.flights[id]
	if f == nil {
		workCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		f = &flight{done: make(chan struct{}), cancel: cancel, listeners: map[int]func(string){}}
		s.flights[id] = f
		go func() {
			f.layer, f.err = work(workCtx, f.tell)
			s.mu.Lock()
			if s.flights[id] == f {
				delete(s.flights, id)
			}
			s.mu.Unlock()
			close(f.done)
			cancel(nil)
		}()
	}
	f.waiters++
	s.mu.Unlock()

	leave := f.listen(progress)
	defer leave()
	select {
	case <-f.done:
		return f.layer, f.err
	case <-ctx.Done():
	}
	s.mu.Lock()
	f.waiters--
	last := f.waiters == 0
	if last && s.flights[id] == f {
		delete(s.flights, id) // who comes now starts anew
	}
	s.mu.Unlock()
	if last {
		f.cancel(errNobodyWaits)
		<-f.done
	}
	return drover.ImageLayer{}, drover.Errorf(drover.Canceled, "waiting for image layer %s was given up: %w", id, context.Cause(ctx))
}

// listen adds a listener, which is told at once where things are.
func (f *flight) listen(progress func(string)) (leave func()) {
	f.mu.Lock()
	n := f.next
	f.next++
	f.listeners[n] = progress
	last := f.last
	f.mu.Unlock()
	if last != "" {
		progress(last)
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.listeners, n)
	}
}

func (f *flight) tell(text string) {
	f.mu.Lock()
	f.last = text
	all := make([]func(string), 0, len(f.listeners))
	for _, l := range f.listeners {
		all = append(all, l)
	}
	f.mu.Unlock()
	for _, l := range all {
		l(text)
	}
}
