package host

import (
	"context"

	"drover"
	"drover/boltstore"
)

// prepareRoot makes the image and the root disk of a machine that was created to be started later, so that the start finds all there. The machine
// is stopped then. What can be mended by waiting is tried again; what cannot is told as the machine's failure.
func (m *machine) prepareRoot(ctx context.Context) error {
	m.agent.hit("host.prepare.before")
	_, err := m.ensureRoot(ctx)
	permanent := drover.Is(err, drover.Invalid) || drover.Is(err, drover.NotFound) || drover.Is(err, drover.Denied)
	if err != nil && !permanent {
		return err
	}
	m.agent.hit("host.prepare.after")
	return m.change(func(r *records, _ *boltstore.Tx) error {
		if !r.unprepared() {
			return nil // something else was asked for meanwhile
		}
		s := &r.Obs.Status
		s.State, s.Reason, s.Run = drover.StateStopped, "", r.Desired.Machine.Run
		if err != nil {
			s.State, s.Reason = drover.StateFailed, "cannot prepare its image: "+err.Error()
		}
		return nil
	})
}
