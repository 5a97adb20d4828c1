package fleet

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"drover"
	"drover/natsbus"
)

const (
	// keepAudit is how long entries are kept, keepAuditEntries and keepRefusals how many there are at most.
	keepAudit        = 90 * 24 * time.Hour
	keepAuditEntries = 5_000_000
	keepRefusals     = 200_000
	// maxAuditPending bounds the entries that wait to be written, auditPatience how long each is tried.
	maxAuditPending = 4096
	auditPatience   = time.Minute
	auditWriters    = 4
	// strangerRate bounds how many refusals of tokens that nobody knows are noted per second, strangerBurst how many at once.
	strangerRate  = 10
	strangerBurst = 100
	// auditTrouble is how long lost entries are a condition.
	auditTrouble = time.Hour
)

// trail is the audit trail as one control host writes it.
type trail struct {
	entries, refusals *natsbus.Trail[drover.AuditEntry]
	pending           chan drover.AuditEntry
	strangers         *rate.Limiter

	written, dropped, suppressed atomic.Uint64

	mu          sync.Mutex
	lastDropped time.Time
	lastText    string
}

func newTrail() *trail {
	return &trail{pending: make(chan drover.AuditEntry, maxAuditPending), strangers: rate.NewLimiter(strangerRate, strangerBurst)}
}

// openAudit opens the streams of the trail.
func (f *Fleet) openAudit(ctx context.Context) (err error) {
	opts := natsbus.TrailOptions{Replicas: f.cfg.Replicas, MaxAge: keepAudit, MaxEntries: keepAuditEntries, Labels: 3}
	if f.trail.entries, err = natsbus.OpenTrail[drover.AuditEntry](ctx, f.conn, natsbus.StreamAudit, opts); err != nil {
		return err
	}
	opts.MaxEntries = keepRefusals
	f.trail.refusals, err = natsbus.OpenTrail[drover.AuditEntry](ctx, f.conn, natsbus.StreamAuditRefused, opts)
	return err
}

func auditLabels(e drover.AuditEntry) []string {
	return []string{e.Organization, string(e.App), string(e.Token)}
}

// writeAudit writes one entry.
func (f *Fleet) writeAudit(ctx context.Context, e drover.AuditEntry) error {
	to := f.trail.entries
	if e.Outcome == drover.AuditRefused {
		to = f.trail.refusals
	}
	err := to.Append(ctx, e.Request+"."+e.Outcome, e, auditLabels(e)...)
	if err == nil {
		f.trail.written.Add(1)
	}
	return err
}

// AuditBegin writes that something is attempted. It is durable when it returns.
func (f *Fleet) AuditBegin(ctx context.Context, e drover.AuditEntry) error {
	if err := f.await(ctx); err != nil {
		return err
	}
	e.Host = f.cfg.Host
	f.hit("fleet.audit.begin.before")
	err := f.writeAudit(ctx, e)
	f.hit("fleet.audit.begin.after")
	return err
}

// AuditNote notes how something went, or that it was refused. It never waits; what does not fit is counted.
func (f *Fleet) AuditNote(e drover.AuditEntry) {
	e.Host = f.cfg.Host
	if e.Token == "" && e.Outcome == drover.AuditRefused && !f.trail.strangers.Allow() {
		f.trail.suppressed.Add(1)
		return
	}
	select {
	case f.trail.pending <- e:
	default:
		f.trail.lose(f.now(), "more of them wait than are kept")
	}
}

// lose counts an entry that is lost.
func (t *trail) lose(at time.Time, why string) {
	t.dropped.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lastDropped, t.lastText = at, why
}

// health counts.
func (t *trail) health() drover.AuditHealth {
	return drover.AuditHealth{Written: t.written.Load(), Dropped: t.dropped.Load(), Suppressed: t.suppressed.Load(), Pending: len(t.pending)}
}

// condition is there while entries were lost lately.
func (t *trail) condition(now time.Time) *drover.Condition {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lastDropped.IsZero() || now.Sub(t.lastDropped) > auditTrouble {
		return nil
	}
	return &drover.Condition{Code: drover.AuditIncomplete, Severity: drover.SeverityWarning, Since: t.lastDropped,
		Text: "the audit trail lacks how some requests ended, or who was refused: " + t.lastText}
}

// keepTrail writes what was noted, until ctx ends.
func (f *Fleet) keepTrail(ctx context.Context) {
	var group sync.WaitGroup
	for range auditWriters {
		group.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case e := <-f.trail.pending:
					f.writeNoted(ctx, e)
				}
			}
		})
	}
	group.Wait()
}

// writeNoted tries to write an entry until its time is over.
func (f *Fleet) writeNoted(ctx context.Context, e drover.AuditEntry) {
	over := time.Now().Add(auditPatience)
	for {
		err := f.writeAudit(ctx, e)
		if err == nil || ctx.Err() != nil {
			return
		}
		if time.Now().After(over) {
			f.log.Warn("entry of the audit trail is lost", "request", e.Request, "err", err)
			f.trail.lose(f.now(), drover.AsError(err).Text)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// AuditEntries returns one entry per request, newest first. A request whose end is not known is one that has begun.
func (f *Fleet) AuditEntries(ctx context.Context, filter drover.AuditFilter) ([]drover.AuditEntry, error) {
	if err := f.await(ctx); err != nil {
		return nil, err
	}
	// Of a request two entries are there at most, so these many of the newest are enough.
	most := 2*filter.Limit + 2*maxAuditPending
	byRequest := map[string]drover.AuditEntry{}
	for _, t := range []*natsbus.Trail[drover.AuditEntry]{f.trail.entries, f.trail.refusals} {
		var last []drover.AuditEntry
		labels := []string{filter.Organization, string(filter.App), string(filter.Token)}
		err := t.Read(ctx, filter.Since, labels, func(e drover.AuditEntry) error {
			if last = append(last, e); len(last) > 2*most {
				last = append(last[:0], last[len(last)-most:]...)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		for _, e := range last {
			if known, ok := byRequest[e.Request]; !ok || known.Outcome == drover.AuditBegun {
				byRequest[e.Request] = e
			}
		}
	}
	all := make([]drover.AuditEntry, 0, len(byRequest))
	for _, e := range byRequest {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b drover.AuditEntry) int {
		return cmp.Or(b.At.Compare(a.At), strings.Compare(a.Request, b.Request))
	})
	return all[:min(len(all), filter.Limit)], nil
}
