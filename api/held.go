package api

import (
	"context"
	"net/http"
	"sync"
	"time"

	"drover/fleet"
)

// tokenLook is how often the token of a request that is held open is looked at again.
const tokenLook = time.Second

// held reports whether requests of a route may be answered late, or never come to an end: what they tell goes on while the token may be revoked.
func (r route) held() bool {
	switch r.id {
	case "Machines_logs", "Web_logs", "Machines_wait", "Machines_exec_stream":
		return true
	}
	return false
}

// hold ends a request's context when its token is not good for it any more: revoked, expired, or not to be told by this control host. The cause is
// the refusal. The function that it returns ends the looking, and returns the refusal if there was one.
func (h *handler) hold(c *call) func() error {
	r := c.r // with the context that it came with
	ctx, cancel := context.WithCancelCause(c.ctx())
	c.r = r.WithContext(ctx)
	w := &tokenWatch{}
	need, is := h.permission(c), c.principal
	w.look = func() {
		err := h.guard.StillMay(r, is, need)
		if err == nil {
			w.again()
			return
		}
		w.end(err)
		cancel(err)
	}
	w.again()
	return func() error {
		err := w.stop()
		cancel(nil)
		return err
	}
}

// tokenWatch is a timer, which costs a request that waits less than a goroutine would.
type tokenWatch struct {
	look func()

	mu      sync.Mutex
	timer   *time.Timer
	ended   bool
	refused error
}

func (w *tokenWatch) again() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.timer = time.AfterFunc(tokenLook, w.look)
	}
}

func (w *tokenWatch) end(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.ended, w.refused = true, err
	}
}

func (w *tokenWatch) stop() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.timer.Stop()
	return w.refused
}

// StillMay returns nil while the token that a request was let in by is good for it. Every other token that it shows is left aside.
func (g *Guard) StillMay(r *http.Request, is fleet.Principal, need Permission) error {
	who, err := g.Identify(r)
	if err != nil {
		return err
	}
	need.At = g.now()
	var refused error
	for _, p := range who {
		if p.Token != is.Token {
			continue
		}
		if refused = g.Allow(p, need); refused == nil {
			return nil
		}
	}
	if refused == nil {
		refused = unauthorized("the token " + string(is.Token) + " is not valid any more")
	}
	return refused
}
