package testkit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Watch sees a machine that runs the demo's writer from outside: what it acknowledged, on whichever host, and how many VMs of
// it run. It reads the files in which the hosts keep the machine's output, and the process table.
type Watch struct {
	fleetDir string
	machine  string

	mu sync.Mutex
	// acked is the highest acknowledged record, filled the highest number of blocks that were said to be durable.
	acked, filled uint64
	// acks counts acknowledgements, lastAck is when the newest was seen, boot the run it came from.
	acks    uint64
	lastAck time.Time
	boot    string
	boots   map[string]bool
	// gap is the longest time without an acknowledgement since it was last reset, gapFrom when it began.
	gap     time.Duration
	gapFrom time.Time
	// known are the records that were acknowledged. The order in which lines of different hosts are read says nothing, numbers do: a run
	// goes on after the last record that it finds, so that no number is ever acknowledged twice by one runner.
	known numbers
	// twoRunners counts times at which two VMs of the machine ran, and records that were acknowledged twice.
	twoRunners int
	// lost counts records that were acknowledged and not found by a later run.
	lost    uint64
	corrupt []string
	err     error
}

// maxRecord bounds the numbers that are believed: a line of a damaged log must not take the memory.
const maxRecord = 1 << 28

// NewWatch watches a machine of the fleet in a directory.
func NewWatch(fleetDir, machine string) *Watch {
	return &Watch{fleetDir: fleetDir, machine: machine, boots: map[string]bool{}}
}

// Run watches until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	files := map[string]*tail{}
	defer func() {
		for _, t := range files {
			t.file.Close()
		}
	}()
	for n := 0; ; n++ {
		if n%10 == 0 {
			w.findLogs(files)
		}
		if n%40 == 0 { // reading the whole process table costs milliseconds
			w.countVMs()
		}
		for _, t := range files {
			w.fail(t.lines(w.line))
		}
		select {
		case <-ctx.Done():
			for _, t := range files {
				w.fail(t.lines(w.line))
			}
			return
		case <-tick.C:
		}
	}
}

// findLogs opens the machine's log on each host as soon as it exists. The files stay open: what was written to one that is removed
// meanwhile is still read.
func (w *Watch) findLogs(files map[string]*tail) {
	paths, _ := filepath.Glob(filepath.Join(w.fleetDir, "hosts", "*", "data", "machines", w.machine, "log"))
	for _, path := range paths {
		st, err := os.Stat(path)
		if err != nil {
			continue
		}
		if old, ok := files[path]; ok {
			if seen, err := old.file.Stat(); err == nil && os.SameFile(seen, st) {
				continue
			}
			w.fail(old.lines(w.line))
			old.file.Close()
		}
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		files[path] = &tail{file: f}
	}
}

// line takes one line of the machine's output.
func (w *Watch) line(text string) {
	fields := strings.Fields(text)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case len(fields) == 3 && fields[0] == "ACK":
		n, err := strconv.ParseUint(fields[1], 10, 64)
		if err != nil || n > maxRecord {
			return
		}
		now := time.Now()
		if gap := now.Sub(w.lastAck); w.acks > 0 && gap > w.gap {
			w.gap, w.gapFrom = gap, w.lastAck
		}
		w.acks, w.lastAck, w.acked = w.acks+1, now, max(w.acked, n)
		if !w.known.add(n) {
			w.twoRunners++
		}
		if boot := fields[2]; !w.boots[boot] {
			w.boots[boot], w.boot = true, boot
		}
	case len(fields) == 4 && fields[0] == "BOOT":
		if found, err := strconv.ParseUint(fields[2], 10, 64); err == nil && found < w.acked {
			w.lost += w.acked - found
			w.known.forget(found) // they are written again, by the one runner that there is
			w.acked = found
		}
	case len(fields) == 2 && fields[0] == "FILLED":
		if n, err := strconv.ParseUint(fields[1], 10, 64); err == nil {
			w.filled = max(w.filled, n)
		}
	case len(fields) > 0 && fields[0] == "CORRUPT":
		w.corrupt = append(w.corrupt, text)
	}
}

// countVMs looks for VMs of the machine in the process table, of all hosts at once.
func (w *Watch) countVMs() {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	vms := 0
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(line, []byte("qemu-system")) {
			continue
		}
		program, _, _ := bytes.Cut(line, []byte{0})
		if strings.HasPrefix(filepath.Base(string(program)), "qemu-system") && bytes.Contains(line, []byte(w.machine)) && !receives(line) {
			vms++
		}
	}
	if vms > 1 {
		w.mu.Lock()
		w.twoRunners++
		w.mu.Unlock()
	}
}

// receives reports whether a VM was started to be filled by a live move. Such a one stands still until the other has stopped, and the process
// table does not tell when; that both ran is told by the records that they acknowledge.
func receives(cmdline []byte) bool { return bytes.Contains(cmdline, []byte("\x00-incoming\x00")) }

func (w *Watch) fail(err error) {
	if err != nil {
		w.mu.Lock()
		w.err = errors.Join(w.err, err)
		w.mu.Unlock()
	}
}

// Seen is what a Watch knows at one moment.
type Seen struct {
	// Acked is the highest acknowledged record, Filled the highest number of blocks that were said to be durable.
	Acked, Filled uint64
	// Gap is the longest time without an acknowledgement since ResetGap, GapFrom when it began.
	Gap     time.Duration
	GapFrom time.Time
	// Boot is the token of the run that spoke last.
	Boot    string
	LastAck time.Time
	// TwoRunners counts times at which two VMs of the machine ran, and records that were acknowledged twice.
	TwoRunners int
	// Lost counts acknowledged records that a later run did not find.
	Lost uint64
	// Corrupt has what the writer itself complained of.
	Corrupt []string
	// Err is what kept the watch from watching.
	Err error
}

// Now returns what is known.
func (w *Watch) Now() Seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Seen{w.acked, w.filled, w.gap, w.gapFrom, w.boot, w.lastAck, w.twoRunners, w.lost, w.corrupt, w.err}
}

// ResetGap starts a new measurement of the longest gap.
func (w *Watch) ResetGap() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gap = 0
}

// numbers is a set of numbers that has few gaps.
type numbers []uint64

// add puts a number into the set, and tells whether it is new there.
func (s *numbers) add(n uint64) bool {
	for uint64(len(*s)) <= n/64 {
		*s = append(*s, 0)
	}
	bit := uint64(1) << (n % 64)
	fresh := (*s)[n/64]&bit == 0
	(*s)[n/64] |= bit
	return fresh
}

// forget takes out everything above the number.
func (s *numbers) forget(above uint64) {
	for n := above + 1; n < 64*uint64(len(*s)); n++ {
		(*s)[n/64] &^= 1 << (n % 64)
	}
}

// tail reads whole lines from a growing file.
type tail struct {
	file *os.File
	rest []byte
}

func (t *tail) lines(take func(string)) error {
	fresh, err := io.ReadAll(t.file)
	if err != nil {
		return err
	}
	// The log of a machine that came with its memory begins with a hole, so that its offsets go on.
	t.rest = append(t.rest, bytes.ReplaceAll(fresh, []byte{0}, nil)...)
	end := bytes.LastIndexByte(t.rest, '\n')
	if end < 0 {
		return nil
	}
	scan := bufio.NewScanner(bytes.NewReader(t.rest[:end+1]))
	for scan.Scan() {
		var line struct {
			Text string `json:"m"`
		}
		if json.Unmarshal(scan.Bytes(), &line) == nil {
			take(line.Text)
		}
	}
	t.rest = append([]byte(nil), t.rest[end+1:]...)
	return scan.Err()
}
