package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/coder/websocket"

	"drover"
	"drover/apiv1"
	"drover/internal/frames"
	"drover/internal/framesws"
)

// Command is a command that runs in a machine, with its input and output. It is hung up when it is closed before it has ended. Resize and Signal may be
// called while Run runs.
type Command struct {
	conn   *framesws.Conn
	window *frames.Window
	taken  frames.Tally
	// sending is held while a frame is sent.
	sending sync.Mutex
}

// Start starts a command in a machine, or its shell if the request names none. The machine must be started. What cannot be run ends with the code
// 127 or 126, and says why on stderr.
func (c *Client) Start(ctx context.Context, app drover.AppName, id drover.MachineID, req apiv1.ExecStreamRequest) (*Command, error) {
	header := http.Header{}
	if c.token != "" {
		header.Set("Authorization", "Bearer "+c.token)
	}
	target := c.base + pathOf(machinePath+"/exec/stream", []any{app, id})
	ws, resp, err := websocket.Dial(ctx, target, &websocket.DialOptions{HTTPClient: c.http, HTTPHeader: header, Subprotocols: []string{framesws.Protocol},
		CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return nil, drover.AsError(c.refusedStream(ctx, resp, err))
	}
	cmd := &Command{conn: framesws.New(ctx, ws), window: frames.NewWindow()}
	if err := cmd.conn.SendRequest(ctx, req); err != nil {
		cmd.Close() // it is gone
		if ctx.Err() != nil {
			return nil, c.transportError(ctx, err)
		}
		return nil, err
	}
	return cmd, nil
}

// refusedStream is why no WebSocket was begun.
func (c *Client) refusedStream(ctx context.Context, resp *http.Response, err error) error {
	if resp == nil || resp.Body == nil {
		return c.transportError(ctx, errors.Unwrap(err))
	}
	data, readErr := io.ReadAll(resp.Body)
	if readErr != nil || resp.StatusCode/100 == 2 {
		return drover.Errorf(drover.Unavailable, "the API at %s does not talk by WebSocket: %w", c.base, err).WithHint("is there a proxy before it?")
	}
	return readAnswer(resp, data, nil)
}

// Run passes input and output on until the command has ended, and returns how. A nil stdin is none. Errors of stdin end the input; those of stdout
// and stderr, and the end of ctx, hang up on the command. A read of stdin may still be waiting when Run returns: nothing it gets is used.
func (c *Command) Run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) (drover.StreamExit, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	go c.feed(ctx, stdin)
	for {
		f, err := c.conn.Receive(ctx)
		switch {
		case err != nil && ctx.Err() != nil:
			return drover.StreamExit{}, drover.Errorf(drover.Canceled, "the command was hung up on: %w", context.Cause(ctx))
		case errors.Is(err, io.EOF):
			return drover.StreamExit{}, frames.Cut(nil)
		case err != nil:
			return drover.StreamExit{}, err
		case f.Ends():
			exit, err := f.Ended()
			return exit, errors.Join(err, c.Close())
		}
		if err := c.take(f, stdout, stderr); err != nil {
			return drover.StreamExit{}, err
		}
	}
}

// take does what a frame of the command says.
func (c *Command) take(f frames.Frame, stdout, stderr io.Writer) error {
	to := stdout
	switch f.Kind {
	case frames.Credit:
		n, err := f.Taken()
		if err != nil {
			return err
		}
		return c.window.Give(n)
	case frames.Stderr:
		to = stderr
	case frames.Stdout:
	default:
		return nil // a kind of a newer version
	}
	if _, err := to.Write(f.Data); err != nil {
		return drover.Errorf(drover.Canceled, "the command was hung up on, since its output cannot be written: %w", err)
	}
	if credit := c.taken.Took(f.Cost()); credit > 0 {
		return c.send(frames.NewCredit(credit))
	}
	return nil
}

// feed sends the input until its end, as fast as the command takes it.
func (c *Command) feed(ctx context.Context, stdin io.Reader) {
	buffer := make([]byte, frames.MaxData)
	for stdin != nil {
		n, err := stdin.Read(buffer)
		f := frames.Frame{Kind: frames.Stdin, Data: buffer[:n]}
		if n > 0 && (c.window.Take(ctx, f.Cost()) != nil || c.send(f) != nil) {
			return // the command has ended, or the connection: Run knows
		}
		if err != nil {
			break
		}
	}
	_ = c.send(frames.Frame{Kind: frames.StdinEnd}) // as above
}

func (c *Command) send(f frames.Frame) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	return c.conn.Send(context.Background(), f)
}

// Resize tells the command's terminal its new size.
func (c *Command) Resize(size drover.TerminalSize) error { return c.send(frames.NewResize(size)) }

// Signal sends the command a signal by name, such as "INT".
func (c *Command) Signal(name string) error {
	return c.send(frames.Frame{Kind: frames.Signal, Data: []byte(name)})
}

// Close hangs up on the command, if it still runs.
func (c *Command) Close() error { return c.conn.Close() }
