package natsbus

import (
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"
)

// answersKept is how many messages of one answer may wait to be taken in. What comes beyond is lost, and the answer with it.
const answersKept = 64

// answers takes the answers to all orders of a connection from one subscription: one for each order would cost the server, which has to find the
// subscriptions of each message, more than the order.
type answers struct {
	mu      sync.Mutex
	prefix  string
	last    uint64
	waiting map[string]chan *nats.Msg
}

// open returns a place where an answer can be sent to, and what comes there.
func (a *answers) open(c *Conn) (inbox string, messages chan *nats.Msg, err error) {
	messages = make(chan *nats.Msg, answersKept)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.prefix == "" {
		prefix := c.nc.NewInbox() + "."
		if _, err := c.nc.Subscribe(prefix+"*", a.receive(c)); err != nil {
			return "", nil, err
		}
		a.prefix, a.waiting = prefix, map[string]chan *nats.Msg{}
	}
	a.last++
	inbox = a.prefix + strconv.FormatUint(a.last, 36)
	a.waiting[inbox] = messages
	return inbox, messages, nil
}

// close gives the place up; what still comes is passed over.
func (a *answers) close(inbox string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting, inbox)
}

func (a *answers) receive(c *Conn) nats.MsgHandler {
	return func(m *nats.Msg) {
		a.mu.Lock()
		messages := a.waiting[m.Subject]
		a.mu.Unlock()
		if messages == nil {
			return
		}
		select {
		case messages <- m:
		default:
			c.log.Warn("an answer comes faster than it is taken in, and is lost", "subject", m.Subject)
		}
	}
}
