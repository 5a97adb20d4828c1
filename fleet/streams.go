package fleet

import (
	"context"
	"time"

	"drover"
	"drover/internal/frames"
	"drover/natsbus"
)

// streamWait is how long a command may take to be started.
const streamWait = 30 * time.Second

// ExecStream starts a command in a machine, whose input and output go by the stream. Closing it hangs up on the command.
func (f *Fleet) ExecStream(ctx context.Context, app drover.AppName, req drover.ExecStreamRequest) (frames.Conn, error) {
	if err := req.Validate(); err != nil {
		return nil, err
	}
	host, err := f.hostOf(ctx, app, req.Machine)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, streamWait)
	defer cancel()
	return natsbus.OpenStream(ctx, f.conn, host, drover.OrderExecStream, req)
}
