package main

import (
	"io"
	"os"

	"golang.org/x/term"

	"drover"
)

// terminal is that of whoever runs this command: a command in a machine gets its keys and writes on it.
type terminal struct{ in, out *os.File }

// terminal returns it when both stdin and stdout are one.
func (c *cli) terminal() (terminal, bool) {
	in, inOK := c.stdin.(*os.File)
	out, outOK := c.stdout.(*os.File)
	ok := inOK && outOK && term.IsTerminal(int(in.Fd())) && term.IsTerminal(int(out.Fd()))
	return terminal{in, out}, ok
}

// size is zero when it is not known.
func (t terminal) size() drover.TerminalSize {
	columns, rows, err := term.GetSize(int(t.out.Fd()))
	if err != nil || columns < 0 || rows < 0 || columns > 1<<16-1 || rows > 1<<16-1 {
		return drover.TerminalSize{}
	}
	return drover.TerminalSize{Rows: uint16(rows), Columns: uint16(columns)}
}

// raw makes every key a byte of the input, Ctrl-C too; the result puts things back.
func (t terminal) raw() (restore func() error, err error) {
	before, err := term.MakeRaw(int(t.in.Fd()))
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot take over the terminal: %w", err)
	}
	return func() error { return term.Restore(int(t.in.Fd()), before) }, nil
}

// The keys that are not passed on: at the beginning of a line escapeKey and one of these. Twice escapeKey is itself.
const (
	escapeKey = '~'
	leaveKey  = '.'
)

// escapeReader passes keys on and ends at the escape, which it then tells left of.
type escapeReader struct {
	r    io.Reader
	left func()
	// inLine: the last key was not Enter. escaped: it was escapeKey, which is held back.
	inLine, escaped, ended bool
}

// Read returns keys that are to be passed on.
func (e *escapeReader) Read(b []byte) (int, error) {
	if e.ended {
		return 0, io.EOF
	}
	if len(b) < 2 {
		return 0, io.ErrShortBuffer
	}
	keys := make([]byte, len(b)-1) // one that was held back has room
	n, err := e.r.Read(keys)
	out := b[:0]
	for _, key := range keys[:n] {
		switch {
		case e.escaped && key == leaveKey:
			e.ended = true
			e.left()
			return len(out), nil
		case e.escaped && key != escapeKey:
			out = append(out, escapeKey)
		case !e.escaped && !e.inLine && key == escapeKey:
			e.escaped = true
			continue
		}
		e.escaped = false
		e.inLine = key != '\r' && key != '\n'
		out = append(out, key)
	}
	return len(out), err
}
