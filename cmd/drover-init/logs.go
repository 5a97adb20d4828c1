package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"drover/guest"
)

// logPatience is how long the main process may be held up by a host that does not take its output. After that lines are dropped
// and counted until the host takes some again.
const logPatience = 5 * time.Second

// logWriter turns what the main process writes into lines of the log port.
type logWriter struct {
	mu   sync.Mutex
	port *port
	// stuck: the last write did not get through; the next does not wait.
	stuck bool
	// dropped counts lost lines; unsaid those that the log does not mention yet.
	dropped, unsaid uint64
}

// source is who writes lines: a stream of a process, which has a name where there are several.
type source struct{ stream, process string }

// own is the source of what drover-init itself has to say.
var own = source{stream: "stderr"}

// copy reads r to its end and writes it as lines of the source. A last line without a newline counts.
func (l *logWriter) copy(from source, r io.Reader) error {
	buffer := make([]byte, 0, 2*guest.MaxLogText)
	var out []byte
	for {
		n, err := r.Read(buffer[len(buffer):cap(buffer)])
		buffer = buffer[:len(buffer)+n]
		if errors.Is(err, unix.EIO) {
			err = io.EOF // a terminal that nobody has open any more
		}
		now := time.Now().UnixNano()
		out = out[:0]
		lines := uint64(0)
		rest := buffer
		for {
			text, more, ok := cutLine(rest, err != nil)
			if !ok {
				break
			}
			out = appendRecord(out, now, from, text)
			lines++
			rest = more
		}
		buffer = append(buffer[:0], rest...)
		l.write(out, lines)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read the main process's %s: %w", from.stream, err)
		}
	}
}

// say writes a line of our own to the log, as stderr.
func (l *logWriter) say(format string, args ...any) {
	l.write(appendRecord(nil, time.Now().UnixNano(), own, fmt.Appendf(nil, "drover: "+format, args...)), 1)
}

// lost returns how many lines were dropped.
func (l *logWriter) lost() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped
}

// write hands lines to the host.
func (l *logWriter) write(out []byte, lines uint64) {
	if lines == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	patience := logPatience
	if l.stuck {
		patience = 0
	}
	if l.unsaid > 0 {
		note := fmt.Appendf(nil, "drover: %d lines were dropped because the host did not take them", l.unsaid)
		out = append(appendRecord(nil, time.Now().UnixNano(), own, note), out...)
	}
	if err := l.port.write(out, patience); err != nil {
		if !l.stuck {
			console("cannot write the log: %v", err)
		}
		l.stuck = true
		if !errors.Is(err, errKept) {
			l.dropped += lines
			l.unsaid += lines
		}
		return
	}
	l.stuck, l.unsaid = false, 0
}

// cutLine takes the first line off b: up to a newline, or MaxLogText bytes of a longer line, or at the end all there is.
func cutLine(b []byte, end bool) (text, rest []byte, ok bool) {
	at := bytes.IndexByte(b[:min(len(b), guest.MaxLogText+1)], '\n')
	switch {
	case at >= 0:
		return b[:at], b[at+1:], true
	case len(b) > guest.MaxLogText:
		at = guest.MaxLogText
		// Do not cut a character into halves: go back to where it starts, unless it is none.
		for back := 1; back < utf8.UTFMax; back++ {
			if utf8.RuneStart(b[at]) {
				break
			}
			if utf8.RuneStart(b[at-back]) && utf8.FullRune(b[at-back:]) {
				at -= back
				break
			}
		}
		return b[:at], b[at:], true
	case end && len(b) > 0:
		return b, nil, true
	}
	return nil, b, false
}

// appendRecord appends a log line as JSON: {"t":nanoseconds,"s":"stdout","m":"text"}, and "p" for the process if it has a name. It is written by hand because every byte that
// the main process prints comes through here.
func appendRecord(out []byte, t int64, from source, text []byte) []byte {
	out = append(out, `{"t":`...)
	out = strconv.AppendInt(out, t, 10)
	out = append(out, `,"s":"`...)
	out = append(out, from.stream...)
	if from.process != "" {
		out = append(out, `","p":"`...)
		out = appendText(out, []byte(from.process))
	}
	out = append(out, `","m":"`...)
	out = appendText(out, text)
	return append(out, "\"}\n"...)
}

// appendText appends text as the inside of a JSON string. What is not UTF-8 becomes U+FFFD.
func appendText(out, text []byte) []byte {
	const hex = "0123456789abcdef"
	for len(text) > 0 {
		c := text[0]
		switch {
		case c == '"' || c == '\\':
			out = append(out, '\\', c)
		case c < 0x20 || c == 0x7f:
			out = append(out, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			out = append(out, c)
		default:
			r, size := utf8.DecodeRune(text)
			out = utf8.AppendRune(out, r)
			text = text[size:]
			continue
		}
		text = text[1:]
	}
	return out
}
