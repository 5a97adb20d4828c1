package chaos

import (
	"context"
	"encoding/json"
	"strings"
	"time"
)

// drains says whether and how the binary drains hosts.
type drains struct {
	known bool
	flags []string
}

// findDrains asks the binary whether it has drains: a fleet of an older version is tested without.
func (r *run) findDrains(ctx context.Context) drains {
	help, err := r.within(ctx, boundCommand, "host", "drain", "--help")
	if err != nil || !strings.Contains(help, "drover host drain") {
		r.say("this drover has no drains; none is made")
		return drains{}
	}
	d := drains{known: true}
	if strings.Contains(help, "--yes") {
		d.flags = append(d.flags, "--yes")
	}
	return d
}

// drainHost drains a host, at most as long as the event holds, and opens it again. What the command waits for goes on without it; a host that
// is opened meanwhile ends its drain.
func (r *run) drainHost(ctx context.Context, e Event) {
	if !r.drain.known {
		return
	}
	r.say("%s", e)
	_, err := r.within(ctx, e.For, append([]string{"host", "drain", string(e.Host)}, r.drain.flags...)...)
	if err != nil {
		r.say("%s: %v", e, err)
	} else {
		r.count(func(rep *Report) { rep.Drains++ })
	}
	r.open(context.WithoutCancel(ctx), string(e.Host))
}

// open takes a host's cordon away.
func (r *run) open(ctx context.Context, host string) {
	if !r.drain.known {
		return
	}
	if _, err := r.within(ctx, boundCommand, "host", "uncordon", host); err != nil {
		r.say("host %s is not opened: %v", host, err)
	}
}

// openDrains lists the drains that have not ended.
func (r *run) openDrains(ctx context.Context) ([]string, error) {
	if !r.drain.known {
		return nil, nil
	}
	var all []struct {
		ID      string          `json:"id"`
		Outcome string          `json:"outcome"`
		EndedAt json.RawMessage `json:"ended_at"`
	}
	if err := r.ask(ctx, &all, "drain", "list"); err != nil {
		return nil, err
	}
	var open []string
	for _, d := range all {
		var ended time.Time
		if len(d.EndedAt) > 0 && json.Unmarshal(d.EndedAt, &ended) == nil && !ended.IsZero() {
			continue
		}
		open = append(open, d.ID+" is "+d.Outcome)
	}
	return open, nil
}
