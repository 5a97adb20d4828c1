package host

import (
	"context"
	"errors"
	"sync"

	"drover"
)

// guests shares the connections to guests: each VM's agent socket has room for one, and a command may hold it for hours while a stop comes.
type guests struct {
	dial func(ctx context.Context, socket string) (Guest, error)

	mu   sync.Mutex
	open map[string]*sharedGuest
}

// sharedGuest is a connection that is there or being made.
type sharedGuest struct {
	// ready is closed when guest or err is there.
	ready chan struct{}
	guest Guest
	err   error
	// users counts who uses it or waits for it; guarded by guests.mu.
	users int
}

// guestUse is one use of a connection.
type guestUse struct {
	Guest
	leave func() error
}

// Close ends this use. The connection itself ends with the last.
func (u *guestUse) Close() error { return u.leave() }

func newGuests(dial func(ctx context.Context, socket string) (Guest, error)) *guests {
	return &guests{dial: dial, open: map[string]*sharedGuest{}}
}

// get returns a connection to the guest at a socket.
func (p *guests) get(ctx context.Context, socket string) (Guest, error) {
	for {
		s, mine := p.join(socket)
		if mine {
			s.guest, s.err = p.dial(ctx, socket)
			close(s.ready)
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
			return nil, errors.Join(drover.Errorf(drover.Unavailable, "the guest does not answer: %w", context.Cause(ctx)), p.leave(socket, s))
		}
		if s.err == nil {
			return &guestUse{Guest: s.guest, leave: sync.OnceValue(func() error { return p.leave(socket, s) })}, nil
		}
		if err := p.leave(socket, s); mine || err != nil {
			return nil, errors.Join(s.err, err)
		}
		// Whoever tried had less time, or the guest was not ready for it: this one tries for itself.
	}
}

// join takes part in the connection that there is, or in one that the caller makes.
func (p *guests) join(socket string) (s *sharedGuest, mine bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s = p.open[socket]
	if s == nil || s.over() {
		s, mine = &sharedGuest{ready: make(chan struct{})}, true
		p.open[socket] = s
	}
	s.users++
	return s, mine
}

// over tells whether a connection is of no use any more.
func (s *sharedGuest) over() bool {
	select {
	case <-s.ready:
	default:
		return false
	}
	if s.err != nil {
		return true
	}
	select {
	case <-s.guest.Done():
		return true
	default:
		return false
	}
}

// leave ends one use.
func (p *guests) leave(socket string, s *sharedGuest) error {
	p.mu.Lock()
	s.users--
	last := s.users == 0
	if last && p.open[socket] == s {
		delete(p.open, socket)
	}
	p.mu.Unlock()
	if !last || s.guest == nil {
		return nil
	}
	return s.guest.Close()
}
