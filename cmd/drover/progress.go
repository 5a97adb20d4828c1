package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"drover"
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

// meter tells the rate of the last seconds from amounts that were seen.
type meter struct {
	seen []sighting
}

type sighting struct {
	at   time.Time
	have drover.Bytes
}

// meterWindow is over how long a rate is taken.
const meterWindow = 5 * time.Second

// rate takes the amount of this moment in and returns the rate; 0 as long as it cannot be told.
func (m *meter) rate(now time.Time, have drover.Bytes) drover.Bytes {
	m.seen = append(m.seen, sighting{at: now, have: have})
	for len(m.seen) > 2 && now.Sub(m.seen[1].at) >= meterWindow {
		m.seen = m.seen[1:]
	}
	first := m.seen[0]
	took := now.Sub(first.at)
	if took <= 0 || have < first.have {
		return 0
	}
	return drover.Bytes(float64(have-first.have) / took.Seconds())
}
