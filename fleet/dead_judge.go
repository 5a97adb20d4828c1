package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"drover"
)

// witness is a host that is heard on the bus, with what it says of another.
type witness struct {
	host drover.HostID
	drover.Observation
}

// verdict is what the bus and the observers together tell of a host.
type verdict struct {
	reach    drover.HostReach
	text     string
	code     drover.ConditionCode
	severity drover.Severity
	since    time.Time
	// witnesses is how many hosts say that they do not reach it.
	witnesses int
}

// judge decides whether a host is dead, cut off, or just not heard. heard is what the bus says: unknown just after the start of a control
// host, when nothing is judged. silentSince is when the bus last brought something of it. Only the word of hosts that are heard themselves
// counts: what others said is from before they were lost.
func judge(id drover.HostID, heard drover.HostStatus, silentSince time.Time, said []witness) verdict {
	var yes, no []witness
	for _, w := range said {
		if w.Reached {
			yes = append(yes, w)
		} else {
			no = append(no, w)
		}
	}
	onBus := "it is heard on the bus"
	if heard == drover.HostUnreachable {
		onBus = "it is not heard on the bus"
		if !silentSince.IsZero() {
			onBus += " since " + silentSince.UTC().Format(time.TimeOnly)
		}
	}
	v := verdict{reach: drover.ReachOK, severity: drover.SeverityWarning, since: since(silentSince, no), witnesses: len(no)}
	switch {
	case heard == drover.HostUnknown, heard == drover.HostOK && len(no) == 0:
		return v
	case heard == drover.HostOK:
		v.reach, v.code = drover.ReachPartitioned, drover.HostIsPartitioned
		v.since = since(time.Time{}, no)
		v.text = fmt.Sprintf("%s, but %s; %s: links between hosts are cut, and moves over them will wait", onBus, cannot(id, no), can(id, yes))
	case len(yes) > 0 && len(no) > 0:
		v.reach, v.code, v.severity = drover.ReachPartitioned, drover.HostIsPartitioned, drover.SeverityCritical
		v.text = fmt.Sprintf("%s; %s, but %s: it is not dead, and nothing of it is started elsewhere", onBus, cannot(id, no), can(id, yes))
	case len(yes) > 0:
		v.reach, v.code, v.severity = drover.ReachSilent, drover.HostIsSilent, drover.SeverityCritical
		v.text = fmt.Sprintf("%s, but %s: its machines run on, its agent or its way to the bus is at fault", onBus, can(id, yes))
	case len(no) > 0:
		v.reach, v.code, v.severity = drover.ReachNone, drover.HostIsUnreachable, drover.SeverityCritical
		v.text = fmt.Sprintf("%s, and %s: it may be dead, or cut off from all of them", onBus, cannot(id, no))
	default:
		v.reach, v.code, v.severity = drover.ReachNone, drover.HostIsUnreachable, drover.SeverityCritical
		v.text = onBus + ", and no other host observes it: nobody knows whether it runs"
	}
	return v
}

// since is the earliest of the times from which something is not as it should be.
func since(silent time.Time, no []witness) time.Time {
	at := silent
	for _, w := range no {
		if at.IsZero() || w.Since.Before(at) {
			at = w.Since
		}
	}
	return at
}

func can(id drover.HostID, yes []witness) string {
	if len(yes) == 0 {
		return "nobody who tries reaches it"
	}
	return fmt.Sprintf("%s %s %s", names(yes), verb(len(yes), "reaches", "reach"), id)
}

func cannot(id drover.HostID, no []witness) string {
	first := slices.MinFunc(no, func(a, b witness) int { return a.Since.Compare(b.Since) })
	return fmt.Sprintf("%s %s not reach %s since %s (%s)", names(no), verb(len(no), "does", "do"), id, first.Since.UTC().Format(time.TimeOnly),
		first.Problem)
}

func verb(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func names(list []witness) string {
	var out []string
	for _, w := range list {
		out = append(out, string(w.host))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// judgeLocked judges a host by what is known now.
func (f *Fleet) judgeLocked(id drover.HostID) verdict {
	var said []witness
	for observer, s := range f.state.heard {
		if observer == id || f.hostStatusLocked(observer) != drover.HostOK {
			continue
		}
		for _, o := range s.info.Observations {
			if o.Host == id {
				said = append(said, witness{observer, o})
			}
		}
	}
	slices.SortFunc(said, func(a, b witness) int { return cmp.Compare(a.host, b.host) })
	return judge(id, f.hostStatusLocked(id), f.state.heard[id].at, said)
}

// judged fills in what is judged of a host, and raises the condition.
func (f *Fleet) judged(info drover.HostInfo) drover.HostInfo {
	if !slices.Contains(info.Roles, drover.RoleWorker) {
		return info
	}
	f.state.mu.RLock()
	v := f.judgeLocked(info.ID)
	f.state.mu.RUnlock()
	info.Reach, info.ReachText = v.reach, v.text
	if v.code != "" {
		info.Conditions = append(slices.Clone(info.Conditions), drover.Condition{Code: v.code, Severity: v.severity, Subject: string(info.ID),
			Text: v.text, Since: v.since.UTC()})
	}
	return info
}
