package natsbus

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"drover"
	"drover/internal/frames"
)

// A stream begins as an order. When the host has what the stream leads to, it answers with a message of the kind open that names a subject: what
// the asker has for the host goes there, what the host has goes where answers go. Both number their frames, since the bus may lose some when a
// connection breaks: then the stream ends. Both say every second that they are there, and take the other for gone after silence.

const (
	kindOpen  = "open"  // the host's subject for frames
	kindFrame = "frame" // 8 bytes of its number, and a frame
)

// busStream is one end of a stream. Its goroutines end with Close.
type busStream struct {
	conn *Conn
	// to is the other end's subject, messages what comes to ours.
	to       string
	sub      *nats.Subscription
	messages chan *nats.Msg
	queue    *frames.Queue
	// peer is what errors call the other end.
	peer string

	once    sync.Once
	stop    chan struct{}
	running sync.WaitGroup

	sending sync.Mutex
	sent    uint64
}

var _ frames.Conn = (*busStream)(nil)

func (c *Conn) newStream(subject, peer string) (*busStream, error) {
	s := &busStream{conn: c, peer: peer, messages: make(chan *nats.Msg, 2*frames.QueueSize), queue: frames.NewQueue(), stop: make(chan struct{})}
	var err error
	s.sub, err = c.nc.ChanSubscribe(subject, s.messages)
	return s, err
}

// Send sends a frame; it waits for nothing.
func (s *busStream) Send(_ context.Context, f frames.Frame) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.sent++
	return s.publish(kindFrame, f.Append(binary.BigEndian.AppendUint64(nil, s.sent)))
}

func (s *busStream) publish(kind string, data []byte) error {
	m := nats.NewMsg(s.to)
	m.Header.Set(headerKind, kind)
	m.Data = data
	if err := s.conn.nc.PublishMsg(m); err != nil {
		return frames.Cut(translate(err, "cannot send to "+s.peer))
	}
	return nil
}

// Receive returns the next frame.
func (s *busStream) Receive(ctx context.Context) (frames.Frame, error) { return s.queue.Get(ctx) }

// Close ends this end, and tells the asker's other end.
func (s *busStream) Close() error {
	s.once.Do(func() {
		close(s.stop)
		s.conn.drop(s.sub)
		s.queue.End(io.EOF)
	})
	s.running.Wait()
	return nil
}

// run takes messages until the stream ends. take says what a message that is no frame means; its error ends the stream.
func (s *busStream) run(take func(*nats.Msg) error) {
	s.running.Go(func() {
		quiet := time.NewTimer(silence)
		defer quiet.Stop()
		var seen uint64
		for {
			var err error
			select {
			case <-s.stop:
				return
			case <-quiet.C:
				err = frames.Cut(drover.Errorf(drover.Unavailable, "nothing was heard of %s for %v", s.peer, silence))
			case m := <-s.messages:
				quiet.Reset(silence)
				if m.Header.Get(headerKind) == kindFrame {
					seen++
					err = s.takeFrame(m.Data, seen)
				} else {
					err = take(m)
				}
			}
			if err != nil {
				s.queue.End(err)
				return
			}
		}
	})
}

func (s *busStream) takeFrame(data []byte, number uint64) error {
	if len(data) < 8 || binary.BigEndian.Uint64(data) != number {
		return frames.Cut(drover.Errorf(drover.Unavailable, "the bus lost a part of it"))
	}
	f, err := frames.Parse(data[8:])
	if err != nil {
		return err
	}
	if !s.queue.Put(f) {
		return drover.Errorf(drover.Internal, "%s sent more than there is room for", s.peer)
	}
	return nil
}

