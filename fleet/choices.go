package fleet

import (
	"fmt"

	"drover"
)

// choices decides what was left to Drover: when the switch is made, and, for a machine that does not run, that there is no memory to be moved.
func (f *Fleet) choices(req Move, m drover.Migration) drover.Migration {
	var copies drover.Bytes
	for _, d := range m.Disks {
		copies += d.Allocated
	}
	m.Late, m.SwitchReason = f.rules.ChooseSwitch(req.Options.Switch, f.suspicion(m.Source), copies)
	m.Live = req.Options.Live || req.Options.LiveOrCold
	if m.Live && !m.WasRunning {
		m.Live, m.ColdReason = false, "the machine does not run"
	}
	return m
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
