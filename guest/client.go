package guest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net"
	"sync"
	"time"

	"drover"
)

// defaultAnswer bounds the wait for an answer when the caller's context has no deadline.
const defaultAnswer = 30 * time.Second

// helloEvery is how often a client says hello until it is answered.
const helloEvery = 150 * time.Millisecond

// execGrace is how much longer than a command's timeout its answer is waited for.
const execGrace = 10 * time.Second

// Client talks to drover-init in one VM. It is safe for concurrent use. When the connection or the VM ends, every call fails with
// Unavailable from then on: Dial again.
type Client struct {
	conn net.Conn
	// ended is closed when nothing is read from conn any more.
	ended chan struct{}

	// sending is held while a frame is written, so that frames do not mix.
	sending sync.Mutex

	mu      sync.Mutex
	lastID  uint64
	waiting map[uint64]chan Answer
	streams map[uint64]*clientStream
}

// Dial connects to the agent socket of a VM and waits until its drover-init answers: not before the main process was started.
// Unavailable when it does not within ctx (30 s when ctx has no deadline). One client at a time is served; another one
// waits until the first is closed.
func Dial(ctx context.Context, socket string) (*Client, error) {
	ctx, cancel := bounded(ctx, defaultAnswer)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		// Users of the machine read this: where its socket is on the host is not for them.
		var at *net.OpError
		if errors.As(err, &at) {
			err = at.Err
		}
		return nil, drover.Errorf(drover.Unavailable, "cannot reach the guest: %w", err).WithHint("is its VM running?")
	}
	c := &Client{conn: conn, ended: make(chan struct{}), waiting: map[uint64]chan Answer{}, streams: map[uint64]*clientStream{}}
	hello := Request{ID: 1, Op: OpHello, Nonce: rand.Text()}
	c.lastID = hello.ID
	greeted := make(chan Answer, 1)
	go c.read(hello.Nonce, greeted)
	if err := c.greet(ctx, hello, greeted); err != nil {
		return nil, errors.Join(drover.Errorf(drover.Unavailable, "the guest does not answer: %w", err), c.Close())
	}
	return c, nil
}

// greet says hello until the guest answers. A guest may learn that a client came only after it has read the client's first bytes, and
// drops them then, or its own answer to them: so hello is repeated. A repeated one that is read late only begins the session anew,
// before anything that is sent in it.
func (c *Client) greet(ctx context.Context, hello Request, greeted <-chan Answer) error {
	again := time.NewTicker(helloEvery)
	defer again.Stop()
	for {
		if err := c.send(ctx, hello, Magic); err != nil {
			return err
		}
		select {
		case <-greeted:
			return nil
		case <-c.ended:
			return errors.New("the connection ended")
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-again.C:
		}
	}
}

// bounded gives ctx a deadline when it has none.
func bounded(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}

// Exec runs a command beside the main process, as root, with the machine's environment. A command that cannot be run has exit
// code 127 or 126 and says why on stderr. Canceled when it was killed at its timeout or ctx ended; Exhausted when too many run.
func (c *Client) Exec(ctx context.Context, req drover.ExecRequest) (drover.ExecResult, error) {
	if len(req.Command) == 0 {
		return drover.ExecResult{}, drover.Errorf(drover.Invalid, "there is no command to run").WithField("command")
	}
	if len(req.Stdin) > MaxStdin {
		return drover.ExecResult{}, drover.Errorf(drover.Invalid, "stdin has %d bytes, more than %d", len(req.Stdin), MaxStdin).
			WithField("stdin")
	}
	timeout := req.Timeout
	if timeout <= 0 {
		timeout = DefaultExecTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout+execGrace)
	defer cancel()
	answer, err := c.call(ctx, Request{Op: OpExec, Argv: req.Command, Stdin: req.Stdin, Timeout: drover.Duration(timeout)})
	if err != nil {
		return drover.ExecResult{}, err
	}
	if answer.Exec == nil {
		return drover.ExecResult{}, drover.Errorf(drover.Internal, "the guest's answer to exec has no result")
	}
	return *answer.Exec, nil
}

// Signal sends the main process a signal such as "SIGHUP" or "HUP". Precondition when it has ended, Invalid when there is no such signal.
func (c *Client) Signal(ctx context.Context, signal string) error {
	_, err := c.call(ctx, Request{Op: OpSignal, Signal: signal})
	return err
}

// Stop asks for an orderly end: the signal to the main process, SIGKILL after the timeout, then unmount and power off. An empty
// signal and a timeout of 0 mean those of Config.Stop. It returns when the signal was sent. It may be repeated: the earliest
// SIGKILL counts.
func (c *Client) Stop(ctx context.Context, signal string, timeout time.Duration) error {
	_, err := c.call(ctx, Request{Op: OpStop, Signal: signal, Timeout: drover.Duration(timeout)})
	return err
}

