package fleet

import (
	"fmt"
	"slices"
	"time"

	"drover"
)

// conditionsLocked is what the control side finds not as it should be about a host, beside what the host itself says.
func (f *Fleet) conditionsLocked(info drover.HostInfo) []drover.Condition {
	var found []drover.Condition
	if m := info.Mark; m != nil && !m.ExpiresAt.IsZero() && f.now().After(m.ExpiresAt) {
		found = append(found, drover.Condition{Code: drover.MarkExpired, Severity: drover.SeverityWarning, Since: m.ExpiresAt,
			Text: fmt.Sprintf("host %q is closed for new machines since %s, by %s: %s; that was to be over by %s", info.ID, m.Since.UTC().Format(time.DateTime),
				m.Owner, m.Reason, m.ExpiresAt.UTC().Format(time.DateTime))})
	}
	for _, h := range f.state.halts.items {
		if h.value.Host == info.ID {
			found = append(found, drover.Condition{Code: drover.ClassHalted, Severity: drover.SeverityCritical, Subject: h.value.Class, Since: h.value.At,
				Text: fmt.Sprintf("no drain moves machines of class %q: migration %s of machine %s failed in drain %s: %s", h.value.Class, h.value.Migration,
					h.value.Machine, h.value.Drain, h.value.Reason)})
		}
	}
	if c := f.power.condition(info.ID); c != nil {
		found = append(found, *c)
	}
	if c := f.beliefs.condition(info.ID); c != nil && info.Status == drover.HostOK { // what a host believes that is not heard is not known
		found = append(found, *c)
	}
	if info.ID == f.cfg.Host {
		if c := f.trail.condition(f.now()); c != nil {
			found = append(found, *c)
		}
	}
	if isWorker(info) {
		if c := f.regionsSeen.condition(info.Region); c != nil {
			found = append(found, *c)
		}
	}
	return found
}

func isWorker(info drover.HostInfo) bool { return slices.Contains(info.Roles, drover.RoleWorker) }
