package fleet

import (
	"fmt"
	"time"

	"drover"
)

// maxMoveTime bounds what may be asked for as a time without progress, or as a deadline.
const maxMoveTime = drover.Duration(7 * 24 * time.Hour)

// checkMoveOptions refuses what can never be right.
func checkMoveOptions(o drover.MoveOptions) error {
	switch o.Switch {
	case "", drover.SwitchEarly, drover.SwitchLate, drover.SwitchAuto:
	default:
		return drover.Errorf(drover.Invalid, "switch is %q; expected early, late or auto", o.Switch).WithField("switch")
	}
	if o.Bandwidth < 0 || o.Bandwidth > 0 && o.Bandwidth < 64*drover.KiB {
		return drover.Errorf(drover.Invalid, "bandwidth is %d bytes per second; expected 0 for no bound, or %d at least", o.Bandwidth, 64*drover.KiB).WithField("bandwidth")
	}
	for field, d := range map[string]drover.Duration{"no_progress": o.NoProgress, "deadline": o.Deadline} {
		if d < 0 || d > maxMoveTime {
			return drover.Errorf(drover.Invalid, "%s is %v; expected 0 for the default, or up to %v", field, time.Duration(d), time.Duration(maxMoveTime)).WithField(field)
		}
	}
	return nil
}

// choices decides what was left to Drover: when the switch is made, and, for a machine that does not run, that there is no memory to be moved.
func (f *Fleet) choices(req Move, m drover.Migration) drover.Migration {
	if m.Undoes != "" {
		m.SwitchReason = "the target has its own copy"
		return m
	}
	var copies drover.Bytes
	for _, d := range m.Disks {
		copies += d.Allocated
	}
	why := f.suspicion(m.Source)
	if req.Options.Damaged && why == "" {
		why = "what is damaged there cannot be copied"
	}
	m.Late, m.SwitchReason = f.rules.ChooseSwitch(req.Options.Switch, why, copies)
	m.Live = req.Options.Live || req.Options.LiveOrCold
	if m.Live && !m.WasRunning {
		m.Live, m.ColdReason = false, "the machine does not run"
	}
	return m
}

// ailing ends a hint with what is known to be the matter with a host; empty when nothing is.
func (f *Fleet) ailing(id drover.HostID) string {
	if why := f.suspicion(id); why != "" {
		return fmt.Sprintf("; %s. If it is to be given up, switch it off, and then: drover host fence %s", why, id)
	}
	return ""
}

// suspicion says why a host is not to be trusted with what still is to be copied; empty when it is.
func (f *Fleet) suspicion(id drover.HostID) string {
	f.state.mu.RLock()
	info, ok := f.hostLocked(id)
	f.state.mu.RUnlock()
	switch {
	case !ok:
		return ""
	case info.Mark != nil && info.Mark.Suspect:
		return fmt.Sprintf("%s marked host %q as suspect: %s", info.Mark.Owner, id, info.Mark.Reason)
	case info.Status == drover.HostUnreachable:
		return fmt.Sprintf("host %q does not answer", id)
	}
	for _, c := range info.Conditions {
		if c.Severity == drover.SeverityCritical {
			return fmt.Sprintf("host %q: %s", id, c.Text)
		}
	}
	return ""
}
