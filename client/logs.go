package client

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"drover"
	"drover/apiv1"
)

const (
	// logWait is how long one request of FollowLogs waits for more.
	logWait = 20 * time.Second
	// logSlack is how far the clocks of two hosts may be apart: lines of a log that a machine had on a host before, at an earlier stay, are older.
	logSlack = 5 * time.Second
)

// FollowLogs calls fn with each line from where q says, in order, until ctx ends (Canceled), fn returns an error (which is returned)
// or the machine is gone (NotFound). The log of a machine that moves is read to its end where the machine was, and goes on where it runs.
func (c *Client) FollowLogs(ctx context.Context, app drover.AppName, id drover.MachineID, q LogsQuery, fn func(drover.LogLine) error) error {
	f := &logFollower{client: c, app: app, id: id, fn: fn, left: map[drover.HostID]int64{}}
	p := c.newPatience()
	for {
		logs, err := c.Logs(ctx, app, id, q)
		if err != nil {
			if err := p.next(ctx, err); err != nil {
				return err
			}
			continue
		}
		p.answered()
		if f.host != "" && logs.Host != f.host {
			if q, err = f.moved(ctx, logs.Host, q); err != nil {
				return err
			}
			continue
		}
		f.host = logs.Host
		if err := f.tell(logs.Lines); err != nil {
			return err
		}
		idle := len(logs.Lines) == 0 && q.Wait > 0 && logs.Next == q.Offset
		q = LogsQuery{Offset: logs.Next, Wait: logWait}
		if idle {
			// The server held the answer back, or it could not (the machine does not run): never ask in a tight loop.
			if err := pause(ctx, c.interval); err != nil {
				return err
			}
		}
	}
}

// logFollower follows the log of one machine over its moves.
type logFollower struct {
	client *Client
	app    drover.AppName
	id     drover.MachineID
	fn     func(drover.LogLine) error
	// host is where the machine is, left has where reading ended on hosts that it was on.
	host drover.HostID
	left map[drover.HostID]int64
	// last is the newest line's time, since what is older on a new host: of an earlier stay.
	last, since time.Time
}

func (f *logFollower) tell(lines []drover.LogLine) error {
	for _, line := range lines {
		if line.At.Before(f.since) {
			continue
		}
		if line.At.After(f.last) {
			f.last = line.At
		}
		if err := f.fn(line); err != nil {
			return err
		}
	}
	return nil
}

// moved reads the rest of what the machine wrote where it was, and returns where to go on. What is not kept there any more, or cannot be asked, is
// lost.
func (f *logFollower) moved(ctx context.Context, to drover.HostID, q LogsQuery) (LogsQuery, error) {
	rest := LogsQuery{Offset: q.Offset, Tail: q.Tail, Host: f.host}
	for {
		logs, err := f.client.Logs(ctx, f.app, f.id, rest)
		if drover.Is(err, drover.Canceled) {
			return q, err
		}
		if err != nil || logs.Host != f.host || len(logs.Lines) == 0 {
			break
		}
		if err := f.tell(logs.Lines); err != nil {
			return q, err
		}
		rest.Offset, rest.Tail = logs.Next, 0
	}
	f.left[f.host] = rest.Offset
	f.host = to
	at, known := f.left[to]
	if !known && !f.last.IsZero() {
		f.since = f.last.Add(-logSlack)
	}
	return LogsQuery{Offset: at}, nil
}

// AppLogLine is a line of one of an app's machines.
type AppLogLine struct {
	Machine apiv1.Machine `json:"-"`
	// ID and Name are the machine's.
	ID   drover.MachineID `json:"machine"`
	Name string           `json:"name"`
	drover.LogLine
}

// lineBefore tells whether a line comes before another: by time, then by machine.
func lineBefore(a, b AppLogLine) int {
	if c := a.At.Compare(b.At); c != 0 {
		return c
	}
	switch {
	case a.ID < b.ID:
		return -1
	case a.ID > b.ID:
		return 1
	}
	return 0
}

// mergeWait is how long lines are held back so that those of other machines that are older can come before them.
const mergeWait = 300 * time.Millisecond

