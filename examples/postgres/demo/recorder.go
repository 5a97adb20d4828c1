package main

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
)

// recorder takes down what a client says of acknowledged commits: which there are, and how long none came.
type recorder struct {
	mu    sync.Mutex
	acked map[int64]bool
	last  time.Time
	// gap is the longest time between two of them since mark, most the longest of all.
	gap, most gap
	count     int
}

// gap is a time in which no commit was acknowledged.
type gap struct {
	from time.Time
	took time.Duration
}

func (g gap) or(other gap) gap {
	if other.took > g.took {
		return other
	}
	return g
}

// String tells how long it took and since when, which can be compared with the times of a move.
func (g gap) String() string {
	return fmt.Sprintf("%d ms from %s", g.took.Milliseconds(), g.from.UTC().Format("15:04:05.000"))
}

func newRecorder() *recorder { return &recorder{acked: map[int64]bool{}} }

// read takes down what the client prints until it ends. Other lines are an error: a record that is not understood is none.
func (r *recorder) read(from io.Reader, now func() time.Time) error {
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		id, err := parseAck(lines.Text())
		if err != nil {
			return err
		}
		r.ack(id, now())
	}
	return lines.Err()
}

// parseAck reads a line "ack ID".
func parseAck(line string) (int64, error) {
	text, ok := strings.CutPrefix(line, "ack ")
	id, err := strconv.ParseInt(text, 10, 64)
	if !ok || err != nil {
		return 0, fmt.Errorf("the client printed %.60q, which is no acknowledgement", line)
	}
	return id, nil
}

func (r *recorder) ack(id int64, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.last.IsZero() {
		r.gap = r.gap.or(gap{r.last, at.Sub(r.last)})
		r.most = r.most.or(r.gap)
	}
	r.acked[id], r.last, r.count = true, at, r.count+1
}

// mark begins to look for the longest gap anew.
func (r *recorder) mark() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gap = gap{}
}

// gaps returns the longest gap since mark, and the longest of all. One that is not over counts as long as it is.
func (r *recorder) gaps(now time.Time) (sinceMark, ever gap) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var open gap
	if !r.last.IsZero() {
		open = gap{r.last, now.Sub(r.last)}
	}
	return r.gap.or(open), r.most.or(open)
}

// total is how many commits were acknowledged.
func (r *recorder) total() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

// missing lists the acknowledged rows that are not among those that are there.
func (r *recorder) missing(there map[int64]bool) []int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var lost []int64
	for id := range r.acked {
		if !there[id] {
			lost = append(lost, id)
		}
	}
	return lost
}
