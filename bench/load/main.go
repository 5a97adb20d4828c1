package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

// work is one way to use a disk.
type work struct {
	name       string
	opcode     uint16
	depth      int
	size       int
	sequential bool
}

// works are what a bench runs.
func works() []work {
	return []work{
		{"randread-1", cmdRead, 1, 4096, false},
		{"randread-32", cmdRead, 32, 4096, false},
		{"randwrite-1", cmdWrite, 1, 4096, false},
		{"randwrite-32", cmdWrite, 32, 4096, false},
		{"seqread", cmdRead, 4, 1 << 20, true},
	}
}

// outcome is a line of the output.
type outcome struct {
	Disk  string  `json:"disk"`
	Work  string  `json:"work"`
	Run   int     `json:"run"`
	Ops   float64 `json:"ops,omitempty"`
	MiBps float64 `json:"mibps,omitempty"`
	P99us float64 `json:"p99us,omitempty"`
	GapMs float64 `json:"gapms,omitempty"`
	Count int     `json:"count,omitempty"`
}

func run(args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("usage: load bench|gap [-runs N] [-time D] DISK [DISK]")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	runs := flags.Int("runs", 3, "how many rounds")
	length := flags.Duration("time", 2*time.Second, "how long each")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	encoder := json.NewEncoder(out)
	switch args[0] {
	case "bench":
		for run := range *runs {
			for _, w := range works() {
				for i := range flags.NArg() {
					disk := flags.Arg((i + run) % flags.NArg()) // another one first in each round
					o, err := measure(disk, w, *length)
					if err != nil {
						return fmt.Errorf("%s on %s: %w", w.name, disk, err)
					}
					o.Run = run
					if err := encoder.Encode(o); err != nil {
						return err
					}
				}
			}
		}
		return nil
	case "gap":
		if _, err := fmt.Fprintln(out, "READY"); err != nil {
			return err
		}
		o, err := measure(flags.Arg(0), work{"gap", cmdWrite, 8, 4096, false}, *length)
		if err != nil {
			return err
		}
		return encoder.Encode(outcome{Disk: o.Disk, Work: o.Work, GapMs: o.GapMs, Count: o.Count})
	}
	return fmt.Errorf("unknown command %q: bench or gap", args[0])
}

// measure runs one workload on one disk.
func measure(disk string, w work, length time.Duration) (o outcome, err error) {
	fd, err := unix.Open(disk, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	end, err := unix.Seek(fd, 0, unix.SEEK_END)
	if err != nil {
		return o, err
	}
	a, err := newAIO(fd, w.depth, w.size)
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	random, next := rand.New(rand.NewPCG(1, uint64(w.depth))), int64(0)
	place := func() int64 {
		if !w.sequential {
			return random.Int64N(end/int64(w.size)) * int64(w.size)
		}
		at := next
		if next += int64(w.size); next+int64(w.size) > end {
			next = 0
		}
		return at
	}
	began := make([]time.Time, w.depth)
	begin := func(i int) error {
		began[i] = time.Now()
		return a.submit(i, w.opcode, place())
	}
	start := time.Now()
	for i := range w.depth {
		if err := begin(i); err != nil {
			return o, err
		}
	}
	var times []time.Duration
	last, gap := start, time.Duration(0)
	for left := w.depth; left > 0; {
		events, err := a.wait()
		if err != nil {
			return o, err
		}
		now := time.Now()
		gap, last = max(gap, now.Sub(last)), now
		for _, e := range events {
			if e.res != int64(w.size) {
				return o, fmt.Errorf("a request ended with %d", e.res)
			}
			times = append(times, now.Sub(began[e.data]))
			if now.Sub(start) >= length {
				left--
			} else if err := begin(int(e.data)); err != nil {
				return o, err
			}
		}
	}
	took := last.Sub(start).Seconds()
	slices.Sort(times)
	ops := float64(len(times)) / took
	return outcome{Disk: disk, Work: w.name, Ops: ops, MiBps: ops * float64(w.size) / (1 << 20), Count: len(times),
		P99us: float64(times[len(times)*99/100].Microseconds()), GapMs: float64(gap.Microseconds()) / 1000}, nil
}
