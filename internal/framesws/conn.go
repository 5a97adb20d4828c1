// Package framesws carries frames (package internal/frames) over a WebSocket: the request as a text message, then one frame in each binary message.
// Both ends ping, so that neither waits for ever for one that is gone.
package framesws

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/coder/websocket"

	"drover"
	"drover/internal/frames"
)

// Protocol is the WebSocket's subprotocol.
const Protocol = "drover.exec.v1"

const (
	// pingEvery is how often the other end is asked whether it is there, pongWait how long its answer may take.
	pingEvery = 5 * time.Second
	pongWait  = 15 * time.Second
	// sendWait is how long the network may take to accept one message. An end that reads nothing but answers pings has longer: see frames.Window.
	sendWait = 30 * time.Second
	// maxMessage bounds one message; the request is the largest.
	maxMessage = 2*drover.MaxCommand + 16<<10
)

// Conn is one end of a WebSocket.
type Conn struct {
	ws      *websocket.Conn
	ctx     context.Context
	end     context.CancelFunc
	pinging sync.WaitGroup
	once    sync.Once
}

var _ frames.Conn = (*Conn)(nil)

// New makes an end of a WebSocket. The connection lasts as long as it, not as long as whatever asked for it.
func New(ctx context.Context, ws *websocket.Conn) *Conn {
	ws.SetReadLimit(maxMessage)
	c := &Conn{ws: ws}
	c.ctx, c.end = context.WithCancel(context.WithoutCancel(ctx))
	c.pinging.Go(c.ping)
	return c
}

// ping ends the connection when the other end does not answer. Answers are seen by Receive.
func (c *Conn) ping() {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(c.ctx, pongWait)
		err := c.ws.Ping(ctx)
		cancel()
		if err != nil {
			c.end()
			return
		}
	}
}

// SendRequest sends what the stream begins with.
func (c *Conn) SendRequest(ctx context.Context, request any) error {
	data, err := json.Marshal(request)
	if err != nil {
		return drover.Errorf(drover.Invalid, "cannot write the request as JSON: %w", err)
	}
	return lost(c.ws.Write(ctx, websocket.MessageText, data))
}

// ReceiveRequest reads the JSON of what the stream begins with.
func (c *Conn) ReceiveRequest(ctx context.Context) ([]byte, error) {
	kind, data, err := c.ws.Read(ctx)
	if err == nil && kind != websocket.MessageText {
		return nil, drover.Errorf(drover.Invalid, "the first message must be the request, a text; it was binary")
	}
	return data, lost(err)
}

// Send sends a frame.
func (c *Conn) Send(_ context.Context, f frames.Frame) error {
	ctx, cancel := context.WithTimeout(c.ctx, sendWait)
	defer cancel()
	return lost(c.ws.Write(ctx, websocket.MessageBinary, f.Append(make([]byte, 0, 1+len(f.Data)))))
}

// Receive returns the next frame. Close ends it, and nothing else: a read that is cut leaves no connection to end in order.
func (c *Conn) Receive(context.Context) (frames.Frame, error) {
	kind, data, err := c.ws.Read(c.ctx)
	if status := websocket.CloseStatus(err); status == websocket.StatusNormalClosure || status == websocket.StatusGoingAway {
		return frames.Frame{}, io.EOF
	}
	if err != nil {
		return frames.Frame{}, lost(err)
	}
	if kind != websocket.MessageBinary {
		return frames.Frame{}, drover.Errorf(drover.Invalid, "frames are binary messages; got a text")
	}
	return frames.Parse(data)
}

// Close ends the connection in order: what was sent arrives.
func (c *Conn) Close() error {
	var err error
	c.once.Do(func() {
		err = c.ws.Close(websocket.StatusNormalClosure, "")
		c.end()
	})
	c.pinging.Wait()
	if websocket.CloseStatus(err) >= 0 || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// lost makes the error of a connection that is gone.
func lost(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return frames.Cut(drover.Errorf(drover.Unavailable, "the other end does not answer"))
	}
	return frames.Cut(err)
}
