package main

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover"
	"drover/guest"
	"drover/internal/frames"
)

// endOfInput is what a terminal takes for it.
const endOfInput = 0x04

// streamed is a command that runs with a stream.
type streamed struct {
	conn   frames.Conn
	window *frames.Window
	ends   *ends
	procs  *processes
	proc   *process
	taken  frames.Tally
}

// run passes input and output on until the command has ended, or ctx ends.
func (w *streamed) run(ctx context.Context, name string) (drover.StreamExit, error) {
	work, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var outputs, inputs sync.WaitGroup
	for i, file := range w.ends.output {
		kind := [...]frames.Kind{frames.Stdout, frames.Stderr}[i]
		outputs.Go(func() {
			if err := w.copyOut(work, kind, file); err != nil {
				stop(err)
			}
		})
	}
	stdin := make(chan frames.Frame, frames.QueueSize)
	inputs.Go(func() { w.feed(work, stdin) })
	inputs.Go(func() {
		defer close(stdin)
		if err := w.obey(work, stdin); err != nil {
			stop(err)
		}
	})
	select {
	case <-w.proc.done:
		w.finish(work, &outputs)
	case <-work.Done():
		w.hangUp(&outputs)
	}
	cause := context.Cause(work)
	stop(nil)
	w.ends.close() // what still reads or writes ends with an error
	outputs.Wait()
	inputs.Wait()
	if cause != nil {
		return drover.StreamExit{}, drover.Errorf(codeOf(cause), "%q was ended: %w", name, cause).WithField(drover.AsError(cause).Field)
	}
	code, sig := exitCode(w.proc.status)
	return drover.StreamExit{ExitCode: code, ExitSignal: sig}, nil
}

// codeOf is the code of why a command was ended.
func codeOf(cause error) drover.Code {
	if code := drover.CodeOf(cause); code != drover.Internal {
		return code
	}
	return drover.Canceled
}

// finish waits for the rest of the output, for as long as the client takes what there is; what the command left in the background may hold it
// open for ever.
func (w *streamed) finish(ctx context.Context, outputs *sync.WaitGroup) {
	for _, f := range w.ends.output {
		if err := f.SetReadDeadline(time.Now().Add(lingerWait)); err != nil {
			return // it is closed, so it is read
		}
	}
	ended := make(chan struct{})
	go func() {
		outputs.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

// hangUp ends the command: gently, and after a while not. A terminal is gone at once. Pipes are read on until the command has ended: one that says something
// as it cleans up, as shells do, would end by SIGPIPE before it has.
func (w *streamed) hangUp(outputs *sync.WaitGroup) {
	if w.ends.master != nil {
		w.ends.close()
	} else {
		w.ends.input.Close() // may be closed already
		for _, f := range w.ends.output {
			outputs.Go(func() { _, _ = io.Copy(io.Discard, f) }) // ends with the command, or when it is closed
		}
	}
	for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGCONT} {
		if err := unix.Kill(-w.proc.pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			console("cannot hang up on process group %d: %v", w.proc.pid, err)
		}
	}
	select {
	case <-w.proc.done:
	case <-time.After(hangUpWait):
		if err := w.procs.killGroup(w.proc); err != nil {
			console("%v", err)
		}
		<-w.proc.done // SIGKILL cannot be refused
	}
}

// copyOut sends what the command writes, as fast as the client takes it. An error is the client's or the connection's.
func (w *streamed) copyOut(ctx context.Context, kind frames.Kind, file *os.File) error {
	buffer := make([]byte, frames.MaxData)
	for {
		n, err := file.Read(buffer)
		if n > 0 {
			f := frames.Frame{Kind: kind, Data: buffer[:n]}
			if err := w.window.Take(ctx, f.Cost()); err != nil {
				return err
			}
			if err := w.conn.Send(ctx, f); err != nil {
				return err
			}
			w.stillReads(file)
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, unix.EIO), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, os.ErrClosed):
			return nil // EIO is how a terminal says that nobody has it open
		default:
			return drover.Errorf(drover.Internal, "cannot read the command's output: %w", err)
		}
	}
}

// stillReads gives what is left of an ended command's output more time, once the client has taken a part of it.
func (w *streamed) stillReads(file *os.File) {
	select {
	case <-w.proc.done:
		_ = file.SetReadDeadline(time.Now().Add(lingerWait)) // a closed file is read no more
	default:
	}
}

// obey takes the client's frames: input is passed to feed, the others are done at once. It returns when the command's end is near, or with an
// error when the client is gone or does what it may not.
func (w *streamed) obey(ctx context.Context, stdin chan<- frames.Frame) error {
	for {
		f, err := w.conn.Receive(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return errHungUp
		}
		switch f.Kind {
		case frames.Stdin, frames.StdinEnd:
			select {
			case stdin <- f:
			default:
				return drover.Errorf(drover.Internal, "the client sent more input than there is room for")
			}
		case frames.Credit:
			n, err := f.Taken()
			if err == nil {
				err = w.window.Give(n)
			}
			if err != nil {
				return err
			}
		case frames.Resize:
			size, err := f.Size()
			if err != nil {
				return err
			}
			if w.ends.master == nil {
				continue
			}
			if err := setSize(w.ends.master, size); err != nil && !errors.Is(err, os.ErrClosed) {
				return err
			}
		case frames.Signal:
			sig, err := guest.ParseSignal(string(f.Data))
			if err != nil {
				return err
			}
			if err := unix.Kill(-w.proc.pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
				return drover.Errorf(drover.Internal, "cannot send signal %d to the command: %w", sig, err)
			}
		}
	}
}

// feed writes the input, and tells the client what was taken. What a command does not read any more is dropped.
func (w *streamed) feed(ctx context.Context, stdin <-chan frames.Frame) {
	var broken, ended bool
	for f := range stdin {
		data := f.Data
		if f.Kind == frames.StdinEnd && w.ends.master != nil {
			data = []byte{endOfInput}
		}
		if len(data) > 0 && !broken && !ended {
			_, err := w.ends.input.Write(data)
			broken = err != nil
		}
		if f.Kind == frames.StdinEnd {
			if w.ends.master == nil {
				w.ends.input.Close() // nothing is kept in a pipe's writing end
			}
			ended = true
			continue
		}
		if credit := w.taken.Took(f.Cost()); credit > 0 {
			if w.conn.Send(ctx, frames.NewCredit(credit)) != nil {
				broken = true // obey sees it too
			}
		}
	}
}