// Ping asks for a sign of life.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.call(ctx, Request{Op: OpPing})
	return err
}

// Status asks how the guest is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	answer, err := c.call(ctx, Request{Op: OpStatus})
	if err != nil {
		return Status{}, err
	}
	if answer.Status == nil {
		return Status{}, drover.Errorf(drover.Internal, "the guest's answer to status has no status")
	}
	return *answer.Status, nil
}

// Done is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.ended }

// Close ends the connection. Commands that it runs are killed.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.ended
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// call sends a request and waits for its answer.
func (c *Client) call(ctx context.Context, req Request) (Answer, error) {
	return c.callWith(ctx, req, func(uint64) {})
}

// callWith is call that tells the ID of the request before it is sent, under the lock.
func (c *Client) callWith(ctx context.Context, req Request, known func(id uint64)) (Answer, error) {
	ctx, cancel := bounded(ctx, defaultAnswer)
	defer cancel()
	answered := make(chan Answer, 1)
	c.mu.Lock()
	c.lastID++
	req.ID = c.lastID
	c.waiting[req.ID] = answered
	known(req.ID)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, req.ID)
		c.mu.Unlock()
	}()
	if err := c.send(ctx, req, ""); err != nil {
		return Answer{}, err
	}
	select {
	case answer := <-answered:
		if answer.Error != nil {
			return Answer{}, answer.Error
		}
		return answer, nil
	case <-c.ended:
		return Answer{}, drover.Errorf(drover.Unavailable, "the guest's connection ended before it answered %s", req.Op)
	case <-ctx.Done():
		return Answer{}, c.giveUp(ctx, req)
	}
}

// giveUp makes the error for a request whose context ended, and tells the guest when that spares it work.
func (c *Client) giveUp(ctx context.Context, req Request) error {
	cause := context.Cause(ctx)
	if req.Op == OpExec {
		if err := c.cancelRequest(req.ID); err != nil {
			cause = errors.Join(cause, err)
		}
	}
	if errors.Is(cause, context.Canceled) {
		return drover.Errorf(drover.Canceled, "%s in the guest was canceled: %w", req.Op, cause)
	}
	return drover.Errorf(drover.Unavailable, "the guest does not answer %s: %w", req.Op, cause)
}

// cancelRequest asks the guest to kill what a request has started. There is no answer to wait for.
func (c *Client) cancelRequest(id uint64) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c.mu.Lock()
	c.lastID++
	own := c.lastID
	c.mu.Unlock()
	return c.send(ctx, Request{ID: own, Op: OpCancel, Cancel: id}, "")
}

// send writes a frame. A frame that was cut by the context makes the connection useless, so it is ended.
func (c *Client) send(ctx context.Context, req Request, before string) error {
	frame, err := EncodeFrame(req)
	if err != nil {
		return err
	}
	return c.write(ctx, req.Op, append([]byte(before), frame...))
}

// write writes a whole frame, or ends the connection.
func (c *Client) write(ctx context.Context, op string, frame []byte) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	if ctx.Err() != nil {
		return drover.Errorf(drover.Unavailable, "cannot send %s to the guest: %w", op, context.Cause(ctx))
	}
	deadline, _ := ctx.Deadline() // every caller has bounded ctx
	err := c.conn.SetWriteDeadline(deadline)
	if err == nil {
		_, err = c.conn.Write(frame)
	}
	if err != nil {
		return drover.Errorf(drover.Unavailable, "cannot send %s to the guest: %w", op, errors.Join(err, c.conn.Close()))
	}
	return nil
}

// read hands answers to those who wait for them, until the connection ends. What an earlier client left is dropped: everything
// before a Magic that the answer with our nonce follows.
func (c *Client) read(nonce string, greeted chan<- Answer) {
	defer close(c.ended)
	defer c.endStreams()
	var d Decoder
	ours := false
	buffer := make([]byte, 64<<10)
	for {
		n, err := c.conn.Read(buffer)
		if d.Feed(buffer[:n]) {
			ours = false
		}
		for frame := d.Next(); frame != nil; frame = d.Next() {
			if id, f, ok := DecodeStream(frame); ok {
				if ours {
					c.deliverFrame(id, f)
				}
				continue
			}
			var a Answer
			if json.Unmarshal(frame, &a) != nil {
				d.Reset() // nothing that follows can be believed
				break
			}
			switch {
			case a.Nonce == nonce:
				ours = true
				select {
				case greeted <- a:
				default:
				}
			case ours:
				c.deliver(a)
			}
		}
		if broken := ours && !d.InSession(); broken || err != nil {
			c.conn.Close() // so that writers fail too; there is nobody to tell of an error
			return
		}
	}
}

// deliver hands an answer over; one that nobody waits for any more is dropped.
func (c *Client) deliver(a Answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if answered := c.waiting[a.ID]; answered != nil {
		answered <- a
		delete(c.waiting, a.ID)
	}
}