// OpenStream asks a host for what an order that is a stream leads to. The error is the host's own, or Unavailable when it does not answer.
func OpenStream(ctx context.Context, conn *Conn, host drover.HostID, order drover.Order, request any) (frames.Conn, error) {
	data, err := json.Marshal(request)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot ask host %q to %s: %w", host, order, err)
	}
	if !conn.Up() {
		return nil, drover.Errorf(drover.Unavailable, "host %q cannot be asked to %s: there is no connection to the bus", host, order)
	}
	inbox := conn.nc.NewRespInbox()
	s, err := conn.newStream(inbox, fmt.Sprintf("host %q", host))
	if err != nil {
		return nil, translate(err, fmt.Sprintf("cannot ask host %q to %s", host, order))
	}
	msg := nats.NewMsg(orderSubject(string(host), string(order)))
	msg.Reply, msg.Data = inbox, data
	err = conn.nc.PublishMsg(msg)
	if err == nil {
		s.to, err = s.awaitOpen(ctx, string(host), string(order))
	}
	if err != nil {
		s.Close()
		return nil, translate(err, fmt.Sprintf("cannot ask host %q to %s", host, order))
	}
	var body []byte
	s.run(func(m *nats.Msg) error {
		done, err := receive(m, string(host), string(order), &body)
		if err == nil && done {
			err = io.EOF
		}
		return err
	})
	s.running.Go(func() {
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-s.stop:
				if err := s.publish(kindResult, nil); err != nil {
					conn.log.Debug("the end of a stream could not be told", "host", string(host), "err", err)
				}
				return
			case <-tick.C:
				if err := s.publish(kindProgress, nil); err != nil {
					s.queue.End(err)
				}
			}
		}
	})
	return s, nil
}

// awaitOpen waits until the host has what the stream leads to.
func (s *busStream) awaitOpen(ctx context.Context, host, order string) (subject string, err error) {
	quiet := time.NewTimer(silence)
	defer quiet.Stop()
	var body []byte
	for {
		select {
		case <-ctx.Done():
			return "", gaveUp(ctx, host, order)
		case <-quiet.C:
			return "", drover.Errorf(drover.Unavailable, "host %q does not answer: nothing heard for %v on %s", host, silence, order)
		case m := <-s.messages:
			quiet.Reset(silence)
			if m.Header.Get(headerKind) == kindOpen {
				return string(m.Data), nil
			}
			done, err := receive(m, host, order, &body)
			if err == nil && done {
				err = drover.Errorf(drover.Internal, "host %q answered %s, which is a stream, without one", host, order)
			}
			if err != nil {
				return "", err
			}
		}
	}
}

// StreamHandler answers an order that is a stream. It calls open when it has what the stream leads to; what it returns before is the answer. The stream
// ends when it returns.
type StreamHandler = func(ctx context.Context, request []byte, open func() (frames.Conn, error)) error

// ServeStream answers an order that is a stream until ctx ends and the handlers under way have returned; 64 at once at most.
func (h *HostBus) ServeStream(ctx context.Context, order drover.Order, handler StreamHandler) error {
	return h.conn.listen(ctx, orderSubject(string(h.host), string(order)), "", string(order), listener{
		full: func() error {
			return drover.Errorf(drover.Exhausted, "host %q has %d streams of the kind %s: ask again when one has ended", h.host, maxHandlers, order)
		},
		handle: func(ctx context.Context, a answerer, m *nats.Msg) {
			a.run(ctx, func(ctx context.Context, request []byte) (any, error) {
				return drover.Empty{}, h.conn.handleStream(ctx, handler, request, m.Reply)
			}, m.Data)
		},
	})
}

// handleStream runs a handler and closes what it opened.
func (c *Conn) handleStream(ctx context.Context, handler StreamHandler, request []byte, reply string) error {
	var s *busStream
	defer func() {
		if s != nil {
			s.Close()
		}
	}()
	return handler(ctx, request, func() (frames.Conn, error) {
		subject := c.nc.NewRespInbox()
		var err error
		if s, err = c.newStream(subject, "the control host"); err != nil {
			return nil, translate(err, "cannot open a stream")
		}
		s.to = reply
		s.run(func(m *nats.Msg) error {
			if m.Header.Get(headerKind) == kindResult {
				return io.EOF
			}
			return nil // it is there
		})
		return s, s.publish(kindOpen, []byte(subject))
	})
}
