package frames

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"io"

	"drover"
)

// Kind says what a frame is. It is its first byte on every wire; the table only grows.
type Kind byte

// The kinds of frames. The client sends those of the first group, the guest those of the second, both those of the third.
const (
	// Stdin has bytes for the command, StdinEnd says that no more follow. Resize is the terminal's new size, Signal the name of a signal.
	Stdin    Kind = 'i'
	StdinEnd Kind = 'e'
	Resize   Kind = 'w'
	Signal   Kind = 's'

	// Stdout and Stderr have bytes that the command wrote; a terminal has Stdout only. Exit is the command's end, Fail the end of the stream by
	// anything else; nothing follows them.
	Stdout Kind = 'o'
	Stderr Kind = 'r'
	Exit   Kind = 'x'
	Fail   Kind = 'f'

	// Credit says how much of the other's data was taken in since the last one.
	Credit Kind = 'c'
)

// MaxData bounds the data of one frame.
const MaxData = 32 << 10

// Frame is one message of a stream.
type Frame struct {
	Kind Kind
	Data []byte
}

// Conn is one end of a stream. Send and Receive may be called at the same time, each by one goroutine; Close by any.
type Conn interface {
	Send(ctx context.Context, f Frame) error
	// Receive returns io.EOF when the other end has closed the stream in order, Unavailable when it is gone.
	Receive(ctx context.Context) (Frame, error)
	// Close ends the stream. It may be called more than once.
	Close() error
}

// Append appends the frame's bytes to b.
func (f Frame) Append(b []byte) []byte { return append(append(b, byte(f.Kind)), f.Data...) }

// Parse reads a frame; its data is part of b.
func Parse(b []byte) (Frame, error) {
	if len(b) == 0 || len(b) > 1+MaxData {
		return Frame{}, drover.Errorf(drover.Invalid, "a frame of %d bytes; expected 1 to %d", len(b), 1+MaxData)
	}
	return Frame{Kind: Kind(b[0]), Data: b[1:]}, nil
}

// Counts tells whether the frame counts against a Window.
func (f Frame) Counts() bool { return f.Kind == Stdin || f.Kind == Stdout || f.Kind == Stderr }

// Ends tells whether nothing follows the frame.
func (f Frame) Ends() bool { return f.Kind == Exit || f.Kind == Fail }

// NewResize makes the frame of a terminal's size.
func NewResize(s drover.TerminalSize) Frame {
	return Frame{Kind: Resize, Data: binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, s.Rows), s.Columns)}
}

// Size reads a frame of the kind Resize.
func (f Frame) Size() (drover.TerminalSize, error) {
	if len(f.Data) != 4 {
		return drover.TerminalSize{}, drover.Errorf(drover.Invalid, "a size of %d bytes; expected 4", len(f.Data))
	}
	return drover.TerminalSize{Rows: binary.BigEndian.Uint16(f.Data), Columns: binary.BigEndian.Uint16(f.Data[2:])}, nil
}

// NewCredit makes the frame that says that n was taken in.
func NewCredit(n int) Frame {
	return Frame{Kind: Credit, Data: binary.BigEndian.AppendUint32(nil, uint32(n))}
}

// Taken reads a frame of the kind Credit.
func (f Frame) Taken() (int, error) {
	if len(f.Data) != 4 || binary.BigEndian.Uint32(f.Data) > WindowSize {
		return 0, drover.Errorf(drover.Invalid, "a credit that cannot be: %x", f.Data)
	}
	return int(binary.BigEndian.Uint32(f.Data)), nil
}

// NewExit makes the frame of a command's end.
func NewExit(e drover.StreamExit) Frame {
	data, err := json.Marshal(e)
	if err != nil {
		return NewFail(drover.Errorf(drover.Internal, "cannot write how the command ended: %w", err))
	}
	return Frame{Kind: Exit, Data: data}
}

// NewFail makes the frame of an error. What is too long for a frame is cut.
func NewFail(err error) Frame {
	e := *drover.AsError(err)
	e.Text = e.Text[:min(len(e.Text), MaxData/4)]
	e.Hint = e.Hint[:min(len(e.Hint), MaxData/16)]
	data, err := json.Marshal(&e)
	if err != nil || len(data) > MaxData {
		data = []byte(`{"code":"internal","text":"the reason cannot be told"}`)
	}
	return Frame{Kind: Fail, Data: data}
}

// Ended reads a frame of the kind Exit or Fail.
func (f Frame) Ended() (drover.StreamExit, error) {
	if f.Kind == Exit {
		var e drover.StreamExit
		if err := json.Unmarshal(f.Data, &e); err != nil {
			return e, drover.Errorf(drover.Internal, "cannot read how the command ended: %w", err)
		}
		return e, nil
	}
	var e drover.Error
	if err := json.Unmarshal(f.Data, &e); err != nil || e.Code == "" {
		return drover.StreamExit{}, drover.Errorf(drover.Internal, "the stream ended with an error that cannot be read: %q", f.Data)
	}
	return drover.StreamExit{}, &e
}

// Cut is the error of a stream whose other end is gone.
func Cut(cause error) error {
	if cause == nil || cause == io.EOF {
		return drover.Errorf(drover.Unavailable, "the connection to the command was lost")
	}
	return drover.Errorf(drover.Unavailable, "the connection to the command was lost: %w", cause)
}
