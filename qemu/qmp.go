package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// qmpClient is a client of QEMU's control protocol (docs/interop/qmp-spec): JSON objects, one a line; answers come in
// order, events in between.
type qmpClient struct {
	conn net.Conn
	// events gets every event until the connection ends; then done is closed.
	events func(qmpEvent)
	done   chan struct{}

	mu      sync.Mutex
	next    int
	waiting map[int]chan qmpMessage
	err     error
}

// qmpMessage is anything that QEMU sends.
type qmpMessage struct {
	QMP    json.RawMessage `json:"QMP"`
	Event  string          `json:"event"`
	Data   json.RawMessage `json:"data"`
	Return json.RawMessage `json:"return"`
	Error  *qmpError       `json:"error"`
	At     qmpTime         `json:"timestamp"`
	ID     *int            `json:"id"`
}

// qmpTime is when an event happened.
type qmpTime struct {
	Seconds      int64 `json:"seconds"`
	Microseconds int64 `json:"microseconds"`
}

type qmpError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *qmpError) Error() string { return e.Desc + " (" + e.Class + ")" }

// qmpEvent is something that happened to the VM.
type qmpEvent struct {
	Name string
	Data json.RawMessage
	At   time.Time
}

// maxMessage bounds one message: QEMU's largest answers have some 200 KiB.
const maxMessage = 4 << 20

// errGreeting says that what answers is not QEMU.
var errGreeting = errors.New("no QMP greeting")

// dialQMP connects and negotiates. The events function is called from one goroutine, which ends with the connection.
func dialQMP(ctx context.Context, path string, events func(qmpEvent)) (*qmpClient, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	c := &qmpClient{conn: conn, events: events, done: make(chan struct{}), waiting: map[int]chan qmpMessage{}}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) }) // fails on a closed connection only
	r := newMessageReader(conn)
	greeting, err := r.next()
	if err == nil && greeting.QMP == nil {
		err = errGreeting
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	go c.read(r)
	if _, err := c.execute(ctx, "qmp_capabilities"); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// messageReader splits the stream into messages.
type messageReader struct{ s *bufio.Scanner }

func newMessageReader(r io.Reader) *messageReader {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4096), maxMessage)
	return &messageReader{s}
}

func (r *messageReader) next() (qmpMessage, error) {
	var m qmpMessage
	for r.s.Scan() {
		if len(r.s.Bytes()) == 0 {
			continue
		}
		if err := json.Unmarshal(r.s.Bytes(), &m); err != nil {
			return m, fmt.Errorf("cannot read a QMP message: %w", err)
		}
		return m, nil
	}
	if err := r.s.Err(); err != nil {
		return m, err
	}
	return m, io.EOF
}

func (c *qmpClient) read(r *messageReader) {
	defer close(c.done)
	for {
		m, err := r.next()
		if err != nil {
			c.fail(err)
			return
		}
		switch {
		case m.Event != "":
			c.events(qmpEvent{m.Event, m.Data, time.Unix(m.At.Seconds, m.At.Microseconds*1000)})
		case m.ID != nil:
			c.mu.Lock()
			answer := c.waiting[*m.ID]
			delete(c.waiting, *m.ID)
			c.mu.Unlock()
			if answer != nil {
				answer <- m
			}
		}
	}
}

// fail ends all calls that wait.
func (c *qmpClient) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	for id, answer := range c.waiting {
		close(answer)
		delete(c.waiting, id)
	}
}

// execute runs one command without arguments.
func (c *qmpClient) execute(ctx context.Context, command string) (json.RawMessage, error) {
	return c.run(ctx, command, nil)
}

// run runs one command; arguments may be nil. An error that QEMU answers with is a *qmpError.
func (c *qmpClient) run(ctx context.Context, command string, arguments any) (json.RawMessage, error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return nil, fmt.Errorf("qmp %s: %w", command, c.err)
	}
	c.next++
	id := c.next
	answer := make(chan qmpMessage, 1)
	c.waiting[id] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
	}()
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        int    `json:"id"`
	}{command, arguments, id})
	if err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(append(line, '\n')); err != nil {
		return nil, fmt.Errorf("qmp %s: %w", command, err)
	}
	select {
	case m, ok := <-answer:
		if !ok {
			return nil, fmt.Errorf("qmp %s: the connection ended", command)
		}
		if m.Error != nil {
			return nil, fmt.Errorf("qmp %s: %w", command, m.Error)
		}
		return m.Return, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("qmp %s: %w", command, context.Cause(ctx))
	}
}

// close ends the connection and waits for its goroutine.
func (c *qmpClient) close() error {
	err := c.conn.Close()
	<-c.done
	return err
}
