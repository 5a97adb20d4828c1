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
	gap, most time.Duration
	count     int
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
		r.gap = max(r.gap, at.Sub(r.last))
		r.most = max(r.most, r.gap)
	}
	r.acked[id], r.last, r.count = true, at, r.count+1
}

// mark begins to look for the longest gap anew.
func (r *recorder) mark() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gap = 0
}

// gaps returns the longest gap since mark, and the longest of all. One that is not over counts as long as it is.
func (r *recorder) gaps(now time.Time) (sinceMark, ever time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var open time.Duration
	if !r.last.IsZero() {
		open = now.Sub(r.last)
	}
	return max(r.gap, open), max(r.most, open)
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
