package nbd

import (
	"context"
	"sync"
	"time"

	"drover"
)

// callState is where a call of a Client is.
type callState uint8

const (
	// callFree: in Client.free, or being prepared or finished by whoever took it from there.
	callFree callState = iota
	// callFlying: sent, or about to be; the reader finishes it.
	callFlying
	// callReceiving: the reader is just filling p.
	callReceiving
	// callAbandoned: nobody waits any more and p must not be touched; the reader skips the reply and frees the call.
	callAbandoned
)

// statusWanted is what a BLOCK_STATUS asks for and gets.
type statusWanted struct {
	context uint32
	extents []Extent
}

// call is one request that a Client waits for. There are clientDepth of them, used again and again; the cookie on the wire holds the index
// and the generation, so that a reply to an earlier use is recognised.
type call struct {
	index    uint32
	done     chan struct{} // gets an element when the reader has finished the call
	released chan struct{} // gets an element instead when the reader lets go of p because cancelled is set

	mu         sync.Mutex // guards what follows
	state      callState
	generation uint32
	requestHeader
	p         []byte // READ: where the data goes
	filled    coverage
	status    *statusWanted
	err       error
	cancelled bool // while callReceiving: abandon it afterwards
}

func (k *call) init(index uint32) {
	k.index = index
	k.done, k.released = make(chan struct{}, 1), make(chan struct{}, 1)
}

// do sends a request and waits for the reply. p is where a READ puts its data, and what a WRITE sends.
func (c *Client) do(ctx context.Context, h requestHeader, p []byte, status *statusWanted) error {
	var k *call
	select {
	case k = <-c.free:
	case <-ctx.Done():
		return c.canceled(ctx, h)
	case <-c.failed:
		return c.Err()
	}
	k.mu.Lock()
	if err := c.Err(); err != nil { // the reader may have looked at this call for the last time
		k.mu.Unlock()
		c.free <- k
		return err
	}
	k.generation++
	h.cookie = uint64(k.generation)<<32 | uint64(k.index)
	k.requestHeader, k.status, k.state, k.err, k.cancelled = h, status, callFlying, nil, false
	k.filled.reset()
	var payload []byte
	if h.kind == cmdWrite {
		payload = p
	} else {
		k.p = p
	}
	k.mu.Unlock()

	var head [requestSize]byte
	if err := c.send(h.append(head[:0]), payload); err != nil {
		c.fail(c.lost(err)) // the reader finishes all calls, this one too
	}
	return c.await(ctx, k)
}

// await waits for the reader to finish a call and frees it. When ctx ends first, the call is left to the reader.
func (c *Client) await(ctx context.Context, k *call) error {
	select {
	case <-k.done:
		return c.finish(k)
	case <-ctx.Done():
	}
	k.mu.Lock()
	h := k.requestHeader
	switch k.state {
	case callFlying:
		k.state, k.p, k.status = callAbandoned, nil, nil
		k.mu.Unlock()
		return c.canceled(ctx, h)
	case callReceiving: // p is being written to: the rest of the chunk is awaited
		k.cancelled = true
	case callFree, callAbandoned: // done is on its way
	}
	k.mu.Unlock()
	stalled := time.AfterFunc(stallTimeout, func() {
		c.fail(c.lost(broken("a reply stopped in the middle for %v", stallTimeout)))
	})
	defer stalled.Stop()
	select {
	case <-k.done:
		return c.finish(k)
	case <-k.released:
		return c.canceled(ctx, h)
	}
}

// finish takes the result of a call and frees it.
func (c *Client) finish(k *call) error {
	k.mu.Lock()
	err := k.err
	k.p, k.status, k.err = nil, nil, nil
	k.mu.Unlock()
	c.free <- k
	return err
}

func (c *Client) canceled(ctx context.Context, h requestHeader) error {
	return drover.Errorf(drover.Canceled, "cannot %s %d bytes at %d of NBD export %q at %s: %w", h.kind, h.length, h.offset, c.cfg.Export,
		c.cfg.Address, context.Cause(ctx))
}

// maxJoined is the largest payload that is copied to go out together with other requests.
const maxJoined = 16 << 10

// send writes a request. Requests that are sent at the same time share a system call: whoever sees another one wait leaves the writing
// to it.
func (c *Client) send(head, payload []byte) error {
	c.senders.Add(1)
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	last := c.senders.Add(-1) == 0
	if err := c.Err(); err != nil {
		return err
	}
	c.unsent = append(c.unsent, head...)
	if len(payload) <= maxJoined {
		c.unsent = append(c.unsent, payload...)
		if !last && len(c.unsent) < maxUnsent {
			return nil
		}
		payload = nil
	}
	if err := c.raw.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	parts := append(c.parts[:0], c.unsent)
	if payload != nil {
		parts = append(parts, payload)
	}
	c.unsent = c.unsent[:0]
	return c.out.send(parts)
}
