package api

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

// Bounds of a page of logs.
const (
	// logMachines is how many machines one client may follow at once, logWaiters how many of them are waited for each by itself; more are looked at
	// every logPoll.
	logMachines = 500
	logWaiters  = 32
	logPoll     = time.Second
	// logHold is how long an answer is held back while there is nothing new: a client that is told "nothing" asks again at once.
	logHold = 10 * time.Second
	// logPage is the number of lines from which on no further machine is asked; logTail is how many lines the first page has of all machines together.
	logPage = 1000
	logTail = 200
	// logAsked is how many machines are asked at once.
	logAsked = 8
)

// webLogs answers what the machines of an app wrote since the page that next_token is from, or the last lines.
func (h *handler) webLogs(c *call) (any, error) {
	q := c.r.URL.Query()
	at, err := parseLogToken(q.Get("next_token"))
	if err != nil {
		return nil, err
	}
	p := &logPager{h: h, c: c, at: at, first: q.Get("next_token") == "", region: q.Get("region"), instance: q.Get("instance")}
	if err := p.find(); err != nil {
		return nil, err
	}
	if err := p.collect(); err != nil {
		return nil, err
	}
	if !p.first {
		if err := p.hold(); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(p.lines, func(a, b apiv1.LogEntry) int { return a.Attributes.Timestamp.Compare(b.Attributes.Timestamp) })
	return apiv1.LogPage{Data: p.lines, Meta: apiv1.LogMeta{NextToken: p.at.String()}}, nil
}

// logPager makes one page.
type logPager struct {
	h                *handler
	c                *call
	first            bool
	region, instance string
	machines         []fleet.MachineView
	at               logToken
	lines            []apiv1.LogEntry
}

// find chooses the machines: those that have a host which answers.
func (p *logPager) find() error {
	views, err := p.h.backend.Machines(p.c.ctx(), p.c.app.Name)
	if err != nil {
		return err
	}
	for _, v := range views {
		if (p.region != "" && p.region != string(v.Machine.Region)) || (p.instance != "" && p.instance != string(v.Machine.ID)) {
			continue
		}
		if v.Placement.Host != "" && v.HostStatus != drover.HostUnreachable {
			p.machines = append(p.machines, v)
		}
	}
	if len(p.machines) > logMachines {
		return drover.Errorf(drover.Invalid, "app %q has %d machines; the logs of at most %d can be followed at once", p.c.app.Name, len(p.machines), logMachines).
			WithHint("follow those of one region or one instance")
	}
	slices.SortFunc(p.machines, func(a, b fleet.MachineView) int { return cmp.Compare(a.Machine.ID, b.Machine.ID) })
	p.lines = []apiv1.LogEntry{}
	p.at.keep(p.machines)
	return nil
}

// request asks for what is new of a machine. A log begins anew where a machine moves to.
func (p *logPager) request(v fleet.MachineView, wait time.Duration) drover.LogsRequest {
	req := drover.LogsRequest{Machine: v.Machine.ID, Wait: wait}
	if place, ok := p.at.places[v.Machine.ID]; ok {
		if place.epoch == v.Placement.Epoch {
			req.Offset = place.offset
		}
	} else if p.first {
		req.Offset, req.Tail = -1, max(1, logTail/len(p.machines))
	}
	return req
}

// read asks one machine's host. A machine whose log cannot be read now keeps its place, and is asked again for the next page.
func (p *logPager) read(ctx context.Context, req drover.LogsRequest) (drover.LogsAnswer, bool, error) {
	answer, err := p.h.backend.MachineLogs(ctx, p.c.app.Name, req)
	switch {
	case err == nil:
		return answer, true, nil
	case ctx.Err() != nil, drover.Is(err, drover.Unavailable), drover.Is(err, drover.NotFound), drover.Is(err, drover.Precondition):
		return answer, false, nil
	}
	return answer, false, err
}

// collect asks the machines in turns, beginning where the page before ended, until the page is full.
func (p *logPager) collect() error {
	n := len(p.machines)
	if n == 0 {
		return nil
	}
	for done := 0; done < n && len(p.lines) < logPage; {
		count := min(logAsked, n-done)
		answers := make([]drover.LogsAnswer, count)
		read := make([]bool, count)
		group, ctx := errgroup.WithContext(p.c.ctx())
		for i := range count {
			group.Go(func() (err error) {
				answers[i], read[i], err = p.read(ctx, p.request(p.turn(done+i), 0))
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		for i := range count {
			if read[i] {
				p.take(p.turn(done+i), answers[i])
			}
		}
		done += count
		if done < n && len(p.lines) >= logPage {
			p.at.turn = (p.at.turn + done) % n
		}
	}
	return p.c.ctx().Err()
}

func (p *logPager) turn(i int) fleet.MachineView {
	return p.machines[(p.at.turn+i)%len(p.machines)]
}

// take adds what a machine wrote to the page.
func (p *logPager) take(v fleet.MachineView, answer drover.LogsAnswer) {
	for i, l := range answer.Lines {
		e := apiv1.LogEntry{ID: fmt.Sprintf("%s-%d-%d", v.Machine.ID, answer.Next, i), Type: "log", Attributes: apiv1.LogAttributes{Timestamp: l.At, Message: l.Text,
			Level: "info", Instance: v.Machine.ID, Region: v.Machine.Region, Meta: apiv1.LogLineMeta{Instance: v.Machine.ID, Region: v.Machine.Region, Stream: l.Stream}}}
		e.Attributes.Meta.Event.Provider = "app"
		p.lines = append(p.lines, e)
	}
	p.at.places[v.Machine.ID] = logPlace{epoch: v.Placement.Epoch, offset: answer.Next}
}

// hold waits until there is something, or until it is time to say that there is nothing.
func (p *logPager) hold() error {
	ctx, cancel := context.WithTimeout(p.c.ctx(), logHold)
	defer cancel()
	for len(p.lines) == 0 && ctx.Err() == nil {
		if n := len(p.machines); n > 0 && n <= logWaiters {
			return p.waitEach(ctx)
		}
		select {
		case <-ctx.Done():
		case <-time.After(logPoll):
			if err := p.collect(); err != nil {
				return err
			}
		}
	}
	return p.c.ctx().Err()
}

// waitEach waits for all machines at once; the first one that wrote something ends the waiting for the others.
func (p *logPager) waitEach(ctx context.Context) error {
	type news struct {
		of     fleet.MachineView
		answer drover.LogsAnswer
		read   bool
		err    error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all := make(chan news, len(p.machines))
	for _, v := range p.machines {
		req := p.request(v, logHold)
		go func() {
			answer, read, err := p.read(ctx, req)
			if !read && err == nil {
				<-ctx.Done() // a machine whose log cannot be read now must not end the waiting
			}
			all <- news{v, answer, read, err}
		}()
	}
	var failed error
	for range p.machines {
		n := <-all
		if n.err != nil {
			failed = n.err
			cancel()
		}
		if n.read {
			p.take(n.of, n.answer)
			if len(n.answer.Lines) > 0 {
				cancel()
			}
		}
	}
	if failed != nil {
		return failed
	}
	return p.c.ctx().Err()
}
