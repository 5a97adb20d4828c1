package frames

import (
	"context"
	"errors"
	"io"
)

// Relay passes frames on between two ends until the stream has ended, an end is gone, or ctx ends. client is the end that started the command,
// guest that of the command. When the guest's end is lost, the client is told why. Both ends are closed when it returns.
func Relay(ctx context.Context, client, guest Conn) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		lost, err := pass(ctx, client, guest)
		if lost == client {
			err = &leftError{err}
		}
		cancel(err)
	}()
	_, err := pass(ctx, guest, client)
	if cause := context.Cause(ctx); cause != nil {
		err = cause // that of the other direction, or whoever asked for the end
	}
	if errors.Is(err, context.Canceled) {
		err = Cut(errors.New("a part of Drover on the way was stopped"))
	}
	if err != nil && !Left(err) {
		// The client may have left as well.
		_ = client.Send(context.WithoutCancel(ctx), NewFail(err))
	}
	guest.Close() // the stream has ended, or cannot go on
	client.Close()
	cancel(nil) // not before: what was sent is to arrive
	<-sent
	return err
}

// leftError says that the client is gone.
type leftError struct{ cause error }

func (e *leftError) Error() string { return "whoever started the command has left" }
func (e *leftError) Unwrap() error { return e.cause }

// Left tells whether a Relay ended because the client had left, which is no fault.
func Left(err error) bool {
	var left *leftError
	return errors.As(err, &left)
}

// pass passes frames on in one direction until the one that ends the stream. lost is the end that is gone, if one is.
func pass(ctx context.Context, from, to Conn) (lost Conn, err error) {
	for {
		f, err := from.Receive(ctx)
		if errors.Is(err, io.EOF) {
			return from, Cut(nil)
		}
		if err != nil {
			return from, err
		}
		if err := to.Send(ctx, f); err != nil {
			return to, err
		}
		if f.Ends() {
			return nil, nil
		}
	}
}
