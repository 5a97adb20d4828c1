package host

import (
	"fmt"

	"drover"
)

// liveFindings is what this host knows that matters to moving a machine with its memory: order move.check tells it. None of it is against a
// cold migration.
func (a *Agent) liveFindings(req drover.MoveCheckRequest) []drover.MoveFinding {
	finding := func(check string, ok bool, hint, format string, args ...any) drover.MoveFinding {
		f := drover.MoveFinding{Check: check, Host: a.cfg.ID, OK: ok, LiveOnly: true, Text: fmt.Sprintf(format, args...)}
		if !ok {
			f.Hint = hint
		}
		return f
	}
	transport := a.diskTransport(req.Spec)
	return []drover.MoveFinding{
		finding("transport", transport != drover.TransportNBD, "use the disk transport "+string(drover.TransportVhost)+", or move it cold",
			"disks of machine %q are attached over %s here", req.Spec.ID, transport),
		finding("cpu", a.cfg.GuestCPU == req.Peer.CPU, "memory moves between equal processors only: choose another host, or move it cold",
			"guests see the processor %q here, and %q on host %s", a.cfg.GuestCPU, req.Peer.CPU, req.Peer.ID),
		finding("vmm", a.cfg.Platform == req.Peer.Platform, "memory moves between equal versions only: choose another host, or move it cold",
			"VMs run on %q here, and on %q on host %s", a.cfg.Platform, req.Peer.Platform, req.Peer.ID),
	}
}
