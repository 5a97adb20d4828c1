package main

import (
	"fmt"
	"io"
	"strings"
)

// progress tells on stderr what goes on: on a terminal the present state is one line that is drawn again and again; elsewhere each
// change is a line.
type progress struct {
	w      io.Writer
	redraw bool
	width  int
	// drawn is the length of the line that is on the terminal now, key what the last line elsewhere was about.
	drawn int
	key   string
}

func (c *cli) progress() *progress {
	return &progress{w: c.stderr, redraw: c.redraw, width: c.width}
}

// state shows what goes on now. A line is printed elsewhere than on a terminal only when the key is another than the last one's.
func (p *progress) state(key, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !p.redraw {
		if key != p.key {
			p.key = key
			fmt.Fprintln(p.w, text)
		}
		return
	}
	if len(text) >= p.width {
		text = text[:max(0, p.width-1)]
	}
	fmt.Fprintf(p.w, "\r%s%s", text, strings.Repeat(" ", max(0, p.drawn-len(text))))
	p.drawn = len(text)
}

// line prints a line that stays.
func (p *progress) line(format string, args ...any) {
	p.clear()
	fmt.Fprintf(p.w, format+"\n", args...)
}

// clear removes the line that is drawn again and again.
func (p *progress) clear() {
	if p.drawn > 0 {
		fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", p.drawn))
		p.drawn = 0
	}
}