// AppLogs calls fn with the last lines of each machine of an app, merged by time, and, if follow is set, with every line that follows, also of
// machines that are made later, until ctx ends (Canceled) or fn returns an error.
func (c *Client) AppLogs(ctx context.Context, app drover.AppName, tail int, follow bool, fn func(AppLogLine) error) error {
	machines, err := c.Machines(ctx, app)
	if err != nil {
		return err
	}
	patient := *c
	patient.patience = math.MaxInt64 // a host that is away for long keeps only its own machines' lines away
	a := &appLogs{client: c, patient: &patient, app: app, fn: fn, tail: tail, known: map[drover.MachineID]bool{}, wake: make(chan struct{}, 1)}
	if !follow {
		return a.last(ctx, machines)
	}
	caller := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer a.group.Wait()
	defer cancel(nil)
	p := c.newPatience()
	look := time.NewTicker(max(c.interval, time.Millisecond) * 4)
	defer look.Stop()
	a.add(ctx, cancel, machines)
	for {
		var hold <-chan time.Time
		if until := a.flushAt(); !until.IsZero() {
			hold = time.After(time.Until(until))
		}
		select {
		case <-ctx.Done():
			cause := context.Cause(ctx)
			if caller.Err() != nil {
				return drover.Errorf(drover.Canceled, "stopped following the logs: %w", cause)
			}
			return cause
		case <-a.wake:
		case <-hold:
			if err := a.flush(); err != nil {
				return err
			}
		case <-look.C:
			machines, err := c.Machines(ctx, app)
			if err != nil {
				if err := p.next(ctx, err); err != nil {
					return err
				}
				continue
			}
			p.answered()
			a.add(ctx, cancel, machines)
		}
	}
}

// appLogs merges the logs of an app's machines.
type appLogs struct {
	client, patient *Client
	app             drover.AppName
	fn              func(AppLogLine) error
	tail            int
	group           sync.WaitGroup
	wake            chan struct{}
	known           map[drover.MachineID]bool

	mu sync.Mutex
	// held are lines that wait for older ones; since when the first came.
	held  []AppLogLine
	since time.Time
}

// maxHeld bounds the lines that wait: beyond it a machine's log is read no further until they are through.
const maxHeld = 20_000

// last tells the last lines and nothing more. What cannot be read is the error, after what can be.
func (a *appLogs) last(ctx context.Context, machines []apiv1.Machine) error {
	var failed error
	for _, m := range machines {
		logs, err := a.client.Logs(ctx, a.app, m.ID, LogsQuery{Tail: a.tail})
		if drover.Is(err, drover.NotFound) || drover.Is(err, drover.Precondition) {
			continue // it went meanwhile
		}
		if drover.Is(err, drover.Canceled) {
			return err
		}
		if err != nil {
			failed = cmp.Or(failed, error(drover.Errorf(drover.CodeOf(err), "cannot read the log of machine %s (%s): %w", m.ID, m.Name, err)))
			continue
		}
		for _, line := range logs.Lines {
			a.held = append(a.held, AppLogLine{m, m.ID, m.Name, line})
		}
	}
	sortLines(a.held)
	a.held = a.held[max(0, len(a.held)-a.tail):]
	if err := a.flush(); err != nil {
		return err
	}
	return failed
}

// add follows the machines that are not followed yet. A machine whose log cannot be followed ends nothing but its own.
func (a *appLogs) add(ctx context.Context, cancel context.CancelCauseFunc, machines []apiv1.Machine) {
	first := len(a.known) == 0
	for _, m := range machines {
		if a.known[m.ID] {
			continue
		}
		a.known[m.ID] = true
		q := LogsQuery{Tail: a.tail}
		if !first {
			q = LogsQuery{} // it is new: all that it says
		}
		a.group.Go(func() {
			err := a.patient.FollowLogs(ctx, a.app, m.ID, q, func(line drover.LogLine) error {
				return a.hold(ctx, AppLogLine{m, m.ID, m.Name, line})
			})
			if drover.Is(err, drover.Denied) {
				cancel(err)
			}
		})
	}
}

// hold takes in a line. It waits while too many are held.
func (a *appLogs) hold(ctx context.Context, line AppLogLine) error {
	for {
		a.mu.Lock()
		if len(a.held) < maxHeld {
			break
		}
		a.mu.Unlock()
		if err := pause(ctx, mergeWait/10); err != nil {
			return err
		}
	}
	defer a.mu.Unlock()
	if len(a.held) == 0 {
		a.since = time.Now()
	}
	a.held = append(a.held, line)
	select {
	case a.wake <- struct{}{}:
	default:
	}
	return nil
}

// flushAt is when the lines that wait have waited enough; zero when none do.
func (a *appLogs) flushAt() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.held) == 0 {
		return time.Time{}
	}
	return a.since.Add(mergeWait)
}

// flush tells the lines that wait, by time.
func (a *appLogs) flush() error {
	a.mu.Lock()
	lines := a.held
	a.held = nil
	a.mu.Unlock()
	sortLines(lines)
	for _, line := range lines {
		if err := a.fn(line); err != nil {
			return err
		}
	}
	return nil
}

// sortLines puts lines in the order of their times; those of one moment stay as they came.
func sortLines(lines []AppLogLine) { slices.SortStableFunc(lines, lineBefore) }
