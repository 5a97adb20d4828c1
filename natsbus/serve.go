package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"drover"
)

// maxHandlers bounds how many requests of one order are worked on at once; more are refused with Unavailable. Each order has its
// own bound, so that many slow ones of one kind do not keep the others out.
const maxHandlers = 64

// handlerFunc answers an order.
type handlerFunc func(ctx context.Context, request []byte) (any, error)

// serve answers an order for a host until ctx ends, then waits for the handlers under way.
func (c *Conn) serve(ctx context.Context, host, order string, handler handlerFunc) error {
	return c.serveAt(ctx, orderSubject(host, order), "", host, order, handler)
}

// serveAt is serve for a subject. Of those that serve it in a queue, one gets each request; in no queue all do.
func (c *Conn) serveAt(ctx context.Context, subject, queue, host, order string, handler handlerFunc) error {
	return c.listen(ctx, subject, queue, order, listener{
		full: func() error {
			return drover.Errorf(drover.Unavailable, "host %q is at work on %d orders of the kind %s: ask again", host, maxHandlers, order)
		},
		handle: func(ctx context.Context, a answerer, m *nats.Msg) {
			a.run(context.WithValue(ctx, subjectKey{}, m.Subject), handler, m.Data)
		},
	})
}

// listener is what becomes of requests at a subject: full is the answer to those that come while maxHandlers are worked on.
type listener struct {
	full   func() error
	handle func(ctx context.Context, a answerer, m *nats.Msg)
}

// listen takes requests at a subject until ctx ends, and returns when the handlers under way have.
func (c *Conn) listen(ctx context.Context, subject, queue, order string, l listener) error {
	var handlers sync.WaitGroup
	defer handlers.Wait() // after the subscription is gone
	requests := make(chan *nats.Msg, maxHandlers)
	sub, err := c.nc.ChanQueueSubscribe(subject, queue, requests)
	if ctx.Err() != nil && errors.Is(err, nats.ErrConnectionClosed) {
		return nil // it ended before it began
	}
	if err != nil {
		return translate(err, fmt.Sprintf("cannot listen for %s", order))
	}
	defer c.drop(sub)
	slots := make(chan struct{}, maxHandlers)
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-requests:
			if !asked(m) {
				c.log.Warn("a message that is no request is passed over", "subject", m.Subject, "reply", m.Reply)
				continue
			}
			a := answerer{conn: c, order: order, to: m.Reply}
			select {
			case slots <- struct{}{}:
			default:
				a.fail(drover.AsError(l.full()))
				continue
			}
			handlers.Go(func() {
				defer func() { <-slots }()
				l.handle(ctx, a, m)
			})
		}
	}
}

// subjectKey is under what the context of a handler has the subject that was asked at.
type subjectKey struct{}

func subjectOf(ctx context.Context) string {
	subject, _ := ctx.Value(subjectKey{}).(string)
	return subject
}

// asked reports whether a message is a request of somebody who waits for the answer. JetStream delivers a record, such as a host's own, wherever a
// client wants it delivered, which may be where others listen; what it delivers has a reply of its own kind.
func asked(m *nats.Msg) bool { return strings.HasPrefix(m.Reply, nats.InboxPrefix) }

// answerer sends the messages of one answer. A message that cannot be sent is logged and nothing else: the asker hears nothing, takes
// it for silence, and asks again.
type answerer struct {
	conn  *Conn
	order string
	to    string
}

// run calls the handler and says every second that it is at work, from the beginning.
func (a answerer) run(ctx context.Context, handler handlerFunc, request []byte) {
	a.send(kindProgress, nil)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				a.send(kindProgress, nil)
			}
		}
	}()
	answer, err := handler(ctx, request)
	close(stop)
	<-stopped
	if err != nil {
		a.fail(drover.AsError(err))
		return
	}
	body, err := json.Marshal(answer)
	if err != nil {
		a.fail(drover.Errorf(drover.Internal, "the answer to %s cannot be written: %w", a.order, err))
		return
	}
	for len(body) > partSize {
		a.send(kindPart, body[:partSize])
		body = body[partSize:]
	}
	a.send(kindResult, body)
}

func (a answerer) fail(e *drover.Error) {
	body, err := json.Marshal(e)
	if err != nil {
		a.conn.log.Error("error of an order cannot be written", "order", a.order, "err", err)
		return
	}
	a.send(kindError, body)
}

func (a answerer) send(kind string, body []byte) {
	m := nats.NewMsg(a.to)
	m.Header.Set(headerKind, kind)
	m.Data = body
	if err := a.conn.nc.PublishMsg(m); err != nil {
		a.conn.log.Warn("answer could not be sent", "order", a.order, "kind", kind, "err", err)
	}
}
