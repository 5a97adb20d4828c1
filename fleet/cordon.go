package fleet

import (
	"context"
	"fmt"
	"maps"
	"time"

	"drover"
)

// Cordon asks that nothing new comes to a host.
type Cordon struct {
	Host    drover.HostID
	Owner   string
	Reason  string
	Suspect bool
	// For is after what time the mark is to be looked after; 0 is a day. The mark stays.
	For drover.Duration
}

// defaultMark is how long a mark is good for when nobody says.
const defaultMark = 24 * time.Hour

// mostMark bounds it.
const mostMark = 366 * 24 * time.Hour

// CordonHost closes a host for everything new. Asked again it replaces the mark: that is how a mark is prolonged.
func (f *Fleet) CordonHost(ctx context.Context, req Cordon) (drover.HostInfo, error) {
	if _, err := f.workerHost(ctx, req.Host); err != nil {
		return drover.HostInfo{}, err
	}
	if e := drover.CheckReason(req.Reason); e != nil {
		return drover.HostInfo{}, e
	}
	if req.For < 0 || time.Duration(req.For) > mostMark {
		return drover.HostInfo{}, drover.Errorf(drover.Invalid, "for: %v is out of range: at most %v", time.Duration(req.For), mostMark).WithField("for")
	}
	if req.For == 0 {
		req.For = drover.Duration(defaultMark)
	}
	err := f.changeMark(ctx, req.Host, func(m *drover.HostMark) {
		now := f.now().UTC()
		if m.Since.IsZero() {
			m.Since = now
		}
		if f.drainOf(req.Host) == nil {
			m.Drain = "" // it is an operator's from now on: no return takes it away
		}
		m.Owner, m.Reason, m.Suspect, m.ExpiresAt = req.Owner, req.Reason, req.Suspect, now.Add(time.Duration(req.For))
	})
	if err != nil {
		return drover.HostInfo{}, err
	}
	f.log.Info("host cordoned", "host", req.Host, "owner", req.Owner, "reason", req.Reason, "suspect", req.Suspect)
	return f.Host(ctx, req.Host)
}

// UncordonHost opens a host again. Precondition while a drain of it has not ended.
func (f *Fleet) UncordonHost(ctx context.Context, host drover.HostID, actor string) (drover.HostInfo, error) {
	if _, err := f.workerHost(ctx, host); err != nil {
		return drover.HostInfo{}, err
	}
	if d := f.drainOf(host); d != nil {
		return drover.HostInfo{}, drover.Errorf(drover.Precondition, "host %q is being drained by %s, of %s: %s", host, d.ID, d.Actor, d.Reason).
			WithHint("abort it first: drover drain abort %s", d.ID)
	}
	if err := f.removeMark(ctx, host, nil); err != nil {
		return drover.HostInfo{}, err
	}
	f.log.Info("host uncordoned", "host", host, "actor", actor)
	return f.Host(ctx, host)
}

// workerHost returns a host that runs machines.
func (f *Fleet) workerHost(ctx context.Context, id drover.HostID) (drover.HostInfo, error) {
	info, err := f.Host(ctx, id)
	if err != nil {
		return info, err
	}
	if !isWorker(info) {
		return info, f.noHost(id, "host")
	}
	return info, nil
}

// changeMark changes a host's mark, or makes it, by compare-and-set.
func (f *Fleet) changeMark(ctx context.Context, host drover.HostID, change func(*drover.HostMark)) error {
	key := string(host)
	for range casTries {
		m, rev, err := f.state.marks.get(ctx, key)
		fresh := drover.Is(err, drover.NotFound)
		if err != nil && !fresh {
			return err
		}
		m.Host = host
		change(&m)
		if fresh {
			_, err = f.state.marks.create(ctx, key, m)
		} else {
			_, err = f.state.marks.update(ctx, key, m, rev)
		}
		if !drover.Is(err, drover.Conflict) && !drover.Is(err, drover.Exists) {
			return err
		}
	}
	return tooBusy("mark of host", key)
}

// removeMark takes a host's mark away, if it is of a drain, when one is named; one that is not there is as good.
func (f *Fleet) removeMark(ctx context.Context, host drover.HostID, of *drover.DrainID) error {
	for range casTries {
		m, rev, err := f.state.marks.get(ctx, string(host))
		if drover.Is(err, drover.NotFound) || (err == nil && of != nil && m.Drain != *of) {
			return nil
		}
		if err != nil {
			return err
		}
		if err = f.state.marks.remove(ctx, string(host), rev); !drover.Is(err, drover.Conflict) {
			return err
		}
	}
	return tooBusy("mark of host", string(host))
}

// markDrained makes the mark of a drain's host. One that is there keeps its owner, reason and expiry.
func (f *Fleet) markDrained(ctx context.Context, d drover.Drain) error {
	return f.changeMark(ctx, d.Host, func(m *drover.HostMark) {
		now := f.now().UTC()
		if m.Since.IsZero() {
			m.Since, m.Owner, m.Reason = now, d.Actor, d.Reason
			m.ExpiresAt = now.Add(time.Duration(d.Options.WithDefaults().MarkFor))
		}
		m.Drain, m.Suspect = d.ID, m.Suspect || d.Options.Suspect
	})
}

// closed says why nothing new may come to a host, in words that follow its name; empty when it may. What is known is what this control host has
// read so far.
func (f *Fleet) closed(host drover.HostID) string {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	return f.closedLocked(host)
}

func (f *Fleet) closedLocked(host drover.HostID) string {
	if d := f.drainOfLocked(host); d != nil {
		return fmt.Sprintf("is being drained by %s, of %s: %s", d.ID, d.Actor, d.Reason)
	}
	mark, ok := f.state.marks.items[string(host)]
	switch {
	case !ok:
		return ""
	case mark.value.Suspect:
		return fmt.Sprintf("is suspect, says %s: %s", mark.value.Owner, mark.value.Reason)
	}
	return fmt.Sprintf("is cordoned by %s: %s", mark.value.Owner, mark.value.Reason)
}

// drainOf returns the drain that empties a host now, nil if none does.
func (f *Fleet) drainOf(host drover.HostID) *drover.Drain {
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	return f.drainOfLocked(host)
}

func (f *Fleet) drainOfLocked(host drover.HostID) *drover.Drain {
	for id := range f.state.drainsOf[host] {
		d := f.state.drains.items[id].value
		return &d
	}
	return nil
}

// excludeClosed adds the closed hosts to those that may not be chosen.
func (f *Fleet) excludeClosed(exclude map[drover.HostID]string) map[drover.HostID]string {
	all := maps.Clone(exclude)
	if all == nil {
		all = map[drover.HostID]string{}
	}
	f.state.mu.RLock()
	defer f.state.mu.RUnlock()
	for id := range f.state.hosts.items {
		if why := f.closedLocked(drover.HostID(id)); why != "" && all[drover.HostID(id)] == "" {
			all[drover.HostID(id)] = why
		}
	}
	return all
}
