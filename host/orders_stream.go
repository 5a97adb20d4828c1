package host

import (
	"context"
	"encoding/json"

	"drover"
	"drover/internal/frames"
)

// StreamBus is what the agent needs of the bus for streams (natsbus.HostBus).
type StreamBus interface {
	// ServeStream answers an order that is a stream until ctx ends. The handler calls open when it has what the stream leads to; what it returns before
	// is the answer, and the stream ends when it returns.
	ServeStream(ctx context.Context, order drover.Order, handler func(ctx context.Context, request []byte, open func() (frames.Conn, error)) error) error
}

// StreamGuest is what the agent needs of a guest for streams (guest.Client).
type StreamGuest interface {
	// Stream starts a command whose input and output go by the stream; it is hung up when the stream is closed.
	Stream(ctx context.Context, req drover.ExecStreamRequest) (frames.Conn, error)
	// Done is closed when the connection has ended.
	Done() <-chan struct{}
}

// serveStreams offers the orders that are streams until ctx ends, whatever becomes of the bus meanwhile.
func (a *Agent) serveStreams(ctx context.Context) {
	for tries := 1; ctx.Err() == nil; tries++ {
		err := a.cfg.Bus.ServeStream(ctx, drover.OrderExecStream, a.execStream)
		wait := backoff(tries)
		if err == nil {
			<-ctx.Done() // a bus that subscribes and returns
			return
		}
		if ctx.Err() == nil {
			a.cfg.Log.Warn("cannot serve streams", "err", err, "retry", wait)
		}
		pause(ctx, wait)
	}
}

// execStream runs a command of a machine until it has ended, or whoever started it has left.
func (a *Agent) execStream(ctx context.Context, request []byte, open func() (frames.Conn, error)) error {
	var req drover.ExecStreamRequest
	if err := json.Unmarshal(request, &req); err != nil {
		return drover.Errorf(drover.Invalid, "cannot read the order's request: %w", err)
	}
	if err := req.Validate(); err != nil {
		return err
	}
	m, err := a.startedMachine(req.Machine)
	if err != nil {
		return err
	}
	started, err := m.startStream(ctx, req)
	if err != nil {
		return err
	}
	defer started.guest.Close() // its last user may have left
	client, err := open()
	if err != nil {
		started.stream.Close() // the command is hung up, which is all that is left to do
		return err
	}
	if err := frames.Relay(ctx, client, started.stream); err != nil {
		m.log.Info("a command's stream has ended early", "err", err) // its client was told
	}
	return nil
}

// startedStream is a command that runs with a stream, and the connection to its guest.
type startedStream struct {
	guest  Guest
	stream frames.Conn
}

func (m *machine) startStream(ctx context.Context, req drover.ExecStreamRequest) (startedStream, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	g, err := m.agent.cfg.GuestDial(ctx, m.agentSocket())
	if err != nil {
		return startedStream{}, err
	}
	s, err := g.Stream(ctx, req)
	if err != nil {
		g.Close() // the answer is here
		if drover.Is(err, drover.Invalid) {
			// The request was checked before: it is the guest that does not know it.
			err = drover.Errorf(drover.Precondition, "machine %q was started by a Drover that had no streams: %w", m.id, err).
				WithHint("restart it once; 'drover exec --json' works without")
		}
		return startedStream{}, err
	}
	return startedStream{g, s}, nil
}
