package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"drover"
)

// silence is how long a host may say nothing while it is at work on an order.
const silence = 5 * time.Second

// progressEvery is how often a host says that it is still at work.
const progressEvery = time.Second

// maxAnswer bounds an answer that comes in parts: two streams of 1 MiB of an exec, in JSON's base64, with room.
const maxAnswer = 16 << 20

// partSize is how much of an answer goes into one message; it fits the default limit of any NATS server (1 MiB).
const partSize = 512 << 10

// What a message of an answer is, in the header headerKind.
const (
	headerKind   = "Drover-Kind"
	kindProgress = "progress" // still at work
	kindPart     = "part"     // a piece of the answer, more to come
	kindResult   = "result"   // the last piece of the answer
	kindError    = "error"    // a drover.Error
)

// statusHeader with noResponders is how the server says that nobody listens (NATS ADR-4).
const (
	statusHeader = "Status"
	noResponders = "503"
)

// Order asks a host to do something and waits for the answer for as long as the host says that it is at work and ctx allows. request and
// answer are the types that the order names; answer may be nil. The error is the host's own, or Unavailable when the host does not
// answer: then it may or may not have been carried out, and can be asked again.
func Order(ctx context.Context, conn *Conn, host drover.HostID, order drover.Order, request, answer any) error {
	data, err := json.Marshal(request)
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot ask host %q to %s: %w", host, order, err)
	}
	body, err := conn.ask(ctx, string(host), string(order), data)
	if err != nil {
		return err
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return drover.Errorf(drover.Internal, "host %q answered %s with something else: %w", host, order, err)
	}
	return nil
}

// ask sends the order and collects the answer.
func (c *Conn) ask(ctx context.Context, host, order string, data []byte) ([]byte, error) {
	return c.askAt(ctx, orderSubject(host, order), host, order, data)
}

// askAt sends a request to a subject and collects the answer. host and order are what errors call it.
func (c *Conn) askAt(ctx context.Context, subject, host, order string, data []byte) ([]byte, error) {
	if !c.Up() {
		return nil, drover.Errorf(drover.Unavailable, "host %q cannot be asked to %s: there is no connection to the bus", host, order)
	}
	inbox, messages, err := c.answers.open(c)
	if err != nil {
		return nil, translate(err, fmt.Sprintf("cannot ask host %q to %s", host, order))
	}
	defer c.answers.close(inbox)
	msg := nats.NewMsg(subject)
	msg.Reply, msg.Data = inbox, data
	if err := c.nc.PublishMsg(msg); err != nil {
		return nil, translate(err, fmt.Sprintf("cannot ask host %q to %s", host, order))
	}
	quiet := time.NewTimer(silence)
	defer quiet.Stop()
	var body []byte
	for {
		select {
		case <-ctx.Done():
			return nil, gaveUp(ctx, host, order)
		case <-quiet.C:
			return nil, drover.Errorf(drover.Unavailable, "host %q does not answer: nothing heard for %v on %s", host, silence, order)
		case m := <-messages:
			quiet.Reset(silence)
			done, err := receive(m, host, order, &body)
			if done || err != nil {
				return body, err
			}
		}
	}
}

func gaveUp(ctx context.Context, host, order string) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return drover.Errorf(drover.Canceled, "asking host %q to %s was given up: %w", host, order, context.Cause(ctx))
	}
	return drover.Errorf(drover.Unavailable, "host %q is still at work on %s: the time to wait for it is over", host, order)
}

// receive takes in one message of an answer.
func receive(m *nats.Msg, host, order string, body *[]byte) (done bool, err error) {
	switch kind := m.Header.Get(headerKind); kind {
	case kindProgress:
		return false, nil
	case kindPart, kindResult:
		if len(*body)+len(m.Data) > maxAnswer {
			return false, drover.Errorf(drover.Internal, "host %q answered %s with more than %d bytes", host, order, maxAnswer)
		}
		*body = append(*body, m.Data...)
		return kind == kindResult, nil
	case kindError:
		var e drover.Error
		if err := json.Unmarshal(m.Data, &e); err != nil || e.Code == "" {
			return false, drover.Errorf(drover.Internal, "host %q answered %s with an error that cannot be read: %q", host, order, m.Data)
		}
		return true, &e
	default:
		if m.Header.Get(statusHeader) == noResponders {
			return false, drover.Errorf(drover.Unavailable, "host %q does not answer: it is not connected to the bus, or has no worker that knows %s", host, order)
		}
		return false, drover.Errorf(drover.Internal, "host %q answered %s with an unknown kind of message %q", host, order, kind)
	}
}

// drop ends a subscription; one that ended with its connection is no loss.
func (c *Conn) drop(sub *nats.Subscription) {
	if err := sub.Unsubscribe(); err != nil {
		c.log.Debug("subscription was gone already", "subject", sub.Subject, "err", err)
	}
}
