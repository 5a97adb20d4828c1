package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"drover"
	"drover/dev"
	"drover/internal/testkit"
)

// Bounds of waiting. They are generous: they only end what would hang.
const (
	boundCommand = time.Minute
	boundBoot    = 10 * time.Minute
	boundRest    = 10 * time.Minute
	boundDown    = 3 * time.Minute
)

// bootTimeout is how long a boot may take: the host of the fleet is busy with a dozen other VMs, often.
const bootTimeout = 4 * time.Minute

// grace is how long hosts of such a fleet keep their copies after a move.
const grace = 5 * time.Second

// diskSize is the size of a host's disk, where disks are filled: small enough to be filled at once, large enough for images and reserve.
const diskSize = "6GiB"

// run is one run.
type run struct {
	o       Options
	workers []drover.HostID
	// files is where the fleet's directory can be seen with the hosts' disks mounted.
	files    string
	machines []*machine
	began    time.Time

	out sync.Mutex // one line of progress at a time
	mu  sync.Mutex // guards what follows
	rep Report
	// told is how much of each machine's violations has been printed.
	told map[*machine]testkit.Seen
}

// Run makes a run and returns its report. The error is about the run itself; whether promises were kept is the report's Verdict.
func Run(ctx context.Context, o Options) (Report, error) {
	if err := o.check(); err != nil {
		return Report{}, err
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	r := &run{o: o, began: time.Now(), rep: Report{Seed: o.Seed, Seconds: o.Seconds}, told: map[*machine]testkit.Seen{}}
	for n := range o.Hosts {
		r.workers = append(r.workers, drover.HostID(fmt.Sprintf("h%d", n+1)))
	}
	r.say("drover dev chaos %s", o)
	err := r.play(ctx)
	for _, m := range r.machines {
		m.stop()
	}
	r.countAcks()
	if o.Keep {
		return r.rep, err
	}
	return r.rep, errors.Join(err, r.end(context.WithoutCancel(ctx), err == nil && r.rep.Verdict() == nil))
}

// end takes the fleet down. Its data is removed if the run went well; else it is what tells why.
func (r *run) end(ctx context.Context, purge bool) error {
	args := []string{"dev", "down"}
	if purge {
		args = append(args, "--purge")
	}
	if _, err := r.within(ctx, boundDown, args...); err != nil {
		return err
	}
	r.comesTo(ctx, "nothing of the fleet is left", func(context.Context) []string { return tracesOf(r.o.CLI.Dir, purge) })
	return nil
}

// play does everything between an empty directory and the last check.
func (r *run) play(ctx context.Context) error {
	if err := r.raise(ctx); err != nil {
		return err
	}
	if err := r.load(ctx); err != nil {
		return err
	}
	checking, stop := context.WithCancel(ctx)
	var g sync.WaitGroup
	g.Go(func() { r.watch(checking) })
	r.follow(ctx, PlanOf(r.o))
	var err error
	if ctx.Err() == nil {
		r.say("the time is over: everything is mended, and must come to rest")
		err = r.rest(ctx)
	}
	stop()
	g.Wait()
	return errors.Join(err, context.Cause(ctx))
}

// raise brings the fleet up.
func (r *run) raise(ctx context.Context) error {
	args := []string{"dev", "up", "--api-port", "0", "--workers", fmt.Sprint(r.o.Hosts), "--regions", "ams", "--grace", grace.String(), "--boot-timeout", bootTimeout.String(), "--wait", "3m"}
	r.files = r.o.CLI.Dir
	disks := r.has(Full) || r.has(Hang)
	if disks {
		args = append(args, "--disk", diskSize)
	}
	if _, err := r.within(ctx, boundBoot, args...); err != nil {
		return err
	}
	if disks {
		var s dev.Status
		if err := r.ask(ctx, &s, "dev", "status"); err != nil {
			return err
		}
		r.files = fmt.Sprintf("/proc/%d/root%s", s.RackPID, r.o.CLI.Dir)
	}
	return nil
}

func (r *run) has(f Fault) bool {
	for _, have := range r.o.Faults {
		if have == f {
			return true
		}
	}
	return false
}

// follow plays the plan, and returns when every event has ended and been undone.
func (r *run) follow(ctx context.Context, plan []Event) {
	var faults int
	for _, e := range plan {
		if e.Fault != "" {
			faults++
		}
	}
	r.say("the plan has %d faults and %d other events", faults, len(plan)-faults)
	start := time.Now()
	limit := time.Duration(r.o.Seconds) * time.Second
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var g sync.WaitGroup
	defer g.Wait()
	for _, e := range plan {
		if !sleep(ctx, time.Until(start.Add(e.At))) {
			return
		}
		g.Go(func() { r.do(ctx, e) })
	}
	sleep(ctx, time.Until(start.Add(limit)))
}

// sleep waits; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// say prints a line of progress.
func (r *run) say(format string, args ...any) {
	r.out.Lock()
	defer r.out.Unlock()
	fmt.Fprintf(r.o.Progress, "[%7.1f s] %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

// typed types a command and returns what it printed; an error has what it complained of.
func (r *run) typed(ctx context.Context, args ...string) (string, error) {
	var out, complaint bytes.Buffer
	cli := r.o.CLI
	cli.Stderr = &complaint
	err := cli.Run(ctx, &out, args...)
	if err != nil {
		lines := strings.Split(strings.TrimSpace(complaint.String()), "\n")
		for i, l := range lines { // progress comes before the error
			if strings.HasPrefix(l, "Error:") {
				lines = lines[i:]
				break
			}
		}
		err = fmt.Errorf("%w: %s", err, strings.Join(lines, " "))
	}
	return out.String(), err
}

// within types a command with a bound.
func (r *run) within(ctx context.Context, bound time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	return r.typed(ctx, args...)
}

// ask types a command with --json and decodes what it prints.
func (r *run) ask(ctx context.Context, answer any, args ...string) error {
	out, err := r.within(ctx, boundCommand, append([]string{"--json"}, args...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), answer); err != nil {
		return fmt.Errorf("drover %s printed something else than JSON: %w", testkit.Words(args), err)
	}
	return nil
}

// count changes the report.
func (r *run) count(change func(rep *Report)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.rep)
}
