package host

import (
	"context"

	"drover"
)

// ps lists the processes of a machine that runs.
func (a *Agent) ps(ctx context.Context, req drover.PsRequest) ([]drover.Process, error) {
	m, err := a.startedMachine(req.Machine)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	g, err := a.cfg.GuestDial(ctx, m.agentSocket())
	if err != nil {
		return nil, err
	}
	defer g.Close() // the answer is here
	return g.Ps(ctx)
}
