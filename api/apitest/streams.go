package apitest

import (
	"context"
	"fmt"
	"io"
	"strings"

	"drover"
	"drover/internal/frames"
)

// ExecStream runs a command that gives back its input, after a line with what was asked, and ends with the code 3 when the input has ended or has a
// line "exit". A resize and a signal are told as lines. The command "refused" is refused.
func (b *Backend) ExecStream(_ context.Context, app drover.AppName, req drover.ExecStreamRequest) (frames.Conn, error) {
	if err := b.begin("ExecStream"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	if len(req.Command) > 0 && req.Command[0] == "refused" {
		return nil, drover.Errorf(drover.Precondition, "machine %q is stopped, not started", req.Machine).WithHint("start the machine first")
	}
	s := &echo{queue: frames.NewQueue()}
	if len(req.Command) > 0 && req.Command[0] == "slow" {
		s.queue.Put(frames.NewFail(drover.Errorf(drover.Canceled, "%q was ended: it ran longer than %s", req.Command[0], req.Timeout).WithField(drover.TimeoutField)))
		return s, nil
	}
	s.say("%s/%s %q %v %dx%d\n", app, req.Machine, req.Command, req.Terminal, req.Size.Rows, req.Size.Columns)
	return s, nil
}

// echo is the command's end of a stream.
type echo struct {
	queue *frames.Queue
	taken frames.Tally
}

func (e *echo) say(format string, args ...any) {
	e.queue.Put(frames.Frame{Kind: frames.Stdout, Data: fmt.Appendf(nil, format, args...)})
}

// Send takes a frame of the client.
func (e *echo) Send(_ context.Context, f frames.Frame) error {
	switch f.Kind {
	case frames.Stdin:
		if !e.queue.Put(frames.Frame{Kind: frames.Stdout, Data: f.Data}) {
			return drover.Errorf(drover.Internal, "the client sent more than there is room for")
		}
		if credit := e.taken.Took(f.Cost()); credit > 0 {
			e.queue.Put(frames.NewCredit(credit))
		}
		if strings.Contains(string(f.Data), "exit") {
			e.queue.Put(frames.NewExit(drover.StreamExit{ExitCode: 3}))
		}
	case frames.StdinEnd:
		e.queue.Put(frames.Frame{Kind: frames.Stderr, Data: []byte("end\n")})
		e.queue.Put(frames.NewExit(drover.StreamExit{ExitCode: 3}))
	case frames.Resize:
		size, err := f.Size()
		e.say("%dx%d %v\n", size.Rows, size.Columns, err)
	case frames.Signal:
		e.say("signal %s\n", f.Data)
	}
	return nil
}

// Receive returns the command's next frame.
func (e *echo) Receive(ctx context.Context) (frames.Frame, error) { return e.queue.Get(ctx) }

// Close hangs up.
func (e *echo) Close() error {
	e.queue.End(io.EOF)
	return nil
}
